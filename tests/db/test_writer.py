"""The writer: durable before answered, whole sets or nothing, and only the culprit fails."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from service.clock import SystemClock
from service.db.migrate import upgrade
from service.db.sqlite.readers import SQLiteReader
from service.db.sqlite.sqlite_engine import SQLiteWriteConnection
from service.db.transaction import Tx
from service.db.writer import Command, Writer
from service.errors import GuardFailed, NotFound, StoreUnavailable

CREATE = "CREATE TABLE counted (name TEXT PRIMARY KEY, n INTEGER NOT NULL CHECK (n < 100))"


@dataclass(frozen=True, slots=True)
class Add(Command[int]):
    """Add to a counter; answers its new value."""

    name: str
    by: int = 1

    def lock(self) -> Hashable | None:
        """Two additions to one counter never share a batch."""
        return self.name


@dataclass(slots=True)
class Counters:
    """A handler that loads, decides and writes as sets, and remembers its batches."""

    batches: list[int] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    before_commit: Callable[[], None] = lambda: None

    async def handle(self, tx: Tx, commands: Sequence[Add]) -> list[int | Exception]:
        self.batches.append(len(commands))
        rows = await tx.rows("SELECT name, n FROM counted", {})
        known = {row["name"]: row["n"] for row in rows}
        answers: list[int | Exception] = []
        for command in commands:
            if command.name == "nobody":
                answers.append(NotFound("there is no such counter"))
                continue
            value = known.get(command.name, 0) + command.by
            tx.write(
                "INSERT OR REPLACE INTO counted (name, n) VALUES (:name, :n)", [{"name": command.name, "n": value}]
            )
            tx.after_commit(lambda name=command.name: self.told.append(name))  # type: ignore[misc]
            answers.append(value)
        self.before_commit()
        return answers


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A new database with a table of counters."""
    path = tmp_path / "remora.db"
    upgrade(path)
    connection = sqlite3.connect(path)
    connection.execute(CREATE)
    connection.commit()
    connection.close()
    return path


@pytest.fixture
async def writer(path: Path, counters: Counters) -> AsyncIterator[Writer]:
    """A running writer that counts."""
    writer = Writer(await SQLiteWriteConnection.open(path), SystemClock())
    writer.handle(Add, counters.handle)
    writer.start()
    yield writer
    await writer.close()


@pytest.fixture
def counters() -> Counters:
    """The handler."""
    return Counters()


def stored(path: Path) -> dict[str, int]:
    """What another process would read now."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return dict(connection.execute("SELECT name, n FROM counted").fetchall())
    finally:
        connection.close()


async def test_writer_answers_only_what_is_durable(writer: Writer, path: Path) -> None:
    """When `run` returns, another connection reads what was written."""
    answer = await writer.run(Add("a", 3))

    assert answer == 3
    assert stored(path) == {"a": 3}


async def test_writer_takes_waiting_commands_as_one_set(writer: Writer, counters: Counters, path: Path) -> None:
    """Commands that wait together are committed together."""
    await asyncio.gather(*(writer.run(Add(f"c{number}")) for number in range(50)))

    assert counters.batches == [50]
    assert len(stored(path)) == 50


async def test_writer_never_loses_an_update_under_contention(writer: Writer, path: Path) -> None:
    """400 concurrent increments of one counter, in fours, count every one."""
    answers = [await asyncio.gather(*(writer.run(Add("a")) for _ in range(4))) for _ in range(24)]

    assert sorted(value for four in answers for value in four) == list(range(1, 97))
    assert stored(path) == {"a": 96}


async def test_writer_fails_only_the_culprit_of_a_batch(writer: Writer, path: Path) -> None:
    """One command that breaks a constraint fails alone; its neighbours are applied."""
    answers = await asyncio.gather(
        writer.run(Add("a")), writer.run(Add("b", 500)), writer.run(Add("c")), return_exceptions=True
    )

    assert answers[0] == 1
    assert isinstance(answers[1], sqlite3.IntegrityError)
    assert answers[2] == 1
    assert stored(path) == {"a": 1, "c": 1}


async def test_writer_gives_a_handlers_refusal_to_its_caller_alone(writer: Writer, path: Path) -> None:
    """A refusal is an answer: the batch is committed all the same."""
    answers = await asyncio.gather(writer.run(Add("a")), writer.run(Add("nobody")), return_exceptions=True)

    assert answers[0] == 1
    assert isinstance(answers[1], NotFound)
    assert stored(path) == {"a": 1}


async def test_writer_applies_the_command_of_a_cancelled_caller(writer: Writer, path: Path) -> None:
    """Giving up on the answer takes nothing back."""
    caller = asyncio.create_task(writer.run(Add("a")))
    await asyncio.sleep(0)
    caller.cancel()
    await writer.run(Add("b"))

    assert stored(path) == {"a": 1, "b": 1}


async def test_writer_tells_followers_only_after_the_commit(writer: Writer, counters: Counters, path: Path) -> None:
    """What waits for the commit sees its effect, and does not run when there was none."""
    await asyncio.gather(writer.run(Add("a")), writer.run(Add("b", 500)), return_exceptions=True)

    assert counters.told == ["a"]
    assert stored(path) == {"a": 1}


async def test_writer_keeps_a_commit_whose_follow_up_fails(writer: Writer, counters: Counters, path: Path) -> None:
    """A follow-up that raises neither undoes nor repeats what is committed."""

    def broken() -> None:
        raise RuntimeError

    async def handle(tx: Tx, commands: Sequence[Add]) -> list[int | Exception]:
        tx.after_commit(broken)
        return await counters.handle(tx, commands)

    writer.handle(Add, handle)
    await writer.run(Add("a"))

    assert counters.batches == [1]
    assert stored(path) == {"a": 1}


async def test_writer_replays_a_lone_command_whose_guard_failed(writer: Writer, path: Path) -> None:
    """A guarded write that met another state is decided again, on the new state."""
    tries = 0

    async def handle(tx: Tx, commands: Sequence[Add]) -> list[int | Exception]:
        nonlocal tries
        tries += 1
        tx.write("UPDATE counted SET n = 1 WHERE name = 'a' AND n = :n", [{"n": tries - 1}], expect=1)
        return [tries for _ in commands]

    await writer.run(Add("a"))
    writer.handle(Add, handle)
    answer = await writer.run(Add("a"))

    assert answer == 2


async def test_writer_gives_up_on_a_guard_that_never_holds(writer: Writer) -> None:
    """Three times is enough; the caller is told."""

    async def handle(tx: Tx, commands: Sequence[Add]) -> list[int | Exception]:
        tx.write("UPDATE counted SET n = 1 WHERE name = 'nowhere'", [{}], expect=1)
        return [0 for _ in commands]

    writer.handle(Add, handle)
    with pytest.raises(GuardFailed, match="0 of 1 rows changed"):
        await writer.run(Add("a"))


async def test_writer_refuses_when_closing(path: Path, counters: Counters) -> None:
    """What waits is finished; what comes later is refused as unavailable."""
    writer = Writer(await SQLiteWriteConnection.open(path), SystemClock())
    writer.handle(Add, counters.handle)
    writer.start()
    before = asyncio.gather(*(writer.run(Add(f"c{number}")) for number in range(10)))
    await asyncio.sleep(0)
    await writer.close()

    assert await before == [1] * 10
    with pytest.raises(StoreUnavailable):
        await writer.run(Add("late"))


async def test_writer_says_when_the_disk_is_full(writer: Writer, path: Path, counters: Counters) -> None:
    """A full disk is an answer of its own; reads go on, and writing works again as soon as there is room."""

    async def fill(tx: Tx, commands: Sequence[Add]) -> list[int | Exception]:
        tx.write(
            "INSERT INTO meta (key, value) VALUES (:key, zeroblob(10000000))",
            [{"key": command.name} for command in commands],
        )
        return [0 for _ in commands]

    await writer.run(Add("a"))
    await writer._engine.on_thread(lambda raw: raw.execute("PRAGMA max_page_count = 200"))  # type: ignore[attr-defined]
    writer.handle(Add, fill)
    with pytest.raises(StoreUnavailable, match="full"):
        await writer.run(Add("big"))
    writer.handle(Add, counters.handle)

    assert await writer.run(Add("a")) == 2
    assert stored(path) == {"a": 2}


async def test_reader_cannot_write(writer: Writer, path: Path) -> None:
    """The pool is read-only by the engine's own word."""
    reader = await SQLiteReader.open(path, count=1)
    try:
        with pytest.raises(StoreUnavailable, match="readonly"):
            await reader.rows("DELETE FROM counted")
    finally:
        await reader.close()
