"""SQLite: the writing connection, its transactions, and the lock file. Only this file and `readers` know the driver.

WAL, exactly one writing connection which also does every checkpoint (SQLite 3.7.0 to 3.51.2 can corrupt a database when two
connections write or checkpoint at once), one process per file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import aiosqlite
import structlog

from service.db import sets
from service.db.transaction import Params, Row
from service.errors import GuardFailed, StoreUnavailable

T = TypeVar("T")

_log = structlog.get_logger(__name__)

BUSY_TIMEOUT_MS = 5_000  # an operator's shell may hold the file for a moment
# Retention or an erasure may have removed the newest events: a number that was given once never comes again.
LAST_POS = """
SELECT max(coalesce((SELECT max(pos) FROM events), 0), coalesce((SELECT max(max(feed_floor, feed_erased)) FROM accounts), 0))
"""
CHECKPOINT_PAGES = 4_000  # 16 MiB of log between checkpoints: fewer stalls than the default of 1,000


def make_private(path: Path) -> None:
    """Make a database's file, if there is none, so that only its owner can read it; its log takes the mode over.

    One that is there keeps its mode: an operator may have opened it for a backup.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def empty_log(raw: sqlite3.Connection) -> bool:
    """Bring everything from the log into the database, and cut the log to nothing: it holds what was erased since.

    Never waits; False: somebody reads from the log at this moment.
    """
    raw.execute("PRAGMA busy_timeout = 0")
    try:
        busy = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    finally:
        raw.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    return not busy


class LockFile:
    """Keeps a second process away from a database file; the kernel frees it when the process dies."""

    def __init__(self, database: Path) -> None:
        self.path = database.with_name(database.name + ".lock")
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            StoreUnavailable: Another process has it; the message says which.
        """
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            msg = f"{self.path.with_suffix('')} is in use by another Remora process (pid {holder}); stop that one first"
            raise StoreUnavailable(msg) from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Give the lock back; the file stays, since removing it would race with the next owner."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class WriteConnection(Protocol):
    """What a writer writes on: the connection with its thread, or the inline stand-in."""

    last_pos: int  # the feed's last committed position

    async def on_thread(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function where the connection lives."""

    async def close(self) -> None:
        """Close the file."""


class SQLiteWriteConnection:
    """The connection that writes. Work runs as whole functions on aiosqlite's thread."""

    def __init__(self, connection: aiosqlite.Connection, last_pos: int) -> None:
        self._connection = connection
        self.last_pos = last_pos  # the feed's last committed position

    @classmethod
    async def open(cls, path: Path) -> SQLiteWriteConnection:
        """Open the database for writing; the caller holds the lock file."""
        connection = await aiosqlite.connect(path, isolation_level=None, cached_statements=512)
        try:
            last_pos = await cls._prepare(connection)
        except BaseException:
            await connection.close()  # its thread would keep the process alive
            raise
        return cls(connection, last_pos)

    @staticmethod
    async def _prepare(connection: aiosqlite.Connection) -> int:
        connection.row_factory = sqlite3.Row
        for pragma in (
            f"busy_timeout = {BUSY_TIMEOUT_MS}",
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
            "temp_store = MEMORY",
            "cache_size = -65536",
            "secure_delete = ON",  # what is erased is overwritten, whatever the library was built to do
        ):
            await connection.execute(f"PRAGMA {pragma}")
        [(last_pos,)] = await connection.execute_fetchall(LAST_POS)
        return int(last_pos)

    async def on_thread(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function on the connection's thread, in one trip."""
        # aiosqlite offers a trip for every statement only; its own methods are built on this one (pinned <0.23).
        return await self._connection._execute(work, self._connection._conn)  # type: ignore[no-untyped-call, no-any-return]  # noqa: SLF001

    async def close(self) -> None:
        """Close the file; its thread ends."""
        await self._connection.close()


class SQLiteTx:
    """One transaction on the writing connection; see `Tx`."""

    def __init__(self, connection: WriteConnection, now_ms: int) -> None:
        self.now_ms = now_ms
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

        def work(raw: sqlite3.Connection) -> list[Any]:
            _send(raw, pending)
            found: list[Any] = []
            for one in params:
                found += raw.execute(sql, one).fetchall()
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
        """Send the rest and make everything durable."""
        pending, self._pending = self._pending, []

        def work(raw: sqlite3.Connection) -> None:
            _send(raw, pending)
            raw.execute("COMMIT")

        await self._connection.on_thread(work)
        self._connection.last_pos = self._pos

    def committed(self) -> None:
        """Run what waited for the commit."""
        for action in self._after_commit:
            try:
                action()
            except Exception:  # what is committed must never be applied again because a follow-up failed
                _log.exception("after_commit_failed")

    async def rollback(self) -> None:
        """Undo everything; SQLite may have done so itself (disk full, I/O error)."""

        def work(raw: sqlite3.Connection) -> None:
            if raw.in_transaction:
                raw.execute("ROLLBACK")

        try:
            await self._connection.on_thread(work)
        finally:  # what was reserved for this transaction is free again, whatever became of the engine
            for action in self._on_rollback:
                action()


def _send(raw: sqlite3.Connection, pending: list[tuple[str, Sequence[Params], int | None]]) -> None:
    if not raw.in_transaction:
        raw.execute("BEGIN IMMEDIATE")
    for sql, rows, expect in pending:
        changed = sets.apply(raw, sql, rows)
        if expect is not None and changed != expect:
            msg = f"{changed} of {expect} rows changed: {sql.strip().splitlines()[0]}"
            raise GuardFailed(msg)
