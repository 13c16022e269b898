"""What only a server can do to us: other processes on the same rows, cut wires, restarts, and a clock of its own."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import SQLModel

import service.db.tables  # noqa: F401 - fills SQLModel's metadata
from service.clock import SlewedClock, SystemClock, SystemRandomness
from service.db import alembic
from service.db.keyring import CHECK, box_of, check_of
from service.db.migrate import migrations_directory, newest
from service.db.postgres import pg_examine
from service.db.postgres.pg_engine import PgEngine
from service.db.postgres.pg_migrate import current, upgrade
from service.db.postgres.pg_reader import PgReader
from service.db.postgres.pg_sole import LOCK, Sole
from service.db.transaction import Tx
from service.db.writer import Writer
from service.errors import SettingsInvalid, StoreUnavailable, Unavailable
from tests import postgres
from tests.db.engines import OpenStore, Work, opened
from tests.db.proxy import Cut, wired
from tests.db.test_conformance import INSERT_EVENT, INSERT_LANE, lane, lanes

DAY_NS = 86_400 * 1_000_000_000
CUT_LOCK = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'remora-lock'
"""


async def answered(connection: asyncpg.Connection, question: str, *args: object) -> None:
    """Until the server answers a question with something."""
    async with asyncio.timeout(30):
        while await connection.fetchval(question, *args) is None:  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.01)


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
    [row] = await tx.rows("SELECT next_due_at AS n FROM lanes WHERE id = 'lane_00001' FOR UPDATE", {})
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
            await tx.rows(f"SELECT id FROM lanes WHERE id = 'lane_0000{number}' FOR UPDATE", {})
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
    """A machine whose clock is a day ahead writes the same times as all others, and sees the same work as due."""

    async def now(tx: Tx) -> int:
        return tx.now_ms

    ahead = SystemClock()
    SlewedClock.__init__(ahead, time.monotonic_ns, lambda: time.time_ns() + DAY_NS)
    well = SystemClock()
    before = ahead.now_ms() - well.now_ms()
    async with opened("postgresql", url, ahead) as one, opened("postgresql", url, well) as other:
        times = [await one.run(now), await other.run(now), ahead.now_ms(), ahead.wall_ms(), time.time_ns() // 1_000_000]

    assert before > 80_000_000
    assert max(times) - min(times) < 5_000


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


async def test_event_of_a_process_that_died_gets_its_number(url: str) -> None:
    """It was stored, and whoever stored it was gone before it was numbered: the next process numbers it, unasked."""
    connection = await asyncpg.connect(url)
    await connection.execute(
        "INSERT INTO events (id, account_id, job_id, seq, type, source, at, body) "
        "SELECT 'evt_' || n, 'acc_1', 'job_1', n, 'job.created', 'caller', 1000 - n, '{}' FROM generate_series(1, 3) n"
    )
    async with opened("postgresql", url):
        await answered(connection, "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM events WHERE pos IS NULL)")
    rows = await connection.fetch("SELECT seq FROM events ORDER BY pos")
    await connection.close()

    assert [row["seq"] for row in rows] == [1, 2, 3]  # the job's order, whatever the clocks said


async def test_process_whose_database_was_taken_over_ends(url: str) -> None:
    """Its connection was cut, and another process had the lock before it came back: it writes nothing any more."""
    sole = await Sole.take(url)
    engine = await PgEngine.open(url, SystemClock(), sole=sole)
    writer = Writer(engine, SystemClock())
    writer.start()
    other = await asyncpg.connect(url)
    waiting = asyncio.create_task(other.execute("SELECT pg_advisory_lock($1)", LOCK))
    killer = await asyncpg.connect(url)
    try:
        await answered(killer, "SELECT 1 FROM pg_locks WHERE objid = $1 AND NOT granted", LOCK)
        await killer.execute(CUT_LOCK)
        await asyncio.wait_for(waiting, 30)
        assert sole._task is not None
        await asyncio.wait_for(asyncio.shield(sole._task), 30)  # it ends when there is nothing to keep any more
        with pytest.raises(StoreUnavailable):  # nobody is told that it was stored
            await writer.run(Work(_nothing))
        assert writer.failed.done()
    finally:
        for each in (other, killer):
            await each.close()
        await writer.close()


async def _nothing(tx: Tx) -> None:
    await tx.rows("SELECT 1", {})


async def test_lock_comes_back_with_the_server(url: str) -> None:
    """Where nobody else took it, the process goes on, and a second one is refused as before."""
    sole = await Sole.take(url)
    killer = await asyncpg.connect(url)
    try:
        [before] = await killer.fetch("SELECT pid FROM pg_locks WHERE objid = $1", LOCK)
        await killer.execute(CUT_LOCK)
        await answered(killer, "SELECT 1 FROM pg_locks WHERE objid = $1 AND pid <> $2", LOCK, before["pid"])
        sole.check()
        with pytest.raises(StoreUnavailable, match="in use by another Remora process"):
            await Sole.take(url)
    finally:
        await killer.close()
        await sole.release()


def _differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": False})
    return list(compare_metadata(context, SQLModel.metadata))


async def test_tables_are_what_the_code_says(url: str) -> None:
    """No column, type or index differs between the first tables with all migrations and `db.tables`; a planted one is seen."""
    engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"))
    async with engine.connect() as connection:
        found = await connection.run_sync(_differences)
        await connection.execute(text("ALTER TABLE jobs ALTER COLUMN due_at TYPE integer"))
        await connection.execute(text("DROP INDEX ix_results_for_capture"))
        planted = await connection.run_sync(_differences)
    await engine.dispose()

    assert [each for each in found if "ix_events_for_numbering" not in str(each)] == []
    assert len(planted) >= len(found) + 2


async def test_later_migration_is_applied(url: str, tmp_path: Path) -> None:
    """One that comes after the first tables: by Alembic, in one transaction, and only once."""
    migrations = shutil.copytree(migrations_directory(), tmp_path / "migrations")
    (migrations / "versions" / "9000_planted.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision, down_revision, branch_labels, depends_on = '9000', '{newest()}', None, None\n\n\n"
        "def upgrade() -> None:\n    op.add_column('jobs', sa.Column('planted', sa.Text(), nullable=True))\n",
        "utf-8",
    )
    for _ in range(2):
        await alembic.apply_postgresql(url, migrations)
    connection = await asyncpg.connect(url)
    try:
        revision = await current(connection)
        found = await connection.fetchval("SELECT 1 FROM information_schema.columns WHERE column_name = 'planted'")
    finally:
        await connection.close()

    assert (revision, found) == ("9000", 1)


async def test_database_in_use_is_told_from_its_neighbours(url: str) -> None:
    """A service on another database of the same server is not one on this."""
    sole = await Sole.take(await postgres.database())
    free = await pg_examine.examine(url, "k" * 32, SystemRandomness(), 1)
    mine = await Sole.take(url)
    used = await pg_examine.examine(url, "k" * 32, SystemRandomness(), 1)
    await sole.release()
    await mine.release()

    assert (free.in_use, used.in_use) == (False, True)
    assert (free.exists, free.breaches, free.troubles, free.has_key) == (True, [], [], False)


async def test_rule_that_is_broken_is_told(url: str) -> None:
    """By what `remora doctor` asks; another key than the database's, too."""
    connection = await asyncpg.connect(url)
    await connection.execute(
        "INSERT INTO events (id, account_id, job_id, seq, type, source, at, pos, body) "
        "VALUES ('evt_1', 'acc_1', 'job_1', 1, 'job.completed', 'caller', 1, 1, '{}'), "
        "('evt_2', 'acc_1', 'job_1', 2, 'job.completed', 'caller', 1, 2, '{}')"
    )
    sealed = check_of(box_of("k" * 32, SystemRandomness()))
    await connection.execute("INSERT INTO meta (key, value) VALUES ($1, $2)", CHECK, sealed)
    await connection.close()
    found = await pg_examine.examine(url, "another key of 32 letters or more", SystemRandomness(), 1)

    assert ("I1", ("job_1",)) in [(each.rule, each.rows) for each in found.breaches]
    assert "is not the key that postgresql://" in str(found.key_problem)


async def test_database_of_a_newer_version_is_left_alone(url: str) -> None:
    """As after a deployment that was taken back: nothing is changed, and the sentence says what to do."""
    connection = await asyncpg.connect(url)
    await connection.execute("UPDATE alembic_version SET version_num = '9000'")
    with pytest.raises(SettingsInvalid, match="a newer one has used it"):
        await upgrade(url)
    left = await current(connection)
    await connection.close()

    assert left == "9000"


async def test_server_bounds_what_a_connection_may_do(url: str) -> None:
    """Also where the process is frozen and cancels nothing: statements of pages, waits for rows, transactions that stand still."""
    asked = "SELECT current_setting('statement_timeout') AS s, current_setting('lock_timeout') AS l, "
    asked += "current_setting('idle_in_transaction_session_timeout') AS i"
    pages = await PgReader.open(url, 1, 0.2)
    page = await pages.row(asked)
    await pages.close()
    async with opened("postgresql", url) as store:
        [writer] = await store.run(lambda tx: tx.rows(asked, {}))

    assert page is not None
    assert tuple(page) == ("200ms", "10s", "1min")
    assert tuple(writer) == ("0", "10s", "1min")


async def test_read_after_a_restart_needs_no_second_try(url: str) -> None:
    """All connections that idle in the pool are gone; the caller notices nothing."""
    reader = await PgReader.open(url, 3)
    killer = await asyncpg.connect(url)
    try:
        await asyncio.gather(*(reader.rows("SELECT pg_sleep(0.05)") for _ in range(3)))
        await killer.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        answers = await asyncio.gather(*(reader.row("SELECT 1 AS one") for _ in range(6)))
    finally:
        await killer.close()
        await reader.close()

    assert [each is not None and each["one"] for each in answers] == [1] * 6
