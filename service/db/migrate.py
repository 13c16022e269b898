"""Brings a database up to date with the migrations that ship with the service.

Owns the question whether one is due. It must not know how one is applied: what does is imported only then.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from service.errors import SettingsInvalid


def migrations_directory() -> Path:
    """Where the migrations are: inside an installed wheel, or beside `service/` in a checkout."""
    service = Path(__file__).resolve().parent.parent
    shipped = service / "_migrations"
    return shipped if shipped.is_dir() else service.parent / "migrations"


def revisions() -> list[str]:
    """The revisions that this code knows, in their order: the numbers that the migrations' files begin with."""
    return sorted(path.name.partition("_")[0] for path in (migrations_directory() / "versions").glob("[0-9]*.py"))


def newest() -> str:
    """The revision that this code expects."""
    return revisions()[-1]


def unknown(revision: str | None) -> str | None:
    """What to do about a database that a newer version has used; None where nothing is amiss."""
    if revision is None or revision in revisions():
        return None
    return (
        f"REMORA_DATABASE_URL: the database is at revision {revision}, and this version knows none above {newest()}: a newer "
        "one has used it; start that one, or restore a backup from before"
    )


def upgrade(path: Path) -> tuple[str | None, str | None]:
    """Apply what is missing; the caller holds the lock file.

    Returns:
        The revision before and after.

    Raises:
        sqlite3.Error: The file is no sound database, or cannot be written.
        SettingsInvalid: A newer version has used it.
    """
    before = current(path)
    if before == newest():
        return before, before
    if (newer := unknown(before)) is not None:
        raise SettingsInvalid([newer])
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
