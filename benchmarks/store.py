"""Durable commands per second: the group-commit writer beside a SQLModel session per command and a raw connection per command.

Every command inserts a row and updates it, and is answered only once it is durable (WAL, synchronous=FULL), on the same
disk in the same run. Run: `python -m benchmarks.store [--seconds 3]`.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiosqlite
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from service.clock import SystemClock
from service.db.macros import sqlite_text
from service.db.migrate import upgrade
from service.db.sqlite.sqlite_engine import SQLiteWriteConnection
from service.db.transaction import Tx
from service.db.writer import Command, Writer

CALLERS = (1, 16, 64, 256)
BODY = "x" * 300

_CREATE = "CREATE TABLE IF NOT EXISTS bench (id INTEGER PRIMARY KEY, status TEXT NOT NULL, seq INTEGER NOT NULL, body TEXT NOT NULL)"
_INSERT = "INSERT INTO bench (id, status, seq, body) @rows(:id, 'queued', 1, :body)"
_UPDATE = "UPDATE bench SET status = 'running', seq = 2 WHERE id = :id AND status = 'queued' AND seq = 1"


class Bench(SQLModel, table=True):
    """The row of the session variant."""

    id: int | None = Field(default=None, primary_key=True)
    status: str
    seq: int
    body: str


@dataclass(frozen=True, slots=True)
class Touch(Command[int]):
    """Insert a row and update it."""

    id: int


async def _handle(tx: Tx, commands: Sequence[Touch]) -> list[int | Exception]:
    rows = [{"id": command.id, "body": BODY} for command in commands]
    tx.write(_INSERT, rows, expect=len(rows))
    tx.write(_UPDATE, rows, expect=len(rows))
    return [command.id for command in commands]


Run = Callable[[int], Awaitable[object]]


async def _measure(run: Run, callers: int, seconds: float) -> float:
    loop = asyncio.get_running_loop()
    ids = iter(range(1, 10**9))
    done = 0
    end = loop.time() + seconds

    async def caller() -> None:
        nonlocal done
        while loop.time() < end:
            await run(next(ids))
            done += 1

    started = loop.time()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return done / (loop.time() - started)


async def _writer(path: Path, callers: int, seconds: float) -> float:
    upgrade(path)
    connection = await SQLiteWriteConnection.open(path)
    await connection.on_thread(lambda raw: raw.execute(_CREATE))
    writer = Writer(connection, SystemClock())
    writer.handle(Touch, _handle)
    writer.start()
    try:
        return await _measure(lambda number: writer.run(Touch(number)), callers, seconds)
    finally:
        await writer.close()


async def _raw(path: Path, callers: int, seconds: float) -> float:
    connection = await aiosqlite.connect(path, isolation_level=None)
    await connection.execute("PRAGMA journal_mode = WAL")
    await connection.execute("PRAGMA synchronous = FULL")
    await connection.execute(_CREATE)
    lock = asyncio.Lock()
    insert = sqlite_text(_INSERT)

    async def run(number: int) -> None:
        async with lock:
            await connection.execute("BEGIN IMMEDIATE")
            await connection.execute(insert, {"id": number, "body": BODY})
            await connection.execute(_UPDATE, {"id": number})
            await connection.execute("COMMIT")

    try:
        return await _measure(run, callers, seconds)
    finally:
        await connection.close()


async def _session(path: Path, callers: int, seconds: float) -> float:
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")

    @event.listens_for(engine.sync_engine, "connect")
    def _pragmas(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "busy_timeout = 5000"):
            connection.execute(f"PRAGMA {pragma}")

    async with engine.begin() as connection:
        await connection.exec_driver_sql(_CREATE)
    lock = asyncio.Lock()  # without it most of the callers fail with "database is locked"

    async def run(number: int) -> None:
        async with lock, AsyncSession(engine) as session:
            row = Bench(id=number, status="queued", seq=1, body=BODY)
            session.add(row)
            await session.flush()
            row.status, row.seq = "running", 2
            session.add(row)
            await session.commit()

    try:
        return await _measure(run, callers, seconds)
    finally:
        await engine.dispose()


async def _main(seconds: float) -> None:
    variants = {"session": _session, "raw commit": _raw, "writer": _writer}
    print(f"SQLite {sqlite3.sqlite_version}, durable, insert + update a command, {seconds:g} s each")
    print(f"{'callers':>8} {'session':>10} {'raw commit':>11} {'writer':>9} {'writer/session':>15} {'writer/raw':>11}")
    for callers in CALLERS:
        found: dict[str, float] = {}
        for name, variant in variants.items():
            with tempfile.TemporaryDirectory() as directory:
                found[name] = await variant(Path(directory) / "bench.db", callers, seconds)
        writer = found["writer"]
        print(
            f"{callers:>8} {found['session']:>8,.0f}/s {found['raw commit']:>9,.0f}/s {writer:>7,.0f}/s "
            f"{writer / found['session']:>14.1f}x {writer / found['raw commit']:>10.1f}x"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    asyncio.run(_main(parser.parse_args().seconds))
