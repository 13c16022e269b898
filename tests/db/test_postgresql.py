"""What only a server can do to us: other processes on the same rows, cut wires, restarts, and a clock of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import asyncpg
import pytest

from service.clock import SystemClock
from service.db.migrate import newest
from service.db.postgres.pg_engine import PgEngine
from service.db.postgres.pg_migrate import current, upgrade
from service.db.postgres.pg_reader import PgReader
from service.db.transaction import Tx
from service.errors import StoreUnavailable, Unavailable
from tests import postgres
from tests.db.engines import OpenStore, Work, opened
from tests.db.proxy import Cut, wired
from tests.db.test_conformance import INSERT_EVENT, INSERT_LANE, lane, lanes


@pytest.fixture
async def url() -> str:
    """A new database."""
    return await postgres.database()


@asynccontextmanager
async def replicas(url: str, count: int) -> AsyncIterator[list[OpenStore]]:
    """Several processes' stores on one database."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(opened("postgresql", url)) for _ in range(count)]


async def add(tx: Tx) -> int:
    """Add one to a counter, decided here and not in the statement."""
    [row] = await tx.rows("SELECT next_due_at AS n FROM lanes WHERE id = 'lane_00001' @for_update(lanes)", {})
    tx.write(
        "UPDATE lanes SET next_due_at = :new WHERE id = 'lane_00001' AND next_due_at = :old",
        [{"new": row["n"] + 1, "old": row["n"]}],
        expect=1,
    )
    return int(row["n"]) + 1


async def test_no_update_is_lost_between_processes(url: str) -> None:
    """Three of them add to one counter at once, a hundred times each: every value is answered once."""
    async with replicas(url, 3) as stores:
        await stores[0].run(lambda tx: _insert(tx, lane(1, 0)))
        answers = await asyncio.gather(
            *(store.writer.run(Work(add, alone=True)) for store in stores for _ in range(100))
        )

        assert sorted(answers) == list(range(1, 301))
        assert await lanes(stores[0]) == [("lane_00001", 300)]


async def _insert(tx: Tx, row: dict[str, object]) -> None:
    tx.write(INSERT_LANE, [row])


async def test_rows_taken_in_opposite_orders_end_in_no_error(url: str) -> None:
    """Two processes lock two rows crosswise: the server ends one of them, which is done again."""

    async def cross(tx: Tx, first: int, second: int, met: asyncio.Barrier) -> None:
        for number in (first, second):
            await tx.rows(f"SELECT id FROM lanes WHERE id = 'lane_0000{number}' @for_update(lanes)", {})
            if number == first and not met.broken and met.n_waiting < 2 and not done:
                await met.wait()
        done.append(first)
        tx.write(
            "UPDATE lanes SET next_due_at = next_due_at + 1 WHERE id IN ('lane_00001', 'lane_00002')", [{}], expect=2
        )

    done: list[int] = []
    async with replicas(url, 2) as (one, other):
        await one.run(lambda tx: _insert(tx, lane(1, 0)))
        await one.run(lambda tx: _insert(tx, lane(2, 0)))
        met = asyncio.Barrier(2)
        await asyncio.gather(
            one.run(lambda tx: cross(tx, 1, 2, met)),
            other.run(lambda tx: cross(tx, 2, 1, met)),
        )

        assert await lanes(one) == [("lane_00001", 2), ("lane_00002", 2)]


async def test_numbers_of_the_feed_come_in_order_while_all_write(url: str) -> None:
    """Whoever reads the feed from place to place while three processes write misses nothing, and sees each job in its order."""
    written = 0
    seen: list[int] = []

    async def event(tx: Tx, number: int) -> None:
        row = {"id": f"evt_{number:05}", "account_id": "acc_1", "job_id": f"job_{number % 3}", "seq": number}
        tx.write(INSERT_EVENT, [row | {"at": tx.now_ms, "pos": tx.number(), "body": b"{}"}])

    async with replicas(url, 3) as stores:
        writes = [
            asyncio.create_task(store.writer.run(Work(lambda tx, n=n: event(tx, n), alone=True)))  # type: ignore[misc]
            for n, store in enumerate(stores * 100)
        ]
        written = len(writes)
        async with asyncio.timeout(60):
            while len(seen) < written:
                after = seen[-1] if seen else 0
                rows = await stores[0].reader.rows(
                    "SELECT pos FROM events WHERE pos > :after ORDER BY pos LIMIT 20", {"after": after}
                )
                seen += [row["pos"] for row in rows]
                await asyncio.sleep(0)
        await asyncio.gather(*writes)
        rows = await stores[0].reader.rows("SELECT job_id, seq FROM events ORDER BY pos")

    assert seen == list(range(1, written + 1))
    for job in {row["job_id"] for row in rows}:
        mine = [row["seq"] for row in rows if row["job_id"] == job]
        assert mine == sorted(mine)


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_commit_without_an_answer_is_settled(url: str, cut: Cut) -> None:
    """The wire is cut as COMMIT goes out, or before its answer comes: who is told that it is stored finds it, who is not does not."""
    stored: set[str] = set()
    async with wired(url) as (wire, over_wire), opened("postgresql", over_wire) as store:
        for number in range(20):
            wire.cut = cut
            try:
                await store.run(lambda tx, number=number: _insert(tx, lane(number)))  # type: ignore[misc]
            except StoreUnavailable:
                continue
            stored.add(f"lane_{number:05}")
        found = {name for name, _ in await lanes(store)}
        cuts = wire.cuts

    assert cuts == 20
    assert found == stored
    assert len(stored) == (0 if cut == "before" else 20)


async def test_server_that_comes_back_is_used_again(url: str) -> None:
    """All connections are ended, as by a restart: what runs is refused and told to come again, and then all is well."""
    async with opened("postgresql", url) as store:
        await store.run(lambda tx: _insert(tx, lane(1)))

        async def cut_off(tx: Tx) -> None:
            await tx.rows("SELECT 1", {})
            killer = await asyncpg.connect(url)
            await killer.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            await killer.close()
            tx.write(INSERT_LANE, [lane(2)])

        with pytest.raises(StoreUnavailable, match="the database cannot be used now"):
            await store.run(cut_off)
        assert store.writer.trouble is not None
        await store.run(lambda tx: _insert(tx, lane(3)))

        assert await lanes(store) == [("lane_00001", None), ("lane_00003", None)]


async def test_times_are_the_databases(url: str) -> None:
    """A machine whose clock is a day ahead writes the same times as all others."""

    class Ahead(SystemClock):
        def now_ms(self) -> int:
            return super().now_ms() + round(timedelta(days=1) / timedelta(milliseconds=1))

    async def now(tx: Tx) -> int:
        return tx.now_ms

    async with opened("postgresql", url, Ahead()) as ahead, opened("postgresql", url) as well:
        times = [await ahead.run(now), await well.run(now)]

    assert abs(times[0] - times[1]) < 5_000
    assert abs(times[0] - SystemClock().now_ms()) < 60_000


async def test_read_that_takes_too_long_is_ended_on_the_server(url: str) -> None:
    """The caller is told, and the connection serves the next one."""
    reader = await PgReader.open(url, 1, 0.2)
    try:
        with pytest.raises(Unavailable, match=r"within 0\.2 s"):
            await reader.rows("SELECT pg_sleep(30)")
        left = await reader.row(
            "SELECT count(*) AS n FROM pg_stat_activity WHERE query LIKE '%pg_sleep(30)%' AND state = 'active' AND pid <> pg_backend_pid()"
        )
    finally:
        await reader.close()

    assert left is not None
    assert left["n"] == 0


async def test_server_that_is_not_there_is_told_at_once() -> None:
    """By the driver's own error, for whoever opens the store to word."""
    with pytest.raises(OSError, match=r"(?i)connect"):
        await PgEngine.open("postgresql://nobody@127.0.0.1:1/none", SystemClock())


async def test_many_processes_bring_a_database_up_to_date_at_once() -> None:
    """One does it, the others wait and find it done."""
    url = await postgres.empty_database("new")
    before = await asyncio.gather(*(upgrade(url) for _ in range(5)))
    connection = await asyncpg.connect(url)
    try:
        revision = await current(connection)
    finally:
        await connection.close()

    assert sorted(before, key=lambda each: each[0] or "") == [(None, newest()), *[(newest(), newest())] * 4]
    assert revision == newest()


async def test_text_with_a_nul_keeps_nothing_from_being_written(url: str) -> None:
    """PostgreSQL's texts cannot hold one; what a provider wrote is stored with another letter in its place."""
    async with opened("postgresql", url) as store:
        await store.run(lambda tx: _insert(tx, lane(1) | {"account_id": "a\0b"}))
        row = await store.reader.row("SELECT account_id FROM lanes")

    assert row is not None
    assert row["account_id"] == "a\ufffdb"


async def test_row_that_a_shell_holds_is_one_refusal(url: str) -> None:
    """Who waits for it is told to come again; the writer goes on with others, and takes it later."""
    async with opened("postgresql", url) as store:
        await store.run(lambda tx: _insert(tx, lane(1, 0)))
        shell = await asyncpg.connect(url)
        held = shell.transaction()
        await held.start()
        await shell.execute("UPDATE lanes SET next_due_at = 5")
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            await store.run(_hurried)
        await held.rollback()
        await shell.close()
        await store.run(_hurried)

        assert await lanes(store) == [("lane_00001", 1)]


async def _hurried(tx: Tx) -> None:
    await tx.rows("SELECT set_config('lock_timeout', '50', true)", {})
    tx.write("UPDATE lanes SET next_due_at = next_due_at + 1 WHERE id = 'lane_00001'", [{}])
