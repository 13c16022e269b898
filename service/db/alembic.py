"""Runs Alembic on a database. Imported only when a migration is due: with SQLAlchemy and the tables it takes longer than all else at a start."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from service.db.sqlite.sqlite_engine import PAGE_BYTES


def apply(path: Path, migrations: Path) -> None:
    """Apply what is missing; the caller holds the lock file.

    Raises:
        sqlite3.Error: The file is no sound database, or cannot be written.
    """
    engine = create_engine(URL.create("sqlite", database=str(path)), poolclass=NullPool)
    _begin_immediately(engine)
    try:
        with engine.connect() as connection:
            command.upgrade(_config(connection, migrations), "head")
            connection.commit()
    except DBAPIError as error:
        if isinstance(error.orig, sqlite3.Error):
            raise error.orig from error
        raise
    finally:
        engine.dispose()


async def apply_postgresql(url: str, migrations: Path) -> None:
    """Apply what is missing; the caller holds the lock, and the first tables are there."""
    engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"), poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(lambda raw: command.upgrade(_config(raw, migrations), "head"))
    finally:
        await engine.dispose()


def _config(connection: Connection, migrations: Path) -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _begin_immediately(engine: object) -> None:
    # Python's sqlite3 commits before DDL unless told not to, which would leave half a migration behind after a crash:
    # https://docs.sqlalchemy.org/en/20/dialects/sqlite.html#pysqlite-serializable
    @event.listens_for(engine, "connect")
    def _connect(dbapi_connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        dbapi_connection.isolation_level = None
        dbapi_connection.cursor().execute(f"PRAGMA page_size = {PAGE_BYTES}")  # of a new database; others keep theirs

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
