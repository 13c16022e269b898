"""SQLite as the writer's engine: the writing connection, its transactions, what its errors mean.

Only this file and `readers` use the driver while the service runs.

WAL, exactly one writing connection which also does every checkpoint (SQLite 3.7.0 to 3.51.2 can corrupt a database when two
connections write or checkpoint at once), one process per file.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, TypeVar

import aiosqlite
import structlog

from service.db.macros import compiled
from service.db.presence import Presence
from service.db.transaction import Params, Row
from service.errors import GuardFailed, StoreFailed, StoreUnavailable

T = TypeVar("T")

_log = structlog.get_logger(__name__)

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
MAX_ROWS: Final = 64  # of one statement; the driver keeps every size that was used prepared, hence powers of two only


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


class SQLiteTx:
    """One transaction on the writing connection; see `Tx`."""

    def __init__(self, connection: SQLiteEngine, now_ms: int) -> None:
        self.now_ms = now_ms
        self.durable = False  # SQLite committed it, even if nobody was told
        self._connection = connection
        self._pos = connection.last_pos
        self._pending: list[tuple[str, Sequence[Params], int | None]] = []
        self._after_commit: list[Callable[[], None]] = []
        self._on_rollback: list[Callable[[], None]] = []

    async def rows(self, sql: str, params: Params) -> list[Row]:
        """See `Tx`."""
        return await self.rows_each(sql, (params,))

    async def rows_each(self, sql: str, params: Sequence[Params]) -> list[Row]:
        """See `Tx`."""
        pending, self._pending = self._pending, []
        text = compiled(sql).text

        def work(raw: sqlite3.Connection) -> list[Any]:
            _send(raw, pending)
            found: list[Any] = []
            for one in params:
                found += raw.execute(text, one).fetchall()
            return found

        return await self._connection.on_thread(work)

    def write(self, sql: str, rows: Sequence[Params], *, expect: int | None = None) -> None:
        """See `Tx`."""
        if rows:
            self._pending.append((sql, rows, expect))

    def number(self) -> int:
        """See `Tx`."""
        self._pos += 1
        return self._pos

    def after_commit(self, action: Callable[[], None]) -> None:
        """See `Tx`."""
        self._after_commit.append(action)

    def on_rollback(self, action: Callable[[], None]) -> None:
        """See `Tx`."""
        self._on_rollback.append(action)

    async def commit(self) -> None:
        """See `EngineTx`; `durable` is set also where it will not be found."""
        pending, self._pending = self._pending, []

        def work(raw: sqlite3.Connection) -> None:
            _send(raw, pending)
            raw.execute("COMMIT")
            # Here and not after the trip: the task may be cancelled on its way, and a number must never be given twice.
            self._connection.last_pos = self._pos
            self.durable = True
            self._connection.check()

        await self._connection.on_thread(work)

    def committed(self) -> None:
        """Run what waited for the commit."""
        for action in self._after_commit:
            try:
                action()
            except Exception:  # what is committed must never be applied again because a follow-up failed
                _log.exception("after_commit_failed")

    async def rollback(self) -> None:
        """See `EngineTx`; SQLite rolls back by itself where the disk is full, and at errors of reading and writing."""

        def work(raw: sqlite3.Connection) -> None:
            if raw.in_transaction:
                raw.execute("ROLLBACK")

        try:
            await self._connection.on_thread(work)
        except sqlite3.Error as error:
            raise StoreFailed(f"a transaction cannot be rolled back: {error}") from error
        finally:  # what was reserved for this transaction is free again, even if the engine failed
            for action in [] if self.durable else self._on_rollback:
                action()


def _send(raw: sqlite3.Connection, pending: list[tuple[str, Sequence[Params], int | None]]) -> None:
    if not raw.in_transaction:
        raw.execute("BEGIN IMMEDIATE")
    for sql, rows, expect in pending:
        changed = apply(raw, sql, rows)
        if expect is not None and changed != expect:
            msg = f"{changed} of {expect} rows changed: {sql.strip().splitlines()[0]}"
            raise GuardFailed(msg)


def apply(raw: sqlite3.Connection, sql: str, rows: Sequence[Params]) -> int:
    """Run the statement for every row, in order; returns how many rows it changed.

    For every row of an `executemany` the driver binds by name, steps, resets, and lets go of the interpreter lock; one
    statement over many rows spares all that (measured: 60 µs instead of 83 for everything that is written about one callback).
    """
    statement = compiled(sql)
    if len(rows) == 1 or not statement.names:
        return raw.executemany(statement.text, rows).rowcount
    width = len(statement.names)
    values = list(chain.from_iterable(map(_reader(sql), rows)))
    changed = done = 0
    while done < len(rows):
        count = min(MAX_ROWS, 1 << (len(rows) - done).bit_length() - 1)
        part = values[done * width : (done + count) * width]
        changed += raw.execute(_repeated(sql, count), part).rowcount
        done += count
    return changed


@lru_cache(maxsize=1024)
def _reader(sql: str) -> Callable[[Params], tuple[Any, ...]]:
    """How to read a row's parameters."""
    names = compiled(sql).names
    return itemgetter(*names) if len(names) > 1 else lambda row: (row[names[0]],)


@lru_cache(maxsize=1024)
def _repeated(sql: str, count: int) -> str:
    return compiled(sql).repeated(count)


#: The engine is not able at the moment. It may be later, for any command alike, so that nothing is gained by trying each.
_UNABLE: Final = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        # Nothing was written: a quota, a limit on the size of files, a file system that became read-only, and a disk
        # that is full while the log's index grows come as I/O errors. Errors of reading and of fsync are another matter.
        sqlite3.SQLITE_IOERR_WRITE,
        sqlite3.SQLITE_IOERR_NOMEM,
        sqlite3.SQLITE_IOERR_SHMSIZE,
    }
)
_BROKEN: Final = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def fault(error: sqlite3.Error | MemoryError) -> Exception:
    """The error in our words; one that belongs to the statement is given back as it is."""
    code = sqlite3.SQLITE_NOMEM if isinstance(error, MemoryError) else getattr(error, "sqlite_errorcode", None)
    if code is None:
        return error
    primary = code & 0xFF
    if code in _UNABLE or primary in _UNABLE:
        return StoreUnavailable(f"the database cannot be used now: {str(error) or 'out of memory'}")
    if primary in _BROKEN:
        return StoreFailed(f"{getattr(error, 'sqlite_errorname', 'SQLITE')}: {error}")
    return error


def remedy(error: BaseException) -> str:
    """What an operator does about a database that cannot be opened."""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return "end the other program's transaction"
    if isinstance(error, sqlite3.Error) and isinstance(fault(error), StoreUnavailable):
        return "make room on its disk, and let this user write to it"
    return "restore a backup, or name another file"
