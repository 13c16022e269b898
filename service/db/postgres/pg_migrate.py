"""Brings a PostgreSQL database up to date: the tables of one revision where there are none yet, and the migrations since.

One process at a time does it, under a lock; the others wait, and find it done. It must not know what the migrations do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import asyncpg

from service.db.migrate import migrations_directory, newest, unknown
from service.errors import SettingsInvalid

LOCK: Final = 7_313_002  # of all who migrate, in PostgreSQL's space of advisory locks


async def upgrade(url: str) -> tuple[str | None, str]:
    """Apply what is missing.

    Args:
        url: `postgresql://…`; the database is there.

    Returns:
        The revision before and after.

    Raises:
        OSError, asyncpg.PostgresError: The server cannot be had, or the user may not do this.
        SettingsInvalid: A newer version has used the database.
    """
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"SELECT pg_advisory_lock({LOCK})")
        before = await current(connection)
        if (newer := unknown(before)) is not None:
            raise SettingsInvalid([newer])
        if before is None:
            async with connection.transaction():
                await connection.execute(_first(migrations_directory()).read_text("utf-8"))
        if await current(connection) != newest():
            from service.db import alembic  # noqa: PLC0415 - half a second of processor, and rarely needed

            await alembic.apply_postgresql(url, migrations_directory())
    finally:
        await connection.close()  # and with it the lock
    return before, newest()


async def current(connection: Any) -> str | None:
    """The revision that a database is at; None for an empty one."""
    if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
        return None
    found: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
    return found


def _first(migrations: Path) -> Path:
    """The tables with which a database begins."""
    [path] = (migrations / "postgresql").glob("[0-9]*.sql")
    return path
