"""The last hour of a destination: sums, quantiles, what is forgotten when, and how much is kept."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

import pytest

from service.clock import SeededRandomness, VirtualClock
from service.deliveries.lanes.lane_breaker import BreakerState
from service.deliveries.lanes.lanes import Lanes
from service.deliveries.lanes.queue import Sending
from service.deliveries.statistics.figures import MAX_LANES, DestinationStanding, Figure, Figures

START = 1_795_000_200_000  # a multiple of five minutes, so that steps of the hour begin here


def figures(clock: VirtualClock) -> Figures:
    """Figures beside lanes in which nothing happens."""

    async def send(_: Sending) -> None:
        raise AssertionError

    def give_back(_: Sequence[Sending]) -> None:
        raise AssertionError

    return Figures(clock, Lanes(send, clock, SeededRandomness(1), give_back, timeout_s=15))


def test_unknown_destination_has_no_figures() -> None:
    """No attempts are no success rate of 0 or 1, but none."""
    figure = figures(VirtualClock(START)).of("sub_1")

    assert figure == Figure(attempts=0, delivered=0, p50_ms=None, p95_ms=None)
    assert figure.success_rate is None


def test_success_rate_counts_every_attempt() -> None:
    """Answered or not: two of three attempts did not deliver; only what was answered has a latency."""
    seen = figures(VirtualClock(START))
    seen.attempted("sub_1", delivered=True, answered_ms=64)
    seen.attempted("sub_1", delivered=False, answered_ms=64)
    seen.attempted("sub_1", delivered=False, answered_ms=None)
    seen.attempted("sub_2", delivered=False, answered_ms=None)

    assert seen.of("sub_1").attempts == 3
    assert seen.of("sub_1").success_rate == 0.3333
    assert seen.of("sub_2") == Figure(1, 0, None, None)
    assert seen.of("sub_2").success_rate == 0.0


@pytest.mark.parametrize(
    ("answers", "p50", "p95"),
    [
        # One bucket, from 45.25 to 64 ms: half of its width, and 95 % of it.
        ([64] * 100, 55, 63),
        # Rank 5 of 10 is the last of the five in (5.66, 8]; rank 9.5 is 90 % of the five in (724.08, 1024].
        ([8] * 5 + [1000] * 5, 8, 994),
        # 90 fast, 10 slow: rank 95 is half of (11.31, 16].
        ([1] * 90 + [16] * 10, 1, 14),
        # Nothing is below the first bound, nothing is told beyond the last one.
        ([0] * 10, 0, 1),
        ([900_000] * 10, 65_536, 65_536),
    ],
)
def test_quantiles_lie_in_the_bucket_of_the_answer(answers: list[int], p50: int, p95: int) -> None:
    """Worked out by hand from bounds that are half a power of two apart."""
    seen = figures(VirtualClock(START))
    for answer in answers:
        seen.attempted("sub_1", delivered=True, answered_ms=answer)

    assert (seen.of("sub_1").p50_ms, seen.of("sub_1").p95_ms) == (p50, p95)


def test_hour_forgets_in_steps_of_five_minutes() -> None:
    """One attempt every ten minutes: those of the last hour count, and silence ends with nothing."""
    clock = VirtualClock(START)
    seen, counted = figures(clock), []
    for _ in range(9):
        seen.attempted("sub_1", delivered=True, answered_ms=1)
        counted.append(seen.of("sub_1").attempts)
        clock.advance(600)
    left = []
    for _ in range(7):
        left.append(seen.of("sub_1").attempts)
        clock.advance(600)

    assert counted == [1, 2, 3, 4, 5, 6, 6, 6, 6]
    assert left == [5, 4, 3, 2, 1, 0, 0]


def test_busy_hours_do_not_add_up() -> None:
    """A ring that comes round begins from nothing, also after a long pause."""
    clock = VirtualClock(START)
    seen = figures(clock)
    for pause_s in (0, 299, 1, 3_600, 86_400):
        clock.advance(pause_s)
        seen.attempted("sub_1", delivered=True, answered_ms=1)

    assert seen.of("sub_1").attempts == 1


def test_memory_is_bounded() -> None:
    """Twenty thousand destinations take less than 64 MiB, and the one that was idle the longest makes room."""
    seen = figures(VirtualClock(START))
    tracemalloc.start()
    for number in range(MAX_LANES):
        seen.attempted(f"sub_{number}", delivered=True, answered_ms=1)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    seen.attempted("sub_0", delivered=True, answered_ms=1)
    seen.attempted("sub_new", delivered=True, answered_ms=1)

    assert seen.of("sub_0").attempts == 2
    assert seen.of("sub_1").attempts == 0
    assert seen.of("sub_new").attempts == 1
    assert seen.count() == MAX_LANES
    assert taken < 64 * 2**20


def test_idle_destinations_go_when_another_comes() -> None:
    """After an hour of silence nothing of them is kept."""
    clock = VirtualClock(START)
    seen = figures(clock)
    for number in range(10):
        seen.attempted(f"sub_{number}", delivered=True, answered_ms=1)
    clock.advance(3_600)
    seen.attempted("sub_new", delivered=True, answered_ms=1)

    assert seen.count() == 1


def test_standing_of_a_destination_at_rest() -> None:
    """Nothing is out, and nothing is wrong."""
    assert figures(VirtualClock(START)).standing("sub_1") == DestinationStanding(Figure(), BreakerState("closed"), 0)
