"""Opening the store of one process: the lock, the migrations, the secrets, the writer and the readers, in that order."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from service.clock import Clock, Randomness
from service.db.keyring import open_box
from service.db.migrate import upgrade
from service.db.reader import Reader
from service.db.sealing import SecretBox
from service.db.sqlite.barrier import Barrier
from service.db.sqlite.file_lock import DatabaseLock
from service.db.sqlite.readers import PAGES, SQLiteReader
from service.db.sqlite.sqlite_engine import BUSY_TIMEOUT_MS, LOG_MAX, SQLiteWriteConnection
from service.db.sqlite.sqlite_errors import fault, remedy
from service.db.writer import Observer, Writer
from service.errors import SettingsInvalid, StoreUnavailable

LEFT_BEHIND = (".secret-key", ".admin-key", "-wal")  # what lies beside a database that was used


@dataclass(slots=True)
class Store:
    """An open store.

    Args:
        reader: For the service's own work: keys, intake, deliveries, duties.
        pages: For what callers ask to see; each read has a deadline.
        fresh: The database was made just now.
    """

    writer: Writer
    reader: Reader
    pages: Reader
    box: SecretBox
    fresh: bool

    async def close(self) -> None:
        """Finish the writes that wait, and close: readers first, so that on SQLite the writer does the last checkpoint."""
        await self.pages.close()
        await self.reader.close()
        await self.writer.close()


@dataclass(slots=True)
class SQLiteStore(Store):
    """A store in a file; closing it lets another process in. All reads pass the barrier."""

    path: Path
    lock: DatabaseLock
    barrier: Barrier = field(default_factory=Barrier)

    @property
    def log_path(self) -> Path:
        """The database's log."""
        return self.path.with_name(self.path.name + "-wal")

    async def close(self) -> None:
        """See `Store`."""
        await Store.close(self)
        self.lock.release()


def hold(path: Path) -> DatabaseLock:
    """Take a database for this process, before anything is made or listened on.

    Raises:
        SettingsInvalid: The place does not exist, or cannot be written.
        StoreUnavailable: Another process has the database.
    """
    lock = DatabaseLock(path.resolve())  # a link to the file is the same file, and must be the same lock
    if not path.parent.is_dir():
        raise SettingsInvalid([no_directory(path)])
    if (missing := lost(path)) is not None:
        raise SettingsInvalid([missing])
    try:
        lock.acquire()
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StoreUnavailable(f"{path} cannot be used: {error.strerror}; make room on its disk") from error
        raise SettingsInvalid([not_writable(path, error.strerror or "")]) from error
    return lock


def lost(path: Path) -> str | None:
    """What to do about a database that is not there while what belongs to it is; None where nothing is amiss.

    An empty one in its place would know no key, and the files of the lost one would go as nobody's.
    """
    if path.exists():
        return None
    left = [path.with_name(path.name + end) for end in LEFT_BEHIND]
    found = next((each for each in left if each.exists()), None)
    if found is None:
        return None
    fix = f"put it back or restore a backup; to begin anew remove {path.name}.* beside it"
    return f"REMORA_DATABASE_URL: {path} is gone, but {found.name} is there, so it was moved or deleted: {fix}"


def not_writable(path: Path, reason: str) -> str:
    """What to do about a database that this user may not write."""
    return f"REMORA_DATABASE_URL: {path} cannot be used: {reason}; choose a place that this user may write to"


def no_directory(path: Path) -> str:
    """What to do about a database in a directory that is not there: a mistyped path must not become a new, empty one."""
    return f"REMORA_DATABASE_URL: there is no directory {path.parent}; make it, or name another place"


async def open_store(
    path: Path,
    secret_key: str | None,
    clock: Clock,
    randomness: Randomness,
    observer: Observer | None = None,
    *,
    lock: DatabaseLock | None = None,
    read_timeout_s: float | None = None,
    busy_timeout_ms: int = BUSY_TIMEOUT_MS,
    log_max: int = LOG_MAX,
) -> SQLiteStore:
    """Open a SQLite store, made or brought up to date where needed. The writer is not started yet.

    Args:
        path: The database file.
        secret_key: The root of what is encrypted; None: the one beside the database.
        clock: For the writer.
        randomness: For keys.
        observer: Told of every batch.
        lock: The one that `hold` took; None: it is taken now.
        read_timeout_s: The deadline of a read for a caller; None: it may take its time.
        busy_timeout_ms: How long to wait while another program holds the database.
        log_max: How large the log may become, in bytes.

    Raises:
        SettingsInvalid: The place cannot be written, or the key does not fit.
        StoreUnavailable: Another process has the database.
    """
    held = lock if lock is not None else await asyncio.to_thread(hold, path)
    named, path = path, await asyncio.to_thread(path.resolve)
    barrier = Barrier()
    async with contextlib.AsyncExitStack() as on_failure:
        on_failure.callback(held.release)
        on_failure.enter_context(_told(path))
        await asyncio.to_thread(held.make)
        before, _ = await asyncio.to_thread(upgrade, path)
        connection = await SQLiteWriteConnection.open(
            path, named=named, busy_timeout_ms=busy_timeout_ms, log_max=log_max
        )
        on_failure.push_async_callback(connection.close)  # its thread would keep the process alive
        box = await connection.on_thread(lambda raw: open_box(raw, path, secret_key, randomness))
        reader = await SQLiteReader.open(path, barrier=barrier, busy_timeout_ms=busy_timeout_ms)
        on_failure.push_async_callback(reader.close)
        pages = await SQLiteReader.open(path, PAGES, read_timeout_s, barrier=barrier, busy_timeout_ms=busy_timeout_ms)
        on_failure.pop_all()
    return SQLiteStore(Writer(connection, clock, observer), reader, pages, box, before is None, path, held, barrier)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Tell of a file that is no sound database in one sentence."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if isinstance(fault(error), StoreUnavailable):
            raise StoreUnavailable(f"{path} cannot be used ({error}); {remedy(error)}") from error
        msg = f"REMORA_DATABASE_URL: {path} cannot be used ({error}); {remedy(error)}"
        raise SettingsInvalid([msg]) from error
