"""Arbitrary histories with kills, late facts and retention of the feed: usage is at every step what the jobs say."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.usage import store as usage_store
from service.usage.counting import DAY_MS, UsageQuery, grouped
from tests.simulation.world import World, world

_BY_STATUS = """
SELECT status, count(*), coalesce(sum(cost_charged), 0) FROM jobs WHERE finished_at IS NOT NULL GROUP BY status
"""
# Half of what nobody waits for is taken out of the feed, also what is not counted yet.
_RETAIN = """
UPDATE events SET pos = NULL, body = NULL
WHERE pos % 2 = 0 AND id NOT IN (SELECT event_id FROM deliveries WHERE status = 'pending')
"""


async def _check(remora: World) -> None:
    today = remora.clock.now_ms() // DAY_MS
    wanted = UsageQuery(today - 20, today + 1, ("status",))
    rows = grouped(await usage_store.usage(remora.base.store.reader, remora.account_id, wanted), wanted)

    assert {(row.group[0], sum(row.jobs.values()), row.charged) for row in rows} == {
        tuple(row) for row in remora.raw.execute(_BY_STATUS).fetchall()
    }
    assert all(row.durations.total == sum(row.jobs.values()) for row in rows)


@pytest.mark.parametrize("seed", range(8))
async def test_usage_is_what_the_jobs_say(tmp_path: Path, seed: int) -> None:
    """Counted and not yet counted together, whatever happens between two steps of counting."""
    async with world(tmp_path, seed) as remora:
        for number in range(20):
            await remora.take(number)
            await remora.breathe(remora.chance.randrange(60))
            remora.work()
            await remora.call_back()
            await remora.meddle()
            remora.clock.advance(remora.chance.choice([1, 30, 3_600, 40_000]))
            await _check(remora)
            if remora.chance.random() < 0.5:
                await remora.duties()
            if remora.chance.random() < 0.2:
                remora.raw.execute(_RETAIN)
            if remora.chance.random() < 0.2:
                await remora.kill()
                await remora.start()
            await _check(remora)
        await remora.run_out(days=4)
        await _check(remora)

        assert set(remora.statuses().values()) <= {"completed", "failed", "cancelled", "expired"}
        assert remora.raw.execute("SELECT count(*) FROM usage_recounts").fetchone()[0] == 0
