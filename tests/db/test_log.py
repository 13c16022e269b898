"""SQLite's log: it stays small with readers that never all rest, and nothing that was erased stays in it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.clock import SeededRandomness, VirtualClock
from service.db.opening import SQLiteStore, open_store
from service.db.readiness import Readiness
from service.db.sqlite.barrier import Barrier
from service.db.sqlite.log_cutting import MAX_PAUSE_S, LogKeeper
from tests.db.test_faults import Machine, Put

MOST = 300_000  # bytes
#: Some milliseconds of reading, with a table in it, so that it holds a snapshot.
SLOW = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)
SELECT count(*) AS rows FROM n, (SELECT key FROM meta LIMIT 1)
"""


@dataclass(slots=True)
class Kept:
    """A store with the keeper of its log."""

    store: SQLiteStore
    clock: VirtualClock
    keeper: LogKeeper
    machine: Machine
    sizes: list[int] = field(default_factory=list)
    read: asyncio.Event = field(default_factory=asyncio.Event)  # somebody did

    async def fill(self) -> int:
        """Write until the log is too large; returns its size."""
        number = 0
        while self.size() <= MOST:
            number += 1
            await self.machine.put(f"{number}-{self.size()}", size=50_000)
        return self.size()

    async def read_forever(self) -> None:
        """One caller who reads and reads."""
        while True:
            await self.store.reader.rows(SLOW)
            self.read.set()

    def size(self) -> int:
        """Of the log."""
        return self.store.log_path.stat().st_size


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    """A store that writes, and has its log kept below `MOST`."""
    clock = VirtualClock()
    store = await open_store(tmp_path / "remora.db", None, clock, SeededRandomness(1))
    readiness = Readiness(store.writer, clock)
    machine = Machine(store.path, store.writer, store.writer._engine, readiness, clock)  # type: ignore[arg-type]
    store.writer.handle(Put, machine.handle)
    store.writer.start()
    sizes: list[int] = []

    class Sizes:
        """The observer."""

        def log_size(self, size_bytes: int) -> None:
            """Remember it."""
            sizes.append(size_bytes)

    keeper = LogKeeper(store.writer, store.barrier, store.log_path, MOST, 5.0, clock, Sizes())
    await keeper.run_once()  # nobody knows what was in the log before the start
    sizes.clear()
    yield Kept(store, clock, keeper, machine, sizes)
    await store.close()


async def test_log_is_cut_while_readers_take_turns(kept: Kept) -> None:
    """At no moment do all of them rest, so that SQLite alone never could; with the barrier it is cut, and reads go on."""
    readers = [asyncio.create_task(kept.read_forever()) for _ in range(8)]
    try:
        large = await kept.fill()
        alone = await kept.store.writer.empty_log()
        left = kept.size()
        for _ in range(8):  # each waits longer than the one before for the reads that run; mostly the first is enough
            kept.clock.advance(MAX_PAUSE_S)
            await kept.keeper.run_once()
        cut = kept.size()
        kept.read.clear()
        async with asyncio.timeout(30):
            await kept.read.wait()
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)

    assert large > MOST
    assert (alone, left > 0) == (False, True)
    assert cut == 0
    assert kept.sizes[0] == large
    assert 0 in kept.sizes


async def test_small_log_is_left_alone(kept: Kept) -> None:
    """Cutting costs a sync of the database; below the bound nobody waits for it."""
    await kept.machine.put("a")
    small = kept.size()
    await kept.keeper.run_once()

    assert small > 0
    assert kept.size() == small


async def test_log_is_cut_after_an_erasure_however_small(kept: Kept) -> None:
    """Once; what comes later is nobody's erasure."""
    await kept.machine.put("a")
    kept.keeper.erased()
    await kept.keeper.run_once()
    cut = kept.size()
    await kept.machine.put("b")
    await kept.keeper.run_once()

    assert cut == 0
    assert kept.size() > 0


async def test_snapshot_of_another_program_is_told_once_and_tried_again(kept: Kept) -> None:
    """It cannot be waited for: tries ever more rarely, one line that says what to do, and one when it is over."""
    with closing(sqlite3.connect(kept.store.path, isolation_level=None)) as shell, capture_logs() as lines:
        shell.execute("BEGIN")
        shell.execute("SELECT count(*) FROM meta").fetchone()
        await kept.fill()
        for _ in range(200):
            kept.clock.advance(1)
            await kept.keeper.run_once()
        meanwhile = [line["event"] for line in lines]
        shell.execute("COMMIT")
        kept.clock.advance(MAX_PAUSE_S)
        await kept.keeper.run_once()
        after = [line["event"] for line in lines]

    assert meanwhile == ["database_log_large"]
    assert "end its transaction" in lines[0]["hint"]
    assert after == ["database_log_large", "database_log_cut"]
    assert kept.size() == 0


async def test_erasure_is_not_forgotten_while_another_program_reads(kept: Kept) -> None:
    """It is tried again until it is done."""
    await kept.machine.put("a")
    with closing(sqlite3.connect(kept.store.path, isolation_level=None)) as shell:
        shell.execute("BEGIN")
        shell.execute("SELECT count(*) FROM meta").fetchone()
        await kept.machine.put("b")
        kept.keeper.erased()
        await kept.keeper.run_once()
        left = kept.size()
    kept.clock.advance(MAX_PAUSE_S)
    await kept.keeper.run_once()

    assert left > 0
    assert kept.size() == 0


async def test_barrier_waits_for_those_who_read_and_holds_back_those_who_come() -> None:
    """Shut, it is quiet once the last read ended; open again, everybody passes."""
    barrier = Barrier()
    await barrier.enter()
    shut, go = asyncio.Event(), asyncio.Event()

    async def cut() -> bool:
        async with barrier.shut(30) as quiet:
            shut.set()
            await go.wait()
            return quiet

    cutting = asyncio.create_task(cut())
    await asyncio.sleep(0)
    late = asyncio.create_task(barrier.enter())
    given_up = asyncio.create_task(barrier.enter())
    await asyncio.sleep(0)
    quiet_early = shut.is_set()
    barrier.leave()
    await shut.wait()
    held_back = not late.done()
    given_up.cancel()
    go.set()

    assert await cutting is True
    assert (quiet_early, held_back) == (False, True)
    await late
    barrier.leave()
    async with barrier.shut(30) as quiet:
        assert quiet


async def test_barrier_does_not_wait_for_ever() -> None:
    """A read that takes long is left alone, and so is everybody behind it."""
    barrier = Barrier()
    await barrier.enter()
    async with barrier.shut(0.001) as quiet:
        pass
    await barrier.enter()

    assert not quiet
