"""Arbitrary histories of the whole production code, each from one seed: the rules hold at every step and at the end."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from service.db.inspection.invariants import breaches
from tests.simulation.world import World, world

HOUR_S = 3_600
DAY_S = 86_400
JOBS = 25
STEPS = 60
FINAL = {"completed", "failed", "cancelled", "expired"}


async def _live(remora: World, number: int) -> int:
    """One step of an arbitrary life; returns the number of the next new job."""
    chance = remora.chance.random()
    if chance < 0.35 and number < JOBS:
        await remora.take(number)
        number += 1
    elif chance < 0.4 and number:
        await remora.take(remora.chance.randrange(number))  # the same key again
    elif chance < 0.6:
        remora.clock.advance(remora.chance.choice([0.1, 1, 5, 30, 120, 3_600]))
        await remora.duties()
    elif chance < 0.75:
        remora.work()
        await remora.call_back()
    elif chance < 0.82:
        await remora.meddle()
    elif chance < 0.88:
        await remora.kill()
        remora.set_clock(remora.chance.choice([0, 0, HOUR_S, -HOUR_S]))
        await remora.start()
    elif chance < 0.94:
        remora.clock.step(remora.chance.choice([HOUR_S, 30 * DAY_S, 3_650 * DAY_S]) * remora.chance.choice([1, -1]))
    await remora.breathe(remora.chance.randrange(40))
    return number


def sent_twice(remora: World) -> list[str]:
    """I5: what may have had an effect and was sent again although no operator said so."""
    return [prompt for prompt, count in remora.network.answered.items() if count > 1 + remora.resubmitted[prompt]]


@pytest.mark.parametrize("seed", range(12))
async def test_arbitrary_history_keeps_every_rule(tmp_path: Path, seed: int) -> None:
    """Kills, cuts, stepped clocks, lost and forged callbacks, resubmits: invariants at each step, one end for every job."""
    async with world(tmp_path, seed) as remora:
        number = 0
        for _ in range(STEPS):
            number = await _live(remora, number)
            assert breaches(remora.raw) == []
        await remora.run_out(days=4)

        statuses = remora.statuses()
        ended = remora.raw.execute(
            "SELECT job_id, type FROM events WHERE type IN ('job.completed', 'job.failed', 'job.cancelled', 'job.expired')"
        ).fetchall()
        deliveries = Counter(row[0] for row in remora.raw.execute("SELECT status FROM deliveries").fetchall())
        assert breaches(remora.raw) == []
        assert set(remora.taken.values()) == set(statuses)
        assert set(statuses.values()) <= FINAL
        assert set(deliveries) <= {"delivered", "dead"}
        assert sent_twice(remora) == []
        # I7: the same id always has the same bytes.
        assert all(len(bodies) == 1 for bodies in remora.network.bodies.values())
        # Every final event that was delivered is one that happened.
        happened = {(row[1], row[0]) for row in ended}
        received = {(kind, job) for kind, jobs in remora.network.accepted.items() for job in jobs}
        assert received <= happened
        if not deliveries["dead"]:
            assert received == happened


async def test_same_seed_takes_the_same_course(tmp_path: Path) -> None:
    """The simulation is deterministic: what fails once can be looked at again."""
    ends = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        async with world(tmp_path / name, seed=99) as remora:
            number = 0
            for _ in range(30):
                number = await _live(remora, number)
            ends.append(remora.raw.execute("SELECT id, status, seq, polls, callbacks FROM jobs ORDER BY id").fetchall())

    assert [tuple(row) for row in ends[0]] == [tuple(row) for row in ends[1]]


async def test_doubled_submission_would_be_seen(tmp_path: Path) -> None:
    """A network that lies about what it sent makes the service send twice, and the checker says so."""
    async with world(tmp_path, seed=9) as remora:
        remora.network.lying = True
        remora.network.trouble = 0.9
        number = 0
        for _ in range(STEPS):
            number = await _live(remora, number)
        await remora.run_out(days=1)

        assert sent_twice(remora)
