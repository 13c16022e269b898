"""Opening the store of one process on PostgreSQL: the migrations, the secrets, the lock, the writer and the readers, in that order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import asyncpg

from service.clock import Clock, Randomness
from service.db.keyring import CHECK, box_of, check_of, verify
from service.db.opening import Store
from service.db.postgres.pg_engine import PgEngine
from service.db.postgres.pg_errors import DRIVER
from service.db.postgres.pg_migrate import upgrade
from service.db.postgres.pg_reader import PAGES, PgReader
from service.db.postgres.pg_sole import Sole
from service.db.sealing import SecretBox
from service.db.writer import Observer, Writer
from service.errors import SettingsInvalid, StoreUnavailable
from service.notation import without_password

_PUT_CHECK = "INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING"


async def open_store(
    url: str,
    secret_key: str,
    clock: Clock,
    randomness: Randomness,
    observer: Observer | None = None,
    *,
    read_timeout_s: float | None = None,
) -> Store:
    """Open a PostgreSQL store, brought up to date where needed. The writer is not started yet.

    Args:
        url: `postgresql://…`.
        secret_key: The root of what is encrypted.
        clock: For the writer.
        randomness: For keys.
        observer: Told of every batch.
        read_timeout_s: The deadline of a read for a caller; None: it may take its time.

    Raises:
        SettingsInvalid: The database cannot be used so, or the key does not fit.
        StoreUnavailable: The server cannot be had, or another process has the database.
    """
    box = box_of(secret_key, randomness)
    async with contextlib.AsyncExitStack() as on_failure:
        on_failure.enter_context(_told(url))
        before, _ = await upgrade(url)
        await _check_key(url, box)
        sole = await Sole.take(url)
        on_failure.push_async_callback(sole.release)
        engine = await PgEngine.open(url, clock, sole=sole)
        on_failure.push_async_callback(engine.close)
        reader = await PgReader.open(url)
        on_failure.push_async_callback(reader.close)
        pages = await PgReader.open(url, PAGES, read_timeout_s)
        on_failure.pop_all()
    return Store(Writer(engine, clock, observer), reader, pages, box, before is None)


async def bring_up_to_date(url: str) -> tuple[str | None, str]:
    """Apply the migrations that a database lacks; its first tables where there are none.

    Returns:
        The revision before and after.

    Raises:
        SettingsInvalid: The database cannot be used so.
        StoreUnavailable: The server cannot be had.
    """
    with _told(url):
        return await upgrade(url)


async def _check_key(url: str, box: SecretBox) -> None:
    """Whether the key is the one that the database was made with; of processes that begin together one says which it is."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_PUT_CHECK, CHECK, check_of(box))
        verify(
            box,
            await connection.fetchval("SELECT value FROM meta WHERE key = $1", CHECK),
            "REMORA_SECRET_KEY",
            without_password(url),
        )
    finally:
        await connection.close()


@contextlib.contextmanager
def _told(url: str) -> Iterator[None]:
    """Tell of a server that cannot be had, or a database that cannot be used, in one sentence."""
    where = without_password(url)
    try:
        yield
    except (
        asyncpg.InvalidAuthorizationSpecificationError,
        asyncpg.InvalidCatalogNameError,
        asyncpg.InsufficientPrivilegeError,
        asyncpg.ClientConfigurationError,
    ) as error:
        raise SettingsInvalid([f"REMORA_DATABASE_URL: {where} cannot be used: {error}"]) from None
    except DRIVER as error:
        raise StoreUnavailable(f"{where} cannot be reached: {error or type(error).__name__}") from None
