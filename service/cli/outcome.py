"""How a command ends that cannot go on: plain lines on standard error and an exit status, never a traceback.

Owns the exit statuses. It must not know the commands.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import structlog
import typer

from service.cli.printing import folded, terminal_width
from service.errors import CardInvalid, EgressError, RemoraError, SettingsInvalid, StoreFailed, StoreUnavailable
from service.printable import one_line

_log = structlog.get_logger(__name__)

NOT_WELL = 1  # what was asked about is not as it should be, or what was asked for cannot be done
CONFIGURED_WRONG = 2  # settings or cards; trying again will not help
NOT_AVAILABLE = 3  # the port, the database or the service; trying again later may


class Refused(RemoraError):
    """A command cannot do what it was asked to; the message says why and what to do about it."""

    def __init__(self, message: str, status: int = NOT_AVAILABLE) -> None:
        super().__init__(message)
        self.status = status


@contextlib.contextmanager
def told(*, in_log: bool = False) -> Iterator[None]:
    """Turn what Remora raises on purpose into lines and an exit status.

    Args:
        in_log: As one line of the log, for a command whose output a machine reads.

    Raises:
        typer.Exit: Always instead of a `RemoraError`.
    """
    try:
        yield
    except RemoraError as error:
        if in_log:
            problems = [line.removeprefix("remora: ") for line in _lines(error)]
            _log.critical("start_failed", problems=problems[1:] or problems, exit_status=_status(error))
            raise typer.Exit(_status(error)) from error
        head, *others = map(one_line, _lines(error))
        width = terminal_width(sys.stderr)
        for line in [*folded("", head, width), *(line for each in others for line in folded("  ", each, width))]:
            typer.echo(line, err=True)
        raise typer.Exit(_status(error)) from error


def _lines(error: RemoraError) -> list[str]:
    if isinstance(error, SettingsInvalid):
        count = len(error.problems)
        head = "remora: one setting is wrong" if count == 1 else f"remora: {count} settings are wrong"
        return [head, *error.problems]
    if isinstance(error, CardInvalid):
        return ["remora: a provider card is wrong", *str(error).splitlines()]
    return [f"remora: {error}"]


def _status(error: RemoraError) -> int:
    if isinstance(error, Refused):
        return error.status
    if isinstance(error, StoreUnavailable | StoreFailed | EgressError):
        return NOT_AVAILABLE
    return CONFIGURED_WRONG
