"""The writer over an engine of its own kind, which fails at each step in turn: what it promises does not hang on SQLite."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import pytest

from service.clock import SystemClock
from service.db.engine import Engine, EngineTx
from service.db.transaction import Params, Row, Tx
from service.db.writer import Command, Writer
from service.errors import GuardFailed, StoreFailed, StoreInDoubt, StoreUnavailable
from tests.generated import ROOT


class Trouble(Exception):
    """This engine's own error."""


BUSY: Final = Trouble("busy")
BROKEN: Final = Trouble("broken")
WRONG: Final = Trouble("syntax")


@dataclass
class ListEngine:
    """Keeps a list of names. `failing` says at which steps what happens instead, once."""

    alone: bool = False
    failing: dict[str, Exception] = field(default_factory=dict)
    stored: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)

    def step(self, name: str) -> None:
        """One of the engine's steps."""
        self.done.append(name)
        if name in self.failing:
            raise self.failing.pop(name)

    def begin(self, now_ms: int) -> EngineTx:
        """See `Engine`."""
        self.step("begin")
        return ListTx(self, now_ms)

    def translate(self, error: BaseException) -> BaseException:
        """See `Engine`."""
        known = {BUSY: StoreUnavailable("busy"), BROKEN: StoreFailed("broken")}
        return known.get(error, error) if isinstance(error, Trouble) else error

    async def empty_log(self) -> bool:
        """See `Engine`."""
        self.step("empty_log")
        return True

    def check(self) -> None:
        """See `Engine`."""
        self.step("check")

    async def close(self) -> None:
        """See `Engine`."""
        self.step("close")


@dataclass
class ListTx:
    """A transaction on the list."""

    engine: ListEngine
    now_ms: int
    written: list[str] = field(default_factory=list)
    after: list[Callable[[], None]] = field(default_factory=list)

    async def rows(self, sql: str, params: Params) -> list[Row]:
        """What is stored."""
        self.engine.step("rows")
        return [{"name": each} for each in self.engine.stored]

    async def rows_each(self, sql: str, params: Sequence[Params]) -> list[Row]:
        """The same."""
        return await self.rows(sql, {})

    def write(self, sql: str, rows: Sequence[Params], *, expect: int | None = None) -> None:
        """Add names."""
        self.written += [str(row["name"]) for row in rows]

    def number(self) -> int:
        """None is asked for."""
        raise NotImplementedError

    def after_commit(self, action: Callable[[], None]) -> None:
        """See `Tx`."""
        self.after.append(action)

    def after_numbered(self, action: Callable[[], None]) -> None:
        """None is asked for."""
        raise NotImplementedError

    def on_rollback(self, action: Callable[[], None]) -> None:
        """None is asked for."""
        raise NotImplementedError

    async def commit(self) -> None:
        """See `EngineTx`."""
        self.engine.step("commit")
        self.engine.stored += self.written
        self.engine.step("committed")

    async def rollback(self) -> None:
        """See `EngineTx`."""
        self.engine.step("rollback")

    def committed(self) -> None:
        """See `EngineTx`."""
        for action in self.after:
            action()


@dataclass(frozen=True)
class Add(Command[int]):
    """Add a name; answered with how many there were."""

    name: str


async def _add(tx: Tx, commands: Sequence[Add]) -> list[int | Exception]:
    found = await tx.rows("SELECT", {})
    tx.write("INSERT", [{"name": each.name} for each in commands])
    return [len(found) for _ in commands]


@asynccontextmanager
async def served(engine: ListEngine) -> AsyncIterator[Writer]:
    """A writer over it."""
    writer = Writer(engine, SystemClock())
    writer.handle(Add, _add)
    writer.start()
    yield writer
    await writer.close()


async def _both(writer: Writer) -> list[int | BaseException]:
    """Two commands of one batch."""
    return list(await asyncio.gather(writer.run(Add("a")), writer.run(Add("b")), return_exceptions=True))


async def test_commands_are_stored_together_and_answered() -> None:
    """Where nothing fails: one transaction for those that wait, and the engine let go of in the end."""
    engine: Engine = ListEngine()
    assert isinstance(engine, ListEngine)
    async with served(engine) as writer:
        answers = await _both(writer)

    assert answers == [0, 0]
    assert engine.stored == ["a", "b"]
    assert engine.done == ["begin", "rows", "commit", "committed", "close"]


@pytest.mark.parametrize("step", ["rows", "commit"])
async def test_engine_that_is_not_able_refuses_all_and_goes_on(step: str) -> None:
    """Everybody is told to come again, nothing was stored, and the next command is."""
    engine = ListEngine(failing={step: BUSY})
    async with served(engine) as writer:
        answers = await _both(writer)
        trouble = writer.trouble
        later = await writer.run(Add("c"))

    assert [type(each) for each in answers] == [StoreUnavailable] * 2
    assert trouble == "busy"
    assert engine.done[:4] in (["begin", "rows", "rollback", "begin"], ["begin", "rows", "commit", "rollback"])
    assert (later, engine.stored) == (0, ["c"])


@pytest.mark.parametrize(
    ("failing", "stored"),
    [
        ({"rows": BROKEN}, []),
        ({"commit": BROKEN}, []),
        ({"committed": StoreFailed("moved")}, ["a", "b"]),
        ({"rows": BUSY, "rollback": StoreFailed("cannot be rolled back")}, []),
    ],
)
async def test_engine_that_cannot_be_trusted_ends_the_writer(failing: dict[str, Exception], stored: list[str]) -> None:
    """Who waits is told that nobody knows, and nothing more is taken; wherever it shows, also behind the commit."""
    engine = ListEngine(failing=failing)
    async with served(engine) as writer:
        answers = await _both(writer)
        late = await asyncio.gather(writer.run(Add("c")), return_exceptions=True)

    assert [type(each) for each in answers] == [StoreInDoubt] * 2
    assert [type(each) for each in late] == [StoreUnavailable]
    assert writer.failed.done()
    assert engine.stored == stored


@pytest.mark.parametrize("step", ["rows", "commit"])
@pytest.mark.parametrize("error", [WRONG, GuardFailed("1 of 2 rows changed")])
async def test_error_that_belongs_to_a_command_is_its_own(step: str, error: Exception) -> None:
    """The batch is rolled back and its commands are applied one by one."""
    engine = ListEngine(failing={step: error})
    async with served(engine) as writer:
        answers = await _both(writer)

    assert answers == [0, 1]
    assert engine.done.count("rollback") == 1
    assert engine.stored == ["a", "b"]


async def test_error_of_a_lone_command_reaches_who_sent_it() -> None:
    """As the engine raised it; the next command is not touched."""
    engine = ListEngine(failing={"rows": WRONG})
    async with served(engine) as writer:
        with pytest.raises(Trouble, match="syntax"):
            await writer.run(Add("a"))
        assert await writer.run(Add("b")) == 0

    assert engine.stored == ["b"]


async def test_log_that_cannot_be_emptied_is_tried_again_later() -> None:
    """Not able now is no failure; not to be trusted is one."""
    engine = ListEngine(failing={"empty_log": StoreUnavailable("full")})
    async with served(engine) as writer:
        assert await writer.empty_log() is False
        assert await writer.empty_log() is True
        engine.failing = {"empty_log": StoreFailed("broken")}
        assert await writer.empty_log() is False
        await asyncio.wait_for(asyncio.shield(writer.failed), 5)

    assert writer.closed


async def test_check_that_fails_ends_the_writer() -> None:
    """Also while nobody writes."""
    engine = ListEngine(failing={"check": StoreFailed("gone")})
    async with served(engine) as writer:
        writer.check()
        with pytest.raises(StoreUnavailable):
            await writer.run(Add("a"))

    assert engine.stored == []


@pytest.mark.parametrize(("alone", "answer", "stored"), [(True, 0, ["a"]), (False, 7, [])])
async def test_leases_are_void_at_start_only_where_nobody_else_works(
    alone: bool, answer: int, stored: list[str]
) -> None:
    """Elsewhere another process may hold them: the command is not run, and the answer is the one that was given."""
    engine = ListEngine(alone)
    async with served(engine) as writer:
        assert await writer.void(Add("a"), 7) == answer

    assert engine.stored == stored


@pytest.mark.parametrize("module", ["writer", "engine", "transaction", "macros", "leases"])
def test_what_stands_above_the_engine_knows_no_driver(module: str) -> None:
    """Neither the driver nor the module that owns it is imported."""
    tree = ast.parse((ROOT / "service" / "db" / f"{module}.py").read_text("utf-8"))
    names = {
        name
        for node in ast.walk(tree)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [each.name for each in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    }

    assert not names & {
        "sqlite3",
        "aiosqlite",
        "asyncpg",
        "service.db.sqlite.sqlite_engine",
        "service.db.sqlite.readers",
        "service.db.postgres.pg_engine",
        "service.db.postgres.pg_reader",
    }
