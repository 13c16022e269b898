"""Brings a database up to date with the migrations that ship with the service.

Owns the question whether one is due. It must not know how one is applied: what does is imported only then.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path


def migrations_directory() -> Path:
    """Where the migrations are: inside an installed wheel, or beside `service/` in a checkout."""
    service = Path(__file__).resolve().parent.parent
    shipped = service / "_migrations"
    return shipped if shipped.is_dir() else service.parent / "migrations"


def newest() -> str:
    """The revision that this code expects: the number that the last migration's file begins with."""
    return max(path.name.partition("_")[0] for path in (migrations_directory() / "versions").glob("[0-9]*.py"))


def upgrade(path: Path) -> tuple[str | None, str | None]:
    """Apply what is missing; the caller holds the lock file.

    Returns:
        The revision before and after.

    Raises:
        sqlite3.Error: The file is no sound database, or cannot be written.
    """
    before = current(path)
    if before == newest():
        return before, before
    from service.db import alembic  # noqa: PLC0415 - half a second of processor, and rarely needed

    alembic.apply(path, migrations_directory())
    return before, current(path)


def current(path: Path) -> str | None:
    """The revision that a database is at; None for a new one."""
    with closing(sqlite3.connect(path)) as raw:
        if raw.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone() is None:
            return None
        row = raw.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])
