from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.clock import SeededRandomness
from service.db.sqlite.readers import SQLiteReader
from service.db.sqlite.sqlite_engine import SQLiteWriteConnection
from service.events.feed_queries import FeedFilter, position_of, read_page
from service.ids import Ids
from tests.scheduler.attic import DAY_MS, OURS, PROMPT, THEIRS, Attic, attic

BIG_TABLES = (
    "attempts",
    "callbacks",
    "deliveries",
    "events",
    "idempotency",
    "inputs",
    "jobs",
    "results",
    "submissions",
)


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Attic]:
    """An attic to be filled."""
    with attic(tmp_path) as made:
        yield made


async def test_each_kind_goes_at_its_age(old: Attic) -> None:
    """By default attempts go after 30 days, payloads after 90, jobs after 365; what is younger stays whole."""
    ancient, stripped, listed, fresh = (old.job(days) for days in (400, 100, 40, 1))
    async with old.cleaner() as cleaner:
        await cleaner.run_once()

    left = {
        job: [
            old.have("jobs", "id = ?", job),
            old.have("submissions", "job_id = ?", job),
            old.have("callbacks", "submission_id IN (SELECT id FROM submissions WHERE job_id = ?)", job),
            old.have("results", "job_id = ?", job),
            old.have("events", "job_id = ?", job),
            old.have("deliveries", "job_id = ?", job),
            old.have("attempts", "delivery_id IN (SELECT id FROM deliveries WHERE job_id = ?)", job),
        ]
        for job in (ancient, stripped, listed, fresh)
    }
    # jobs, submissions, callbacks, results, events, deliveries, attempts
    assert left == {
        ancient: [0, 0, 0, 0, 0, 0, 0],
        stripped: [1, 1, 0, 1, 2, 0, 0],
        listed: [1, 1, 1, 1, 2, 1, 0],
        fresh: [1, 1, 1, 1, 2, 1, 1],
    }
    assert old.have("transfers", "job_id = ?", ancient) == 2  # the books stay
    assert old.removed() == {"attempts": 3, "deliveries": 2, "events": 2, "inputs": 2, "callbacks": 2, "jobs": 1}


async def test_an_erased_job_keeps_its_timeline_and_its_money(old: Attic) -> None:
    """Nothing of a prompt is left in the rows of a job whose payloads are old, and what it has cost still is."""
    job = old.job(100)
    async with old.cleaner() as cleaner:
        await cleaner.run_once()
        erased_at = old.clock.now_ms()
    [row] = old.connection.execute(
        "SELECT input, input_full, erased_at, cost_charged, status FROM jobs WHERE id = ?", (job,)
    )
    timeline = old.connection.execute(
        "SELECT seq, type, pos, body, left_pos FROM events WHERE job_id = ? ORDER BY seq", (job,)
    )

    assert row == ("{}", None, pytest.approx(erased_at, abs=1000), 10, "completed")
    assert timeline.fetchall() == [(1, "job.queued", None, None, None), (2, "job.completed", None, None, 1)]
    assert PROMPT.decode() not in "\n".join(old.connection.iterdump())


async def test_feed_says_from_where_on_it_is_whole(old: Attic) -> None:
    """Each account's floor is the last position that went; a position is never given again, even if none is left."""
    for account in (OURS, OURS, THEIRS):
        old.job(100, account=account)
    async with old.cleaner() as cleaner:
        await cleaner.run_once()
    floors = dict(old.connection.execute("SELECT id, feed_floor FROM accounts").fetchall())
    again = await SQLiteWriteConnection.open(old.path)
    await again.close()

    assert floors == {OURS: 2, THEIRS: 3}
    assert old.have("events", "pos IS NOT NULL") == 0
    assert again.last_pos == 3


async def test_reader_of_what_went_is_told_whether_something_is_missing(old: Attic) -> None:
    """An event that left the feed has kept its number: who stopped at the last one that went goes on, who stopped before cannot."""
    for days in (100, 100, 1):
        old.job(days)
    ids = [row[0] for row in old.connection.execute("SELECT id FROM events WHERE pos IS NOT NULL ORDER BY pos")]
    async with old.cleaner() as cleaner:
        await cleaner.run_once()
    reader = await SQLiteReader.open(old.path, 1)
    places = [await position_of(reader, OURS, each) for each in ids]
    pages = [await read_page(reader, OURS, place or 0, FeedFilter(), limit=9, max_bytes=9_999) for place in places]
    await reader.close()

    assert places == [1, 2, 3]
    assert [page.is_lost for page in pages] == [True, False, False]
    assert [entry.id for entry in pages[1].entries] == [ids[2]]


async def test_what_is_still_to_be_sent_stays(old: Attic) -> None:
    """An event with a pending delivery keeps its bytes, and its job its input; the others around it go."""
    before, waiting, after = old.job(400), old.job(400, pending=True), old.job(400)
    async with old.cleaner() as cleaner:
        await cleaner.run_once()

    assert [old.have("jobs", "id = ?", job) for job in (before, waiting, after)] == [0, 1, 0]
    assert old.have("jobs", "id = ? AND input = ?", waiting, PROMPT.decode()) == 1
    assert old.have("events", "job_id = ? AND body = ?", waiting, PROMPT) == 1
    assert old.have("deliveries", "job_id = ? AND status = 'pending'", waiting) == 1


async def test_kind_that_cannot_be_removed_keeps_no_other(old: Attic) -> None:
    """Whatever is wrong with the rows of one kind: the others go all the same, and the failure is told behind them."""
    job = old.job(100)
    old.connection.execute("CREATE TRIGGER stuck BEFORE DELETE ON attempts BEGIN SELECT RAISE(ABORT, 'stuck'); END")
    async with old.cleaner() as cleaner:
        with pytest.raises(sqlite3.IntegrityError, match="stuck"):
            await cleaner.run_once()

    assert old.have("attempts") == 1
    assert old.have("callbacks") == 0
    assert old.have("jobs", "id = ? AND input = '{}'", job) == 0


async def test_event_about_no_job_goes_altogether(old: Attic) -> None:
    """A ping has no timeline to stay on."""
    at, ids = old.clock.now_ms() - 91 * DAY_MS, Ids(old.clock, SeededRandomness(1))
    ping = ids.new("evt")
    old.event(ping, at)
    old.delivery(ids.new("dlv"), ping, at)
    async with old.cleaner() as cleaner:
        await cleaner.run_once()

    assert old.have("events") == old.have("deliveries") == 0


async def test_short_life_of_jobs_takes_everything_along(old: Attic) -> None:
    """Where jobs are kept shorter than payloads and attempts, those do not outlive them."""
    old.job(3)
    young = old.job(0.5)
    async with old.cleaner("jobs=2d") as cleaner:
        await cleaner.run_once()

    assert [old.have(table) for table in ("jobs", "deliveries", "attempts", "callbacks")] == [1, 1, 1, 1]
    assert old.have("jobs", "id = ?", young) == 1


@pytest.mark.parametrize(
    "held_by",
    [
        "UPDATE results SET storage_key = 'a/b'",
        "UPDATE results SET due_at = 5, lane = (SELECT account_id FROM jobs WHERE jobs.id = job_id) || ' f'",
        "INSERT INTO inputs (job_id, sha256, size_bytes, storage_key) SELECT id, 'x', 1, 'a/b' FROM jobs",
        "INSERT INTO idempotency SELECT account_id, 'k', x'00', id, x'00', created_at + 86400000 FROM jobs",
    ],
    ids=["file", "fetch", "input", "key"],
)
async def test_job_that_others_hold_stays_for_now(old: Attic, held_by: str) -> None:
    """A file in the storage, a fetch under way or a key that is remembered would be left without its job."""
    old.job(0.5)
    old.connection.execute(held_by)
    async with old.cleaner("jobs=1h") as cleaner:
        await cleaner.run_once()
        assert old.have("jobs") == 1
        old.connection.execute("UPDATE results SET storage_key = NULL, due_at = NULL")
        old.connection.execute("DELETE FROM inputs")
        old.connection.commit()
        old.clock.advance(26 * 3600)
        await cleaner.run_once()

    assert old.have("jobs") == old.have("idempotency") == 0


async def test_large_input_in_the_storage_is_marked_and_one_in_the_database_goes(old: Attic) -> None:
    """Whoever may delete files is told which; until the file is gone its row says where it lies."""
    here, there = old.job(100), old.job(100)
    old.insert("inputs", job_id=here, sha256="x", size_bytes=9, body=PROMPT)
    old.insert("inputs", job_id=there, sha256="x", size_bytes=9, storage_key="a/b")
    async with old.cleaner() as cleaner:
        await cleaner.run_once()

    assert old.connection.execute("SELECT job_id, storage_key FROM inputs WHERE sweep_at > 0").fetchall() == [
        (there, "a/b")
    ]


@pytest.mark.parametrize(("count", "attempts"), [(1000, 3), (150, 30), (3, 500)])
async def test_wide_fan_out_is_removed_in_bounded_commands(old: Attic, count: int, attempts: int) -> None:
    """An event with many deliveries, or with many young attempts, takes several commands, and goes with the last one."""
    for _ in range(3):
        job = old.job(91)
        now_ms, ids = old.clock.now_ms(), Ids(old.clock, SeededRandomness(old.made))
        [(event,)] = old.connection.execute("SELECT event_id FROM deliveries WHERE job_id = ?", (job,)).fetchall()
        for number in range(count):
            old.delivery(
                ids.new("dlv"),
                event,
                now_ms - 91 * DAY_MS,
                job_id=job,
                subscription=f"sub_{number}",
                attempts=attempts,
                attempted_at=now_ms - DAY_MS,
            )
    async with old.cleaner() as cleaner:
        await cleaner.run_once()

    removed = old.removed()
    assert (removed["deliveries"], removed["events"]) == (3 * (count + 1), 3)
    assert removed["attempts"] == 3 * (count * attempts + 1)
    assert max(number for _, number in old.counts) <= max(400, attempts)


async def test_event_with_many_deliveries_stays_while_one_is_pending(old: Attic) -> None:
    """However many were delivered: all of them stay with the one that was not."""
    job, after = old.job(91, pending=True), old.job(91)
    ids, at = Ids(old.clock, SeededRandomness(9)), old.clock.now_ms() - 91 * DAY_MS
    [(event,)] = old.connection.execute("SELECT event_id FROM deliveries WHERE job_id = ?", (job,)).fetchall()
    for number in range(1000):
        old.delivery(ids.new("dlv"), event, at, job_id=job, subscription=f"sub_{number}")
    async with old.cleaner() as cleaner:
        await cleaner.run_once()

    assert old.have("deliveries") == 1001
    assert old.have("events", "job_id = ? AND body IS NOT NULL", job) == 1
    assert old.have("events", "job_id = ? AND body IS NOT NULL", after) == 0


async def test_large_bodies_go_a_few_at_a_time(old: Attic) -> None:
    """Bodies of a megabyte are counted by their bytes; the commands stay short."""
    for _ in range(9):
        old.job(100)
    old.connection.execute("UPDATE callbacks SET body = zeroblob(1000000)")
    async with old.cleaner() as cleaner:
        await cleaner.run_once()

    assert [count for what, count in old.counts if what == "callbacks"] == [4, 4, 1]


async def test_run_ends_when_its_time_is_over_and_the_next_goes_on(old: Attic) -> None:
    """A large backlog is spread over runs; another process finds what the last one left."""
    job = old.job(35)
    for _ in range(2000):
        old.connection.execute("INSERT INTO attempts (delivery_id, at, duration_ms) SELECT id, 5, 1 FROM deliveries")
    old.connection.execute("UPDATE attempts SET at = 5")
    old.clock.pause_s = 20.0
    runs = []
    async with old.cleaner() as cleaner:
        runs += [(await cleaner.run_once())["attempts"] for _ in range(2)]
    async with old.cleaner() as cleaner:
        runs += [(await cleaner.run_once())["attempts"] for _ in range(2)]

    assert runs == [600, 600, 600, 201]
    assert old.have("jobs", "id = ?", job) == old.have("deliveries") == 1


async def test_stopping_service_does_not_wait_for_the_run(old: Attic) -> None:
    """Once the service stops, no further command is sent."""
    old.job(400)
    async with old.cleaner() as cleaner:
        cleaner.closing = True
        assert await cleaner.run_once() == {}

    assert old.have("jobs") == 1


async def test_all_keys_whose_day_is_over_are_forgotten_in_a_run(old: Attic) -> None:
    """However many jobs a minute are taken, the table does not grow."""
    job = old.job(0.1)
    now_ms = old.clock.now_ms()
    for number in range(1000):
        expires_at = now_ms - 1 if number < 900 else now_ms + DAY_MS
        old.insert(
            "idempotency",
            account_id=OURS,
            key=str(number),
            body_hash=b"",
            job_id=job,
            answer=b"",
            expires_at=expires_at,
        )
    async with old.cleaner() as cleaner:
        await cleaner.run_once()

    assert old.have("idempotency") == 100


async def test_nothing_is_found_by_looking_at_everything(old: Attic) -> None:
    """Whatever the cleaner asks of a large table, the engine answers by an index or by number."""
    for days in (400, 400, 100, 40, 1):
        old.job(days)
    told: list[str] = []
    async with old.cleaner(traced=told) as cleaner:
        await cleaner.run_once()
    asked = {re.sub(r"\s+", " ", each).strip() for each in told if re.match(r"\s*(SELECT|UPDATE|DELETE|INSERT)", each)}
    plans = {
        step[3]: each for each in asked for step in old.connection.execute(f"EXPLAIN QUERY PLAN {each}").fetchall()
    }
    scans = [step for step in plans if step.startswith("SCAN") and "json_each" not in step]

    assert len(asked) >= 15
    assert scans == []
    assert [step for step in plans if "TEMP B-TREE" in step] == []


def test_every_reference_can_be_checked_by_an_index(old: Attic) -> None:
    """The engine looks for children of every row that goes; without an index it would look at all of them."""
    unindexed = [
        f"{table}.{reference[3]}"
        for (table,) in old.connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for reference in old.connection.execute(f"PRAGMA foreign_key_list({table})").fetchall()
        if reference[2] in BIG_TABLES and reference[3] not in _begins(old.connection, table)
    ]

    assert unindexed == []


def _begins(connection: sqlite3.Connection, table: str) -> set[str]:
    """The columns that a whole index of the table begins with."""
    indexes = [row[1] for row in connection.execute(f"PRAGMA index_list({table})").fetchall() if not row[4]]
    return {connection.execute(f"PRAGMA index_info({name})").fetchone()[2] for name in indexes}
