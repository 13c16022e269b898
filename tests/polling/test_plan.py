"""When to ask: plans from known spreads. The expectations come from the theory of inspection, not from the code."""

from __future__ import annotations

from itertools import pairwise
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.polling.plan import Cell, Quiet, Schedule, latest_ms, plan

WEEK_MS = 7 * 86_400_000
#: Nine of ten tasks end evenly between 30 and 120 s, in steps of 5 s; the rest later.
EVEN = [Cell(second * 1000.0, second * 1000.0 + 5000, 1 / 20) for second in range(30, 120, 5)]


def ages(schedule: Schedule, until_ms: int) -> list[int]:
    """When a task is asked for that never ends."""
    polls = [schedule.next_wait_ms(0)]
    while polls[-1] < until_ms:
        polls.append(polls[-1] + schedule.next_wait_ms(polls[-1]))
    return polls


def test_plan_begins_where_tasks_begin_to_end() -> None:
    """Nothing ends before 30 s, so nobody asks before; the first spacing is sqrt(2 * price * what is left), 13 s."""
    polls = ages(plan(EVEN, floor_ms=2_000, price_ms=1_000), until_ms=100_000)

    assert 34_000 <= polls[0] <= 50_000
    assert 9_000 <= polls[1] - polls[0] <= 16_000


def test_plan_asks_more_often_as_the_end_comes_near() -> None:
    """The longer an even spread has run, the likelier the end is at any moment."""
    polls = ages(plan(EVEN, floor_ms=2_000, price_ms=200), until_ms=100_000)
    waits = [later - earlier for earlier, later in pairwise(polls)]

    assert sum(waits[:3]) > 1.2 * sum(waits[-3:])


def test_dearer_polls_are_fewer() -> None:
    """The knob: what a poll is worth in delay."""
    cheap = ages(plan(EVEN, floor_ms=2_000, price_ms=100), until_ms=120_000)
    dear = ages(plan(EVEN, floor_ms=2_000, price_ms=3_000), until_ms=120_000)

    assert len(cheap) > 2 * len(dear)


def test_task_of_sure_duration_is_asked_for_once() -> None:
    """Where all end within a second, one poll at its end is the best plan."""
    schedule = plan([Cell(59_000.0, 60_000.0, 0.99)], floor_ms=2_000, price_ms=3_000)

    assert schedule.next_wait_ms(0) == 60_000


def test_gap_between_two_humps_is_left_out() -> None:
    """A task that outlived the first hump is not asked for until the second one begins."""
    cells = [Cell(20_000.0, 24_000.0, 0.6), Cell(100_000.0, 120_000.0, 0.39)]
    polls = ages(plan(cells, floor_ms=2_000, price_ms=200), until_ms=118_000)

    assert any(23_000 <= poll <= 26_500 for poll in polls)
    assert not any(26_500 < poll < 100_000 for poll in polls)


def test_gap_is_asked_in_where_nothing_is_called_quiet() -> None:
    """The same two humps under the bound from 20 s on: in the gap a wait is two cadences and a fifth of the age."""
    cells = [Cell(20_000.0, 24_000.0, 0.6), Cell(100_000.0, 120_000.0, 0.39)]
    polls = ages(plan(cells, floor_ms=2_000, price_ms=200, quiet=[Quiet(0, 20_000)]), until_ms=118_000)

    assert all(later <= 1.2 * earlier + 4_000 for earlier, later in pairwise(polls))
    assert len([poll for poll in polls if 26_500 < poll < 100_000]) <= 5


@pytest.mark.parametrize(
    ("age_ms", "latest"), [(0, 16_000), (9_999, 16_000), (10_000, 16_000), (16_000, 40_000), (30_000, 40_000)]
)
def test_quiet_stretch_is_waited_through(age_ms: int, latest: int) -> None:
    """From within a stretch at which nothing ends the bound counts from its end; elsewhere from the age itself."""
    assert latest_ms(age_ms, 2_000, [Quiet(0, 10_000), Quiet(16_000, 30_000)]) == latest


def test_late_poll_falls_into_the_plan() -> None:
    """Polls come late; from any age the plan goes on, neither at once nor a whole step behind."""
    schedule = plan(EVEN, floor_ms=2_000, price_ms=200)
    first = schedule.next_wait_ms(0)

    assert 2_000 <= schedule.next_wait_ms(first + 1_500) <= schedule.next_wait_ms(first) + 1_500


def test_beyond_the_plan_the_waits_grow() -> None:
    """After everything that was ever seen an eighth of the age is waited."""
    schedule = plan(EVEN, floor_ms=2_000)

    assert schedule.covers(60_000)
    assert not schedule.covers(200_000)
    assert schedule.next_wait_ms(800_000) == 100_000


def test_nothing_known_backs_off_from_the_floor() -> None:
    """No cells at all: the floor, then an eighth of the age."""
    schedule = plan([], floor_ms=2_000)

    assert not schedule.covers(0)
    assert schedule.next_wait_ms(0) == 2_000
    assert schedule.next_wait_ms(80_000) == 10_000


_WIDTHS = st.lists(st.tuples(st.floats(0, 1e5), st.floats(10, 2e6), st.floats(1e-6, 1)), min_size=1, max_size=25)


@settings(max_examples=60, deadline=None)
@given(
    widths=_WIDTHS,
    floor_ms=st.sampled_from([1_000, 2_000, 5_000]),
    price_ms=st.sampled_from([1.0, 200.0, 5_000.0]),
    quiet_ms=st.sampled_from([0.0, 30_000.0, inf]),
)
def test_any_spread_keeps_the_floor_and_the_bound(
    widths: list[tuple[float, float, float]], floor_ms: int, price_ms: float, quiet_ms: float
) -> None:
    """Whatever was seen: never faster than documented, and under 200 polls in seven days, the slowest three hours."""
    cells, at, total = [], 0.0, 1.01 * sum(share for _, _, share in widths)
    for gap, width, share in widths:
        cells.append(Cell(at + gap, at + gap + width, share / total))
        at += gap + width
    schedule, age_ms, polls = plan(cells, floor_ms, price_ms, [Quiet(0, quiet_ms)]), 0, 0
    while age_ms < WEEK_MS:
        wait_ms = schedule.next_wait_ms(age_ms)
        assert wait_ms >= floor_ms
        age_ms += min(wait_ms, 3 * 3_600_000)
        polls += 1

    assert polls < 200


@pytest.mark.parametrize("share", [1.0, 1.0 + 1e-12])
def test_nothing_left_to_end_is_no_trouble(share: float) -> None:
    """Shares that sum to all, or by rounding to a little more, still make a plan."""
    schedule = plan([Cell(10_000.0, 20_000.0, share / 2), Cell(20_000.0, 30_000.0, share / 2)], floor_ms=2_000)

    assert 10_000 < schedule.next_wait_ms(0) < 20_000
