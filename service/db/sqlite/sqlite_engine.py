"""SQLite as the writer's engine: the writing connection, and the file that it looks after.

WAL, exactly one writing connection which also does every checkpoint (SQLite 3.7.0 to 3.51.2 can corrupt a database when two
connections write or checkpoint at once), one process per file.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import aiosqlite

from service.db.sqlite.presence import Presence
from service.db.sqlite.sqlite_errors import fault
from service.db.sqlite.sqlite_tx import SQLiteTx
from service.errors import StoreFailed, StoreUnavailable

T = TypeVar("T")

BUSY_TIMEOUT_MS = 3_000  # an operator's shell may hold the file for a moment; the setting's default
# Retention or an erasure may have removed the newest events: a number that was given once never comes again.
# The condition is the index's: without it all events are read.
LAST_POS = """
SELECT max(coalesce((SELECT max(pos) FROM events WHERE pos IS NOT NULL), 0), coalesce((SELECT max(max(feed_floor, feed_erased)) FROM accounts), 0))
"""
#: Of a new database. Every transaction writes whole pages, some fourteen of them: with half of SQLite's 4,096 bytes a job
#: writes two fifths less, at the same speed; a quarter takes a third more of the processor.
PAGE_BYTES = 2_048
CHECKPOINT_BYTES = 16 << 20  # of log between checkpoints: fewer stalls than the default of 1,000 pages
LOG_MAX = 2**26  # bytes; the setting's default


def empty_log(raw: sqlite3.Connection) -> bool:
    """Bring everything from the log into the database, and cut the log to nothing: it holds what was erased since.

    Never waits; False: somebody reads from the log at this moment.
    """
    [(timeout_ms,)] = raw.execute("PRAGMA busy_timeout").fetchall()
    raw.execute("PRAGMA busy_timeout = 0")
    try:
        busy = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    finally:
        raw.execute(f"PRAGMA busy_timeout = {timeout_ms}")
    return not busy


class SQLiteEngine(ABC):
    """What SQLite does for the writer, wherever the connection lives; see `Engine`."""

    alone = True  # one process per file
    last_pos: int  # the feed's last committed position

    @abstractmethod
    async def on_thread(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function where the connection lives."""

    @abstractmethod
    def check(self) -> None:
        """See `Engine`."""

    @abstractmethod
    async def close(self) -> None:
        """See `Engine`."""

    def begin(self, now_ms: int) -> SQLiteTx:
        """See `Engine`."""
        return SQLiteTx(self, now_ms)

    def translate(self, error: BaseException) -> BaseException:
        """See `Engine`."""
        return fault(error) if isinstance(error, sqlite3.Error | MemoryError) else error

    async def empty_log(self) -> bool:
        """See `Engine`."""
        try:
            return await self.on_thread(empty_log)
        except sqlite3.Error as error:  # a full disk, say
            found = fault(error)
            raise (found if isinstance(found, StoreFailed) else StoreUnavailable(repr(error))) from error


class SQLiteWriteConnection(SQLiteEngine):
    """The connection that writes. Work runs as whole functions on aiosqlite's thread."""

    def __init__(self, connection: aiosqlite.Connection, last_pos: int, presence: Presence) -> None:
        self._connection = connection
        self.last_pos = last_pos
        self._presence = presence

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        named: Path | None = None,
        busy_timeout_ms: int = BUSY_TIMEOUT_MS,
        log_max: int = LOG_MAX,
    ) -> SQLiteWriteConnection:
        """Open the database for writing; the caller holds its lock.

        Args:
            path: The file, without links.
            named: The same as the settings name it.
            busy_timeout_ms: How long to wait while another program holds the database.
            log_max: How large the log may become, in bytes.
        """
        connection = await aiosqlite.connect(path, isolation_level=None, cached_statements=512)
        try:
            last_pos = await cls._prepare(connection, busy_timeout_ms, log_max)
            presence = await asyncio.to_thread(Presence, named or path, path)  # the first read made all files
        except BaseException:
            await connection.close()  # its thread would keep the process alive
            raise
        return cls(connection, last_pos, presence)

    @staticmethod
    async def _prepare(connection: aiosqlite.Connection, busy_timeout_ms: int, log_max: int) -> int:
        connection.row_factory = sqlite3.Row
        for pragma in (
            f"busy_timeout = {busy_timeout_ms}",
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            "temp_store = MEMORY",
            "cache_size = -65536",
            "secure_delete = ON",  # what is erased is overwritten, whatever the library was built to do
        ):
            await connection.execute(f"PRAGMA {pragma}")
        [(page_bytes,)] = await connection.execute_fetchall("PRAGMA page_size")
        checkpoint_bytes = min(CHECKPOINT_BYTES, log_max // 2)  # half of the log's bound, where that is small
        await connection.execute(f"PRAGMA wal_autocheckpoint = {max(1, checkpoint_bytes // page_bytes)}")
        [(last_pos,)] = await connection.execute_fetchall(LAST_POS)
        return int(last_pos)

    async def on_thread(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function on the connection's thread, in one trip."""
        # aiosqlite offers a trip for every statement only; its own methods are built on this one (pinned <0.23).
        return await self._connection._execute(work, self._connection._conn)  # type: ignore[no-untyped-call, no-any-return]  # noqa: SLF001

    def check(self) -> None:
        """See `Engine`."""
        self._presence.check()

    async def close(self) -> None:
        """Close the file; its thread ends."""
        try:
            self.check()
        except StoreFailed:
            # SQLite does no last checkpoint of a file that was moved: what is in the log would be missing in it, and a log that
            # stays behind would be replayed into the next database of the name.
            with contextlib.suppress(sqlite3.Error):
                await self.on_thread(empty_log)
        await self._connection.close()
