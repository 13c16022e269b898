"""What the transactions of both engines have in common: writes wait until they are sent together, follow-ups for the end.

It must not know a driver.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import structlog

from service.db.transaction import Params, Row
from service.errors import GuardFailed

#: A statement, its rows, and how many rows it must change.
Write = tuple[str, Sequence[Params], int | None]

_log = structlog.get_logger(__name__)


class CollectingTx(ABC):
    """The part of `Tx` and `EngineTx` that asks nothing of the engine. `durable`: it is committed, even if nobody was told."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.durable = False
        self._pending: list[Write] = []
        self._after_commit: list[Callable[[], None]] = []
        self._on_rollback: list[Callable[[], None]] = []

    @abstractmethod
    async def rows_each(self, sql: str, params: Sequence[Params]) -> list[Row]:
        """See `Tx`."""

    async def rows(self, sql: str, params: Params) -> list[Row]:
        """See `Tx`."""
        return await self.rows_each(sql, (params,))

    def write(self, sql: str, rows: Sequence[Params], *, expect: int | None = None) -> None:
        """See `Tx`."""
        if rows:
            self._pending.append((sql, rows, expect))

    def after_commit(self, action: Callable[[], None]) -> None:
        """See `Tx`."""
        self._after_commit.append(action)

    def on_rollback(self, action: Callable[[], None]) -> None:
        """See `Tx`."""
        self._on_rollback.append(action)

    def committed(self) -> None:
        """See `EngineTx`."""
        run_all(self._after_commit)

    def undone(self) -> None:
        """What was reserved for this transaction is free again, unless it was committed after all."""
        for action in [] if self.durable else self._on_rollback:
            action()


def run_all(actions: Sequence[Callable[[], None]]) -> None:
    """Run follow-ups, each in its own right: what is committed must never be applied again because one of them failed."""
    for action in actions:
        try:
            action()
        except Exception:  # the outermost guard of what others hand in
            _log.exception("after_commit_failed")


def check_changed(sql: str, changed: int, expect: int | None) -> None:
    """See whether a write changed the rows that it had to.

    Raises:
        GuardFailed: It did not.
    """
    if expect is not None and changed != expect:
        msg = f"{changed} of {expect} rows changed: {sql.strip().splitlines()[0]}"
        raise GuardFailed(msg)
