"""Opening the store of one process: the lock, the migrations, the secrets, the writer and the readers, in that order."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path

from service.clock import Clock, Randomness
from service.db.keyring import open_box
from service.db.migrate import upgrade
from service.db.reader import Reader
from service.db.secrets import SecretBox
from service.db.sqlite import LockFile, SQLiteReader, SQLiteWriteConnection
from service.db.writer import Observer, Writer
from service.errors import SettingsInvalid, StoreUnavailable


@dataclass(slots=True)
class Store:
    """An open store; closing it lets another process in."""

    path: Path
    lock: LockFile
    writer: Writer
    reader: Reader
    box: SecretBox
    fresh: bool  # the database was made just now

    async def close(self) -> None:
        """Finish the writes that wait, and close: readers first, so that the writer does the last checkpoint."""
        await self.reader.close()
        await self.writer.close()
        self.lock.release()


async def open_store(
    path: Path, secret_key: str | None, clock: Clock, randomness: Randomness, observer: Observer | None = None
) -> Store:
    """Open a SQLite store, made or brought up to date where needed. The writer is not started yet.

    Raises:
        SettingsInvalid: The place cannot be written, or the key does not fit.
        StoreUnavailable: Another process has the database.
    """
    lock = LockFile(path)
    try:
        await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
        lock.acquire()
    except StoreUnavailable:
        raise
    except OSError as error:
        raise SettingsInvalid([f"REMORA_DATABASE_URL: {path} cannot be used: {error.strerror}"]) from error
    async with contextlib.AsyncExitStack() as on_failure:
        on_failure.callback(lock.release)
        before, _ = await asyncio.to_thread(upgrade, path)
        connection = await SQLiteWriteConnection.open(path)
        on_failure.push_async_callback(connection.close)  # its thread would keep the process alive
        box = await connection.on_thread(lambda raw: open_box(raw, path, secret_key, randomness))
        reader = await SQLiteReader.open(path)
        on_failure.pop_all()
    return Store(path, lock, Writer(connection, clock, observer), reader, box, fresh=before is None)
