"""No provider's and no tenant's load stops the others: the issue's inputs, and arbitrary mixtures of bad company, in virtual time."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from service.db.inspection.invariants import breaches
from service.notation import SubmitRate
from tests.simulation.crowd import TASK_S, Crowd, Manner, crowd

BAD: tuple[Manner, ...] = ("slow", "dead", "mute", "refusing")


def p95(seconds: list[float]) -> float:
    """The 95th percentile of sorted figures."""
    return seconds[int(len(seconds) * 0.95)]


async def healthy_p95(at: Crowd, tenant: str, seconds: float) -> float:
    """The p95 of a tenant who sends two jobs a second to the provider `good`."""
    jobs: list[str] = []
    for _ in range(round(seconds * 2)):
        jobs += await at.take(tenant, "good")
        await at.run(0.5)
    await at.run(3 * TASK_S)
    return p95(at.seconds(jobs))


async def test_callbacks_of_one_provider_leave_another_its_polls(tmp_path: Path) -> None:
    """Far more callbacks than can be verified at once, each a fetch of 5 s; another provider's task is found as ever."""
    async with crowd(tmp_path, {"loud": "slow", "good": "well"}, calls_back=True, max_in_flight=5_000) as at:
        tenant = await at.tenant()
        for _ in range(20):
            await at.take(tenant, "loud", 60)
            await at.run(0.5)
        alone = await at.take(tenant, "good")
        full = at.stages.polls.pool.free("loud")
        await at.run(TASK_S + 1)
        took = at.seconds(alone)

    assert full == 0
    assert took[0] < TASK_S + 0.8


async def test_dead_provider_delays_nobody_else(tmp_path: Path) -> None:
    """2,000 of its jobs are due and every poll runs into its deadline; the others' p95 stays what it was."""
    async with crowd(tmp_path / "alone", {"good": "well"}) as at:
        before = await healthy_p95(at, await at.tenant(), 10)
    async with crowd(tmp_path / "beside", {"bad": "well", "good": "well"}, max_in_flight=5_000) as at:
        await at.take(await at.tenant(), "bad", 2_000)
        await at.run(5)
        at.outside.manners["bad"] = "mute"
        after = await healthy_p95(at, await at.tenant(), 10)

    assert after <= before * 1.25


@pytest.mark.parametrize("seed", range(6))
async def test_mixture_of_bad_company_changes_little(tmp_path: Path, seed: int) -> None:
    """Providers that are slow, dead, mute or refuse for ever, each with a crowd of jobs, and a tenant with a thousand at the same one."""
    chance = random.Random(seed)
    bad: dict[str, Manner] = {f"bad{number}": chance.choice(BAD) for number in range(chance.randint(1, 4))}
    async with crowd(tmp_path / "alone", {"good": "well"}) as at:
        before = await healthy_p95(at, await at.tenant(), 10)
    async with crowd(tmp_path / "beside", bad | {"good": "well"}) as at:
        tenant = await at.tenant()
        await at.take(tenant, "good")
        for name in bad:
            await at.take(await at.tenant(), name, chance.choice([100, 300, 600]))
        if chance.random() < 0.7:
            await at.take(await at.tenant(), "good", 1_000)
        await at.run(chance.uniform(0, 10))
        after = await healthy_p95(at, tenant, 10)

    assert after <= before * 1.25


async def test_work_is_taken_as_slots_become_free(tmp_path: Path) -> None:
    """Not by the next tick: between two ticks a full provider gets through many times what it takes at once."""
    async with crowd(tmp_path, {"good": "well"}, max_submits=4, max_in_flight=5_000) as at:
        await at.take(await at.tenant(), "good", 40)
        await at.run(0.45)

    assert at.outside.asked["good POST"] >= 16


async def test_rate_is_kept_and_every_job_is_sent(tmp_path: Path) -> None:
    """300 at once where one in ten seconds may go: nothing is given up while it waits, and an hour brings 360 of them through."""
    rate = SubmitRate(1, 10.0)
    async with crowd(tmp_path, {"good": "well"}, submit_rate=rate) as at:
        await at.take(await at.tenant(), "good", 300)
        await at.run_slowly(3_600, step_s=2.5)
        done, asked = at.statuses("good"), at.outside.asked["good POST"]

    assert done == {"completed": 300}
    assert asked == 300


async def test_provider_that_refuses_for_a_minute_is_asked_once_a_minute(tmp_path: Path) -> None:
    """A thousand queued jobs and `Retry-After: 60`: ten minutes bring a handful of requests, and no rows by the thousand."""
    async with crowd(tmp_path, {"bad": "refusing"}, max_submits=10) as at:
        await at.take(await at.tenant(), "bad", 1_000)
        await at.run_slowly(600, step_s=1.0)
        [(rows,)] = at.raw.execute(
            "SELECT count(*) FROM events WHERE type IN ('job.submitting', 'submit.refused')"
        ).fetchall()
        asked, states = at.outside.asked["bad POST"], at.statuses("bad")

    assert asked <= 10 + 10  # those that were out before it said so, and one a minute
    assert rows <= 2 * asked
    assert states == {"queued": 1_000}


async def test_no_more_tasks_are_unfinished_than_may_be(tmp_path: Path) -> None:
    """Not requests but tasks: with a limit of three the fourth job is sent when the first task is done, and can be cancelled until then."""
    async with crowd(tmp_path, {"good": "well"}, max_in_flight=3) as at:
        jobs = await at.take(await at.tenant(), "good", 9)
        await at.run(1)
        waiting = at.statuses("good")
        await at.run(4 * TASK_S)
        took = at.seconds(jobs)

    assert waiting == {"running": 3, "queued": 6}
    assert at.outside.peak["good"] == 3
    assert took[2] < TASK_S + 1.5
    assert 2 * TASK_S < took[5] < 2 * TASK_S + 2


async def test_limit_of_tasks_holds_over_a_restart(tmp_path: Path) -> None:
    """A new process counts what runs at the provider already."""
    async with crowd(tmp_path, {"good": "well"}, max_in_flight=3) as at:
        await at.take(await at.tenant(), "good", 9)
        await at.run(1)
        outside = at.outside
    async with crowd(tmp_path, {"good": "well"}, max_in_flight=3, after=outside) as at:
        await at.run(0.5)
        states = at.statuses("good")
        await at.run(5 * TASK_S)
        ended = at.statuses("good")

    assert states == {"running": 3, "queued": 6}
    assert at.outside.peak["good"] == 3
    assert ended == {"completed": 9}


async def test_limit_of_tasks_holds_for_jobs_that_are_overdue_from_waiting(tmp_path: Path) -> None:
    """Only a task that is overdue itself gives its place away: a job that waited for too long has one that has just begun."""
    async with crowd(tmp_path, {"good": "well"}, max_in_flight=2, overdue_after="5s") as at:
        await at.take(await at.tenant(), "good", 20)
        await at.run(10)
        overdue = at.raw.execute("SELECT count(*) FROM jobs WHERE overdue AND status = 'queued'").fetchone()[0]
        outside = at.outside
    async with crowd(tmp_path, {"good": "well"}, max_in_flight=2, overdue_after="5s", after=outside) as at:
        await at.run(20 * TASK_S)
        ended = at.statuses("good")

    assert overdue > 5
    assert at.outside.peak["good"] == 2
    assert ended == {"completed": 20}


async def test_task_that_is_overdue_gives_its_place_away(tmp_path: Path) -> None:
    """One that the provider lost takes no place until its deadline, however long its job had waited before."""
    async with crowd(tmp_path, {"good": "mute"}, max_in_flight=2, overdue_after="5s") as at:
        await at.take(await at.tenant(), "good", 6)
        await at.run(4)
        first = at.statuses("good")
        await at.run(4)
        second = at.statuses("good")
        await at.run(6)
        third = at.statuses("good")

    assert [each["running"] for each in (first, second, third)] == [2, 4, 6]


async def test_refusals_in_a_row_share_their_rows_on_the_timeline(tmp_path: Path) -> None:
    """Two hours of 429 are two rows, with a count, and the rows before and after them stay as they are."""
    async with crowd(tmp_path, {"good": "refusing"}) as at:
        [job_id] = await at.take(await at.tenant(), "good")
        await at.run_slowly(7_200, step_s=5.0)
        asked = at.outside.asked["good POST"]
        at.outside.manners["good"] = "well"
        await at.run_slowly(700, step_s=1.0)
        rows = at.raw.execute(
            "SELECT seq, at, type, detail FROM events WHERE job_id = ? ORDER BY seq", (job_id,)
        ).fetchall()
        broken = breaches(at.raw)

    polls = [row["type"] for row in rows if row["type"] == "poll.answered"]
    others = [row for row in rows if row["type"] != "poll.answered"]
    refusal = json.loads(next(row["detail"] for row in rows if row["type"] == "submit.refused"))
    assert asked > 10
    assert [row["type"] for row in others] == [
        "job.queued",
        "submit.refused",
        "job.submitting",
        "job.submitted",
        "job.running",
        "job.completed",
    ]
    assert (refusal["count"], refusal["http_status"]) == (asked, 429)
    assert json.loads(others[2]["detail"])["try"] == asked + 1
    assert [row["at"] for row in rows] == sorted(row["at"] for row in rows)
    assert len(polls) < 10
    assert broken == []


async def test_thousands_of_deadlines_hold_up_no_other(tmp_path: Path) -> None:
    """What passes its deadline together ends within one sweep, and so does what another left in flight."""
    async with crowd(tmp_path, {"good": "well"}, max_in_flight=1) as at:
        jobs = await at.take(await at.tenant(), "good", 1_000)
        at.raw.execute(
            "UPDATE jobs SET expires_at = ?, due_at = ? WHERE status = 'queued'", (at.clock.now_ms() + 100,) * 2
        )
        await at.run(0.7)
        states = at.statuses("good")

    assert len(jobs) == 1_000
    assert states["expired"] == 999
