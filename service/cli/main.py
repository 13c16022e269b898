"""The command line: every command under its name.

Owns names, order and the line of help of the commands. It must not know what they do: each group of them is one module,
which is imported when its command is called. All of them together take a second to import, which `remora --version`,
`remora --help` and a mistyped command would have to wait for.
"""

from __future__ import annotations

import gc
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

BEGAN: Final = time.monotonic()  # this process, or its program after a restart

#: Where a command is, as the module with its `app`, and its line of help: what the command itself begins with.
COMMANDS: Final = {
    "serve": (
        "service.cli.serve",
        "Run the service until it is told to stop (SIGTERM, Ctrl-C); it finishes what it is doing first.",
    ),
    "demo": (
        "service.cli.demo.command",
        "See the whole machine at work: service, provider and subscriber on this machine, no key, no network.",
    ),
    "sandbox": (
        "service.cli.sandbox",
        "Run the providers in a box: it speaks the dialect of every built-in card, draws pictures and misbehaves on request.",
    ),
    "migrate": ("service.cli.migrate", "Bring the database up to date; the service must not be running."),
    "doctor": (
        "service.cli.doctor",
        "Check settings, database, keys, cards and network settings without starting anything.",
    ),
    "jobs": ("service.cli.jobs", "Get the history of jobs out of a running service."),
    "accounts": ("service.cli.accounts", "The accounts of a running service, their limits and their money."),
    "providers": ("service.cli.providers", "Show the provider cards in force, or check one."),
}


class Commands(TyperGroup):
    """The commands as their lines of help, until one of them is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """See Typer."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name) if name in COMMANDS else command, rest


def load(name: str) -> Any:
    """The command itself, with its options and all that it needs."""
    module, _ = COMMANDS[name]
    if name == "serve":
        _heed_signals()
    with _quickly() if name == "serve" else nullcontext():
        command = typer.main.get_command(import_module(module).app)
    command.name = name
    return command


def _heed_signals() -> None:
    """A start can be stopped, also as the first process of a container, whose SIGTERM the kernel drops where nobody asks for it."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # it would end a process that does not listen yet
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _end)


def _end(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


@contextmanager
def _quickly() -> Iterator[None]:
    """Import what a restart has to wait for: without the collector, which `Service.listen` turns on, and without rich.

    structlog imports rich wherever it is installed, for traces that we never print: 0.1 s of every start.
    """
    gc.disable()
    known = {name: sys.modules.pop(name) for name in list(sys.modules) if name == "rich"}
    sys.modules["rich"] = None  # type: ignore[assignment] # Python's own way to say that there is none
    try:
        yield
    finally:
        del sys.modules["rich"]
        sys.modules.update(known)


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,  # they print local variables, and so keys
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - Typer calls it so
    if wanted:
        typer.echo(f"remora {version('remora')}")
        raise typer.Exit


@app.callback()
def remora(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Rides along with image-generation APIs so that nobody polls: one job in, one signed event out."""


def _stand_in() -> None:
    """Never called: `Commands` puts the command itself in its place."""


for _name, (_, _help) in COMMANDS.items():
    app.command(_name, help=_help)(_stand_in)
