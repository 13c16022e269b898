"""Counting jobs for the metrics: exact when it is done, and done so seldom that it costs little."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from service.clock import VirtualClock
from service.errors import Unavailable
from service.jobs.listing.counts import LEAST_S, SHARE, JobCounts


@dataclass(slots=True)
class Slow:
    """A reader that takes its time by the clock, and fails when told."""

    clock: VirtualClock
    takes_s: float = 0.0
    reads: int = 0
    fails: bool = False

    async def rows(self, sql: str, params: Any = None) -> list[dict[str, Any]]:
        """How often it was asked, as the number of queued jobs."""
        assert "count" in sql
        assert params is None
        self.reads += 1
        self.clock.advance(self.takes_s)
        if self.fails:
            raise Unavailable("too slow", code="read_timeout")
        return [{"status": "queued", "n": self.reads}]


async def test_count_is_kept_for_a_while() -> None:
    """Within five seconds nothing is counted again; afterwards it is."""
    clock = VirtualClock()
    reader = Slow(clock)
    counts = JobCounts(reader, clock)  # type: ignore[arg-type]
    seen = [await counts.now(), await counts.now()]
    clock.advance(LEAST_S)
    seen.append(await counts.now())

    assert seen == [{"queued": 1}, {"queued": 1}, {"queued": 2}]


async def test_slow_count_is_kept_for_longer() -> None:
    """Counting takes a twentieth of the time at most, however many jobs there are."""
    clock = VirtualClock()
    reader = Slow(clock, takes_s=2.0)
    counts = JobCounts(reader, clock)  # type: ignore[arg-type]
    await counts.now()
    clock.advance(2.0 * SHARE - 1)
    kept = await counts.now()
    clock.advance(1)

    assert kept == {"queued": 1}
    assert await counts.now() == {"queued": 2}


async def test_count_that_cannot_be_made_leaves_the_last_one() -> None:
    """The other metrics are answered all the same."""
    clock = VirtualClock()
    reader = Slow(clock)
    counts = JobCounts(reader, clock)  # type: ignore[arg-type]
    await counts.now()
    clock.advance(LEAST_S)
    reader.fails = True

    assert await counts.now() == {"queued": 1}
