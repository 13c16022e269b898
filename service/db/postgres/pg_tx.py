"""A transaction on PostgreSQL: reads at once, writes collected and sent as sets, in as few trips as can be.

It must not know where connections come from: that is the engine's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from service.db.collecting import CollectingTx, check_changed
from service.db.macros import compiled, numbered
from service.db.postgres.pg_errors import DRIVER, is_lost
from service.db.transaction import Params, Row

MAX_ROWS: Final = 64  # of one statement; a connection keeps every size that was used prepared, hence powers of two only


class Connections(Protocol):
    """What a transaction asks of the engine."""

    async def acquire(self) -> Any:
        """A connection on which a transaction was begun; it is this one's alone."""

    async def release(self, connection: Any) -> None:
        """It is done with; one that is in a transaction still is closed."""

    async def was_committed(self, xid: str) -> bool:
        """Whether a transaction whose COMMIT had no answer was committed.

        Raises:
            StoreFailed: Nobody can tell.
        """

    def wrote_events(self, actions: Sequence[Callable[[], None]]) -> None:
        """A transaction that was committed holds events without a number; what is to be done once they have one."""


class PgTx(CollectingTx):
    """One transaction; see `Tx` and `EngineTx`."""

    def __init__(self, connections: Connections, now_ms: int) -> None:
        super().__init__(now_ms)
        self._connections = connections
        self._connection: Any = None
        self._has_events = False
        self._after_numbered: list[Callable[[], None]] = []

    async def rows_each(self, sql: str, params: Sequence[Params]) -> list[Row]:
        """See `Tx`."""
        connection = await self._sent()
        text, names = numbered(sql)
        values = [bound(names, one) for one in params]
        if len(values) == 1:
            return await connection.fetch(text, *values[0])  # type: ignore[no-any-return]
        return await connection.fetchmany(text, values) if values else []

    def number(self) -> None:
        """See `Tx`: numbers are given after the commit, since transactions of other processes commit in between."""
        self._has_events = True

    def after_numbered(self, action: Callable[[], None]) -> None:
        """See `Tx`."""
        self._has_events = True
        self._after_numbered.append(action)

    async def commit(self) -> None:
        """See `EngineTx`."""
        if self._connection is None and not self._pending:
            self.durable = True
            return
        connection = await self._sent()
        xid = await connection.fetchval("SELECT CAST(pg_current_xact_id_if_assigned() AS text)")
        try:
            await connection.execute("COMMIT")
        except DRIVER as error:
            if not is_lost(error):
                raise
            if xid is not None and not await self._connections.was_committed(xid):
                raise
        self.durable = True
        await self._let_go()

    def committed(self) -> None:
        """See `EngineTx`."""
        if self._has_events:
            self._connections.wrote_events(self._after_numbered)
        super().committed()

    async def rollback(self) -> None:
        """See `EngineTx`; the server rolls back by itself where the connection is gone."""
        try:
            await self._let_go()
        finally:
            self.undone()

    async def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._connections.release(connection)

    async def _sent(self) -> Any:
        """The connection, in the transaction, after everything that was written so far."""
        if self._connection is None:
            self._connection = await self._connections.acquire()
        pending, self._pending = self._pending, []
        for sql, rows, expect in pending:
            check_changed(sql, await apply(self._connection, sql, rows, counted=expect is not None), expect)
        return self._connection


async def apply(connection: Any, sql: str, rows: Sequence[Params], *, counted: bool = True) -> int:
    """Run the statement for every row; returns how many rows it changed, 0 where nobody counts.

    As one statement over many rows where it can be, else in one trip for all of them.
    """
    width = len(compiled(sql, "postgresql").names)
    if len(rows) == 1 or not width:
        text, names = numbered(sql)
        values = [bound(names, row) for row in rows]
        if len(rows) == 1:
            return _count(await connection.execute(text, *values[0]))
        if not counted:
            await connection.executemany(text, values)
            return 0
        return len(await connection.fetchmany(f"{text} RETURNING 1", values))
    changed = done = 0
    while done < len(rows):
        count = min(MAX_ROWS, 1 << (len(rows) - done).bit_length() - 1)
        text, names = numbered(sql, count)
        part = [value for row in rows[done : done + count] for value in bound(names[:width], row)]
        changed += _count(await connection.execute(text, *part))
        done += count
    return changed


def bound(names: Sequence[str], row: Params) -> list[Any]:
    """The values of a row, by the names of a statement's parameters in their order.

    A text of PostgreSQL's holds no NUL. Callers' are refused; a provider's must not keep its job from being written or found.
    """
    values = (row[name] for name in names)
    return [value.replace("\0", "\ufffd") if isinstance(value, str) and "\0" in value else value for value in values]


def _count(status: str) -> int:
    """The rows that a statement changed, of `UPDATE 3` or `INSERT 0 3`."""
    last = status.rpartition(" ")[2]
    return int(last) if last.isdigit() else 0
