"""An engine that is not able, and what happens after a commit: nobody waits in turn, and nothing is applied twice."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from service.clock import SystemClock, VirtualClock
from service.db.migrate import upgrade
from service.db.readiness import PROBE_S, Readiness
from service.db.sqlite.readers import SQLiteReader
from service.db.sqlite.sqlite_engine import SQLiteWriteConnection
from service.db.sqlite.sqlite_errors import fault, remedy
from service.db.transaction import Tx
from service.db.writer import Command, Writer
from service.errors import StoreFailed, StoreUnavailable

BUSY_MS = 200


@dataclass(frozen=True, slots=True)
class Put(Command[int]):
    """A row of so many bytes; answers how many commands shared its batch."""

    key: str
    size: int = 1


@dataclass(slots=True)
class Machine:
    """A writer with a handler that counts, and an observer that may fail."""

    path: Path
    writer: Writer
    connection: SQLiteWriteConnection
    readiness: Readiness
    clock: VirtualClock  # of the readiness
    batches: list[int] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    observed: list[int] = field(default_factory=list)
    broken: bool = False

    async def handle(self, tx: Tx, commands: Sequence[Put]) -> list[int | Exception]:
        """Write them as a set."""
        self.batches.append(len(commands))
        self.begun.set()
        for command in commands:
            tx.write(
                "INSERT INTO meta (key, value) VALUES (:key, zeroblob(:size))",
                [{"key": command.key, "size": command.size}],
            )
        return [len(commands) for _ in commands]

    def batch(self, size: int, commit_s: float) -> None:
        """The observer."""
        self.observed.append(size)
        if self.broken:
            raise RuntimeError

    async def put(self, *keys: str, size: int = 1) -> list[Any]:
        """Several commands at once; their answers or errors."""
        return await asyncio.gather(*(self.writer.run(Put(key, size)) for key in keys), return_exceptions=True)

    def keys(self) -> set[str]:
        """What another process would read now."""
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as connection:
            return {key for (key,) in connection.execute("SELECT key FROM meta WHERE length(key) = 1")}


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    """A running writer over a new database."""
    path = tmp_path / "remora.db"
    await asyncio.to_thread(upgrade, path)
    connection = await SQLiteWriteConnection.open(path, busy_timeout_ms=BUSY_MS)
    writer = Writer(connection, SystemClock())
    clock = VirtualClock()
    made = Machine(path, writer, connection, Readiness(writer, clock), clock)
    writer._observer = made
    writer.handle(Put, made.handle)
    writer.start()
    yield made
    await writer.close()


@pytest.mark.parametrize("how", ["IMMEDIATE", "EXCLUSIVE"])
async def test_strangers_lock_is_told_to_all_at_once(machine: Machine, how: str) -> None:
    """Whoever waits hears of it when the time is over, not one after the other; work goes on by itself.

    The batches tell: 40 callers make two tries, where each of them would have waited in turn.
    """
    with closing(sqlite3.connect(machine.path, isolation_level=None)) as shell:
        shell.execute(f"BEGIN {how}")
        first = asyncio.create_task(machine.put(*(f"a{number}" for number in range(20))))
        await machine.begun.wait()
        second = asyncio.create_task(machine.put(*(f"b{number}" for number in range(20))))
        answers = [*await first, *await second]
        told, tries = machine.writer.trouble, list(machine.batches)
        shell.execute("ROLLBACK")
    after = await machine.put("c")
    await machine.readiness.run_once()

    assert {type(answer) for answer in answers} == {StoreUnavailable}
    assert "locked" in str(answers[0])
    assert tries == [20]
    assert told is not None
    assert after == [1]
    assert machine.writer.trouble is None
    assert machine.keys() == {"c"}


async def test_strangers_lock_that_ends_in_time_costs_nothing_but_time(tmp_path: Path, machine: Machine) -> None:
    """A shell may hold the database for a moment."""
    with closing(sqlite3.connect(machine.path, isolation_level=None, check_same_thread=False)) as shell:
        shell.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(machine.put("a", "b"))
        await machine.begun.wait()
        shell.execute("ROLLBACK")
        answers = await waiting

    assert answers == [2, 2]


async def test_full_disk_splits_no_batch(machine: Machine) -> None:
    """All callers are told, after one try; there is room again, and so is the service."""
    await machine.connection.on_thread(lambda raw: raw.execute("PRAGMA max_page_count = 200"))
    full = await machine.put("a", "b", "c", size=2_000_000)
    told = machine.writer.trouble
    await machine.connection.on_thread(lambda raw: raw.execute("PRAGMA max_page_count = 100000"))
    after = await machine.put("d", size=2_000_000)
    await machine.readiness.run_once()

    assert {type(answer) for answer in full} == {StoreUnavailable}
    assert machine.batches == [3, 1]
    assert told is not None
    assert "full" in told
    assert after == [1]
    assert machine.writer.trouble is None


async def test_write_that_needs_no_room_is_no_sign_of_room(machine: Machine) -> None:
    """On a full disk some writes succeed: the store is well again only once it took what a job needs."""
    await machine.put("a")
    [pages] = await machine.connection.on_thread(lambda raw: raw.execute("PRAGMA page_count").fetchone())
    await machine.connection.on_thread(lambda raw: raw.execute(f"PRAGMA max_page_count = {pages + 4}"))
    await machine.put("b", size=2_000_000)
    small = await machine.put("c")
    still = await machine.readiness.trouble()
    await machine.connection.on_thread(lambda raw: raw.execute("PRAGMA max_page_count = 100000"))
    machine.clock.advance(PROBE_S)
    after = await machine.readiness.trouble()

    assert small == [1]
    assert still is not None
    assert after is None


async def test_observer_that_fails_makes_nothing_apply_twice(machine: Machine) -> None:
    """What is committed is answered, whatever becomes of the news of it."""
    machine.broken = True
    answers = await machine.put("a", "b")
    later = await machine.put("c")

    assert (answers, later) == ([2, 2], [1])
    assert machine.batches == [2, 1]
    assert machine.observed == [2, 1]
    assert machine.keys() == {"a", "b", "c"}


async def test_numbers_of_a_commit_whose_news_was_lost_are_never_given_again(tmp_path: Path) -> None:
    """The writer's task is cancelled while the engine commits: the positions are taken all the same."""
    path = tmp_path / "remora.db"
    await asyncio.to_thread(upgrade, path)
    connection = await SQLiteWriteConnection.open(path)
    writer = Writer(connection, SystemClock())
    undone: list[bool] = []

    async def handle(tx: Tx, commands: Sequence[Put]) -> list[int | Exception]:
        tx.write("INSERT INTO meta (key, value) VALUES ('a', x'00')", [{}])
        tx.on_rollback(lambda: undone.append(True))
        # Cancelled as soon as it waits for the engine, which goes on.
        asyncio.get_running_loop().call_soon(task.cancel)
        return [tx.number() or 0 for _ in commands]

    writer.handle(Put, handle)
    caller = asyncio.create_task(writer.run(Put("a")))
    await asyncio.sleep(0)
    task = asyncio.create_task(writer._serve())
    await asyncio.gather(task, return_exceptions=True)
    stored = await connection.on_thread(
        lambda raw: raw.execute("SELECT count(*) FROM meta WHERE key = 'a'").fetchone()[0]
    )
    caller.cancel()
    await connection.close()

    assert stored == 1
    assert undone == []
    assert connection.last_pos == 1


async def test_reader_of_a_locked_database_is_told_so(machine: Machine) -> None:
    """An error of the engine's is one of ours, never a fault without a name; a wrong statement stays one."""
    reader = await SQLiteReader.open(machine.path, count=1, busy_timeout_ms=1)
    try:
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            await reader.rows("SELECT * FROM nowhere")
        with pytest.raises(StoreUnavailable, match="readonly"):
            await reader.rows("DELETE FROM meta")
    finally:
        await reader.close()


def _error(name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("it went wrong")
    error.sqlite_errorcode, error.sqlite_errorname = getattr(sqlite3, name), name
    return error


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("SQLITE_BUSY", StoreUnavailable),
        ("SQLITE_BUSY_SNAPSHOT", StoreUnavailable),
        ("SQLITE_BUSY_RECOVERY", StoreUnavailable),
        ("SQLITE_LOCKED", StoreUnavailable),
        ("SQLITE_FULL", StoreUnavailable),
        ("SQLITE_READONLY", StoreUnavailable),
        ("SQLITE_READONLY_DIRECTORY", StoreUnavailable),
        ("SQLITE_NOMEM", StoreUnavailable),
        ("SQLITE_CANTOPEN", StoreUnavailable),
        ("SQLITE_PROTOCOL", StoreUnavailable),
        ("SQLITE_IOERR_WRITE", StoreUnavailable),
        ("SQLITE_IOERR_SHMSIZE", StoreUnavailable),
        ("SQLITE_IOERR_FSYNC", StoreFailed),
        ("SQLITE_IOERR_READ", StoreFailed),
        ("SQLITE_CORRUPT", StoreFailed),
        ("SQLITE_NOTADB", StoreFailed),
        ("SQLITE_CONSTRAINT", sqlite3.OperationalError),
        ("SQLITE_ERROR", sqlite3.OperationalError),
    ],
)
def test_errors_of_the_engine_are_told_apart(name: str, kind: type[Exception]) -> None:
    """Not able now, no longer to be trusted, or wrong to have been asked."""
    assert type(fault(_error(name))) is kind


@pytest.mark.parametrize(
    ("name", "does"),
    [
        ("SQLITE_BUSY", "end the other program's transaction"),
        ("SQLITE_FULL", "make room"),
        ("SQLITE_READONLY", "let this user write"),
        ("SQLITE_NOTADB", "restore a backup"),
    ],
)
def test_operator_is_told_what_to_do_about_a_database_that_cannot_be_opened(name: str, does: str) -> None:
    """A full disk wants room, not a backup."""
    assert does in remedy(_error(name))


def test_want_of_memory_is_the_engines() -> None:
    """Python raises it as an error of its own."""
    assert isinstance(fault(MemoryError()), StoreUnavailable)
