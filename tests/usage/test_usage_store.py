"""Usage: every job that ended counts once, on its day, whatever happens to it afterwards and however counting goes on."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.errors import GuardFailed
from service.jobs import store
from service.jobs.transitions.draft import Draft
from service.states import Source
from service.usage import counting
from service.usage import store as usage_store
from service.usage.counting import DAY_MS
from service.usage.store import CountIn, ForgetCounted
from tests.jobs.books import DAY, NOON, Ledger


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Ledger]:
    """Nothing has ended yet."""
    made = Ledger.open(tmp_path)
    yield made
    await made.writer.close()


async def test_usage_is_the_same_before_and_after_counting(books: Ledger) -> None:
    """The answer is exact at once; what the roll-up holds later is the same to the last figure."""
    books.end("job_1", took_ms=2_000)
    books.end("job_2", "failed", charged=None)
    books.end("job_3", at=NOON + DAY_MS, provider="sharkai", charged=1)
    before = await books.rows("day", "provider")
    counted = await books.roller.run_once()
    after = await books.rows("day", "provider")

    assert counted == 3
    assert before == after
    assert [(row.group, row.jobs, row.charged) for row in after] == [
        ((DAY + 1, "sharkai"), {"completed": 1}, 1),
        ((DAY, "apimodels"), {"completed": 1, "failed": 1}, 10_000),
    ]
    assert [row.durations.total for row in after] == [1, 1]


async def test_counting_again_counts_nothing(books: Ledger) -> None:
    """The place to go on from is written together with the counts."""
    books.end("job_1")
    first, second = await books.roller.run_once(), await books.roller.run_once()

    assert (first, second) == (1, 0)
    assert await books.jobs() == {(): 1}


async def test_job_whose_event_was_never_numbered_is_counted_once_it_is_gone(books: Ledger) -> None:
    """Counting follows numbers: without one it waits, and an event that goes before it had one names its job."""
    books.end("job_1")
    books.take_numbers()
    waiting = await books.roller.run_once()
    books.forget_feed()
    gone, again = await books.roller.run_once(), await books.roller.run_once()

    assert (waiting, gone, again) == (0, 1, 0)
    assert await books.jobs() == {(): 1}


async def test_batch_counted_by_somebody_else_is_not_counted_twice(books: Ledger) -> None:
    """Two that read the same cannot both write it: the second one's place does not fit any more."""
    books.end("job_1")
    batch = await usage_store.uncounted(books.reader, 100)
    work = CountIn(batch, counting.changes(batch.jobs, await usage_store.names(books.reader, batch.jobs)))
    await books.writer.run(work)
    with pytest.raises(GuardFailed):
        await books.writer.run(work)

    assert await books.jobs() == {(): 1}


@pytest.mark.parametrize("counted_between", [True, False])
async def test_correction_moves_the_job(counted_between: bool, books: Ledger) -> None:
    """Expired, then completed a day later: it leaves the one row and enters the other."""
    books.end("job_1", "expired", charged=None, tags=["shop"])
    if counted_between:
        await books.roller.run_once()
    books.end("job_1", "completed", at=NOON + DAY_MS, tags=["shop"])
    expected = {(DAY + 1, "completed"): 1}

    assert await books.jobs("day", "status") == expected
    await books.roller.run_once()
    assert await books.jobs("day", "status") == expected
    assert await books.jobs("day", "status", tag="shop") == expected


@pytest.mark.parametrize("counted_between", [True, False])
async def test_late_charge_is_added_once(counted_between: bool, books: Ledger) -> None:
    """The cost of a completion that was heard after the cancellation."""
    books.end("job_1", "cancelled", charged=None)
    if counted_between:
        await books.roller.run_once()
    books.charge_later("job_1", 30_000)
    [before] = await books.rows("status")
    await books.roller.run_once()
    [after] = await books.rows("status")

    assert (before.charged, after.charged) == (30_000, 30_000)
    assert after.jobs == {"cancelled": 1}


async def test_cost_booked_after_the_end_has_the_job_counted_anew(books: Ledger) -> None:
    """What the store of jobs writes for a conflict, whose row on the timeline is not in the feed."""
    for number, status in enumerate(("cancelled", "expired")):
        books.end(f"job_{number}", status, charged=None)
    await books.roller.run_once()
    tx = books.writer._engine.begin(NOON)
    for job in (await store.load(tx, ["job_0", "job_1"])).values():
        draft = Draft(job, NOON, lambda job_id, index: "")
        draft.note("job.conflict", Source.CALLBACK)
        job.cost_charged = 7 if job.id == "job_0" else None
        store.update(tx, [draft])
    await tx.commit()
    waiting = [row[0] for row in books.raw.execute("SELECT job_id FROM usage_recounts")]
    charged = {row.group: row.charged for row in await books.rows("status")}

    assert waiting == ["job_0"]
    assert charged == {("cancelled",): 7, ("expired",): 0}


@pytest.mark.parametrize("counted_before", [True, False])
async def test_usage_outlives_feed_and_jobs(counted_before: bool, books: Ledger) -> None:
    """Retention takes events out of the feed, and in the end the jobs; what they were is counted all the same."""
    books.end("job_1")
    if counted_before:
        await books.roller.run_once()
    books.forget_feed()
    assert await books.jobs() == {(): 1}
    await books.roller.run_once()
    books.raw.execute("DELETE FROM events")
    books.raw.execute("DELETE FROM jobs")

    assert await books.jobs() == {(): 1}


async def test_what_jobs_were_counted_as_goes_with_them(books: Ledger) -> None:
    """Only of jobs older than the oldest that is kept, and without a change of the usage."""
    for number in range(4):
        books.end(f"job_{number}")
    await books.roller.run_once()
    books.raw.execute("DELETE FROM jobs WHERE id < 'job_2'")
    await books.writer.run(ForgetCounted(100))
    left = books.raw.execute("SELECT job_id FROM usage_counted ORDER BY job_id").fetchall()

    assert [row[0] for row in left] == ["job_2", "job_3"]
    assert await books.jobs() == {(): 4}


async def test_tags_count_a_job_once_each(books: Ledger) -> None:
    """Grouped by tag a job with two tags is in two rows; without, it is one job."""
    books.end("job_1", tags=["a", "b"])
    books.end("job_2", tags=["a"])
    books.end("job_3")
    for _ in range(2):  # not counted yet, then counted
        assert await books.jobs("tag") == {("a",): 2, ("b",): 1}
        assert await books.jobs(tag="a") == {(): 2}
        assert await books.jobs() == {(): 3}
        await books.roller.run_once()


async def test_filters_and_groups(books: Ledger) -> None:
    """Every dimension narrows and groups, before and after counting."""
    books.end("job_1")
    books.end("job_2", model=None, key_id=None)
    books.end("job_3", "failed", operation="edit", provider="sharkai", model="m2", key_id="key_2")
    for _ in range(2):
        assert await books.jobs("model") == {("",): 1, ("m2",): 1, ("sparkpix",): 1}
        assert await books.jobs("key") == {("",): 1, ("key_1",): 1, ("key_2",): 1}
        assert await books.jobs(model="m2") == {(): 1}
        assert await books.jobs(key_id="key_1") == {(): 1}
        assert await books.jobs(operation="generate") == {(): 2}
        assert await books.jobs(provider="sharkai", status=("failed",)) == {(): 1}
        assert await books.jobs(provider="sharkai", status=("completed",)) == {}
        await books.roller.run_once()


async def test_accounts_are_apart(books: Ledger) -> None:
    """Nobody sees another one's usage, counted or not."""
    books.end("job_1", account_id="acc_2", tags=["a"])
    for _ in range(2):
        assert await books.jobs() == {}
        assert await books.jobs("tag") == {}
        assert await books.jobs(account="acc_2") == {(): 1}
        await books.roller.run_once()


async def test_names_beyond_the_first_are_other(books: Ledger) -> None:
    """A caller who invents a model for every job makes 51 rows of a day and no more; nothing is lost of the sum."""
    for number in range(60):
        books.end(f"job_{number:03}", model=f"m{number}", at=NOON + number)
    before = await books.jobs("model")
    await books.roller.run_once()
    books.end("job_900", model="m3")
    books.end("job_901", model="m59")
    books.end("job_059", "failed", model="m59", at=NOON + 59)  # taken off where it was counted

    assert before == {(f"m{number}",): 1 for number in range(50)} | {("other",): 10}
    after = await books.jobs("model")
    assert (len(after), after[("m3",)], after[("other",)]) == (51, 2, 11)
    await books.roller.run_once()
    assert await books.jobs("model") == after


async def test_random_histories_add_up(books: Ledger) -> None:
    """Ends, corrections, late charges, retention and counting in any order: the sums are those of the jobs as they are."""
    chance = random.Random(5)
    jobs: dict[str, tuple[int, str, int, str]] = {}
    for step in range(400):
        match chance.randrange(8):
            case 0 | 1 | 2 | 3:
                job_id, model = f"job_{step:04}", chance.choice("abc")
                status = chance.choice(["completed", "failed", "cancelled", "expired"])
                charged = chance.randrange(5) if status == "completed" else 0
                jobs[job_id] = (DAY + chance.randrange(3), status, charged, model)
            case 4:
                expired = [job_id for job_id, job in jobs.items() if job[1] == "expired"]
                if not expired:
                    continue
                job_id = chance.choice(expired)
                jobs[job_id] = (DAY + 5, "completed", chance.randrange(9), jobs[job_id][3])
            case 5:
                late = [job_id for job_id, job in jobs.items() if job[1] == "cancelled" and not job[2]]
                if late:
                    one = chance.choice(late)
                    day, status, _, model = jobs[one]
                    jobs[one] = (day, status, 7, model)
                    books.charge_later(one, 7)
                continue
            case 6:
                books.forget_feed()
                continue
            case _:
                await books.roller.run_once()
                continue
        day, status, charged, model = jobs[job_id]
        books.end(job_id, status, at=day * DAY_MS, charged=charged, model=model, tags=[model, "x"])
        if step % 20 == 0:
            await _check(books, jobs)
    await _check(books, jobs)
    await books.roller.run_once()
    await _check(books, jobs)


async def _check(books: Ledger, jobs: dict[str, tuple[int, str, int, str]]) -> None:
    count = Counter((day, status, model) for day, status, _, model in jobs.values())
    cost: Counter[tuple[int, str, str]] = Counter()
    for day, status, charged, model in jobs.values():
        cost[day, status, model] += charged
    rows = await books.rows("day", "status", "model")

    assert {row.group: sum(row.jobs.values()) for row in rows} == count
    assert {row.group: row.charged for row in rows} == {group: cost[group] for group in count}
    assert {row.group: row.durations.total for row in rows} == count
    assert sum((await books.jobs(tag="x")).values()) == len(jobs)
