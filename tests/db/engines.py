"""A store on either engine, for tests whose promise holds on both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from service.clock import Clock, SystemClock
from service.db.engine import Engine
from service.db.migrate import upgrade
from service.db.postgres.pg_engine import PgEngine
from service.db.postgres.pg_reader import PgReader
from service.db.reader import Reader
from service.db.sqlite.readers import SQLiteReader
from service.db.sqlite.sqlite_engine import SQLiteWriteConnection
from service.db.transaction import Tx
from service.db.writer import Command, Writer
from tests import postgres

Kind = Literal["sqlite", "postgresql"]
KINDS: Final[tuple[Kind, ...]] = ("sqlite", "postgresql")


@dataclass(frozen=True)
class Work(Command[Any]):
    """What a test does in a transaction; `alone`: it shares a batch with no other."""

    do: Callable[[Tx], Awaitable[Any]]
    alone: bool = False

    def lock(self) -> str | None:
        """One at a time where it says so."""
        return "alone" if self.alone else None


async def _handle(tx: Tx, commands: Sequence[Work]) -> list[Any]:
    return [await each.do(tx) for each in commands]


@dataclass
class OpenStore:
    """A running writer and a reader over one database."""

    kind: Kind
    engine: Engine
    writer: Writer
    reader: Reader
    url: str  # or the file's path

    async def run(self, do: Callable[[Tx], Awaitable[Any]]) -> Any:
        """Do this in a transaction."""
        return await self.writer.run(Work(do))


async def database(kind: Kind, directory: Path) -> str:
    """A new database that is up to date."""
    if kind == "postgresql":
        return await postgres.database()
    upgrade(directory / "remora.db")
    return str(directory / "remora.db")


@asynccontextmanager
async def opened(kind: Kind, url: str, clock: Clock | None = None) -> AsyncIterator[OpenStore]:
    """One process's store; several may be open on one PostgreSQL."""
    clock = clock or SystemClock()
    engine: Engine
    reader: Reader
    if kind == "postgresql":
        engine, reader = await PgEngine.open(url, clock), await PgReader.open(url)
    else:
        engine, reader = await SQLiteWriteConnection.open(Path(url)), await SQLiteReader.open(Path(url))
    writer = Writer(engine, clock)
    writer.handle(Work, _handle)
    writer.start()
    try:
        yield OpenStore(kind, engine, writer, reader, url)
    finally:
        await reader.close()
        await writer.close()
