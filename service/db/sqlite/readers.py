"""Pools of read-only connections: a reader never writes and never checkpoints.

A process has two: one for what callers ask to see, whose reads have a deadline, and one for its own work. Callers' pages,
however slow, then delay no key's look-up, no job and no delivery. This file must not know what is read.
"""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any, Final

import aiosqlite

from service.db.macros import sqlite_text
from service.db.reader import too_slow
from service.db.sqlite.barrier import Barrier
from service.db.sqlite.sqlite_engine import BUSY_TIMEOUT_MS
from service.db.sqlite.sqlite_errors import fault
from service.db.transaction import Params, Row

PAGES: Final = 4  # connections for callers; each has a thread of its own
WORK: Final = 2  # connections for everything else
INTERRUPT_EVERY_S: Final = 0.005  # a statement that had not begun is not interrupted the first time


class SQLiteReader:
    """One pool.

    A connection that was borrowed comes back when its statement has ended, also where nobody waits for that any more: a
    read that is cancelled, or is over its time, is interrupted first.
    """

    def __init__(self, timeout_s: float | None, barrier: Barrier) -> None:
        self._timeout_s = timeout_s
        self._barrier = barrier
        self._idle: asyncio.LifoQueue[aiosqlite.Connection] = asyncio.LifoQueue()
        self._all: list[aiosqlite.Connection] = []
        self._ending: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(
        cls,
        path: Path,
        count: int = WORK,
        timeout_s: float | None = None,
        *,
        barrier: Barrier | None = None,
        busy_timeout_ms: int = BUSY_TIMEOUT_MS,
    ) -> SQLiteReader:
        """Open a pool; the writing connection is open already and made the file.

        Args:
            path: The database.
            count: Of the connections.
            timeout_s: The deadline of a read, in which it also waits for a connection; None: it may take its time.
            barrier: What all pools of a database have in common; None: there is no other.
            busy_timeout_ms: How long to wait while another program holds the database.
        """
        pool = cls(timeout_s, barrier or Barrier())
        uri = f"{path.resolve().as_uri()}?mode=ro"  # noqa: ASYNC240 - once, at start
        for _ in range(count):
            connection = await aiosqlite.connect(uri, uri=True, isolation_level=None)
            connection.row_factory = sqlite3.Row
            await connection.execute(f"PRAGMA busy_timeout = {busy_timeout_ms}")
            await connection.execute("PRAGMA query_only = ON")
            pool._all.append(connection)
            pool._idle.put_nowait(connection)
        return pool

    async def rows(self, sql: str, params: Params | None = None) -> list[Row]:
        """Read a set; every call sees what was committed before it.

        Raises:
            Unavailable: It took longer than it may.
        """
        if self._timeout_s is None:
            return await self._read(sql, params)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._read(sql, params)
        except TimeoutError as error:
            raise too_slow(self._timeout_s) from error

    async def row(self, sql: str, params: Params | None = None) -> Row | None:
        """Read at most one row."""
        found = await self.rows(sql, params)
        return found[0] if found else None

    async def _read(self, sql: str, params: Params | None) -> list[Row]:
        connection = await self._idle.get()
        try:
            await self._barrier.enter()
        except asyncio.CancelledError:
            self._idle.put_nowait(connection)
            raise
        try:
            found: Any = await connection.execute_fetchall(sqlite_text(sql), params or {})
        except asyncio.CancelledError:
            ending = asyncio.create_task(self._end(connection), name="reader-ending")
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
            raise
        except BaseException as error:
            self._give_back(connection)
            if isinstance(error, sqlite3.Error):
                raise fault(error) from error
            raise
        self._give_back(connection)
        return found  # type: ignore[no-any-return]

    def _give_back(self, connection: aiosqlite.Connection) -> None:
        self._barrier.leave()
        self._idle.put_nowait(connection)

    async def _end(self, connection: aiosqlite.Connection) -> None:
        """Interrupt what runs, and put the connection back once it has ended: its thread then does what comes next."""
        next_one = asyncio.ensure_future(connection.execute_fetchall("SELECT 1"))
        while not next_one.done():
            await connection.interrupt()
            await asyncio.wait({next_one}, timeout=INTERRUPT_EVERY_S)
        await asyncio.gather(next_one, return_exceptions=True)  # which may have been interrupted itself
        self._give_back(connection)

    async def close(self) -> None:
        """Close every connection; their threads end."""
        await asyncio.gather(*self._ending, return_exceptions=True)
        for connection in self._all:
            await connection.close()
