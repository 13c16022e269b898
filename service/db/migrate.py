"""Brings a database up to date with the migrations that ship with the service."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry, NullPool


def migrations_directory() -> Path:
    """Where the migrations are: inside an installed wheel, or beside `service/` in a checkout."""
    service = Path(__file__).resolve().parent.parent
    shipped = service / "_migrations"
    return shipped if shipped.is_dir() else service.parent / "migrations"


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations_directory()))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def newest() -> str | None:
    """The revision that this code expects."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def upgrade(path: Path) -> tuple[str | None, str | None]:
    """Apply what is missing; the caller holds the lock file.

    Returns:
        The revision before and after.
    """
    engine = create_engine(_url(path), poolclass=NullPool)
    _begin_immediately(engine)
    try:
        with engine.connect() as connection:
            before = MigrationContext.configure(connection).get_current_revision()
            connection.rollback()
            command.upgrade(_config(connection), "head")
            connection.commit()
            after = MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()
    return before, after


def current(path: Path) -> str | None:
    """The revision that a database is at; None for a new one."""
    engine = create_engine(_url(path), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()


def _url(path: Path) -> URL:
    # Not as text: SQLAlchemy would decode what looks like %25 in a name, and open another file.
    return URL.create("sqlite", database=str(path))


def _begin_immediately(engine: object) -> None:
    # Python's sqlite3 commits before DDL unless told not to, which would leave half a migration behind after a crash:
    # https://docs.sqlalchemy.org/en/20/dialects/sqlite.html#pysqlite-serializable
    @event.listens_for(engine, "connect")
    def _connect(dbapi_connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        dbapi_connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
