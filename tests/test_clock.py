"""The two times of day: due work's never steps and follows the machine's slowly, whatever somebody does to that one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.clock import SLEW, SlewedClock, SystemClock, VirtualClock

HOUR_S = 3_600
DAY_S = 86_400
YEAR_S = 365 * DAY_S
STEPS_S = [30 * DAY_S, -HOUR_S, 10 * YEAR_S, -10 * YEAR_S]


@pytest.mark.parametrize("step_s", STEPS_S)
def test_step_of_the_wall_clock_moves_no_due_time(step_s: int) -> None:
    """Our time stays where it was and goes on at nearly the pace of real seconds; what other machines judge is as they see it."""
    clock = VirtualClock()
    before_ms = clock.now_ms()
    clock.step(step_s)
    stepped_s, after_ms, wall_ms = clock.slew(), clock.now_ms(), clock.wall_ms()
    clock.advance(5)
    waited_ms = clock.now_ms() - after_ms

    assert stepped_s == step_s
    assert (after_ms, wall_ms) == (before_ms, before_ms + step_s * 1000)
    assert abs(waited_ms - 5_000) == 5_000 // SLEW


@pytest.mark.parametrize("step_s", [-HOUR_S, -2, 2, HOUR_S])
@pytest.mark.parametrize("every_s", [1, 600])
def test_our_time_comes_to_the_wall_clock_and_stays_there(step_s: int, every_s: int) -> None:
    """A difference is worked off in so many times its length, and no further, however rarely somebody looks."""
    clock = VirtualClock()
    clock.step(step_s)
    for _ in range(SLEW * abs(step_s) // every_s + 2):
        clock.slew()
        clock.advance(every_s)

    assert clock.now_ms() == clock.wall_ms()
    assert clock.slew() == 0


@given(
    st.lists(
        st.tuples(
            st.floats(0, 2 * DAY_S),
            st.one_of(st.just(0.0), st.floats(-20 * YEAR_S, 20 * YEAR_S)),
            st.booleans(),
        ),
        max_size=40,
    )
)
def test_our_time_never_goes_back_whatever_is_done_to_the_machine(history: list[tuple[float, float, bool]]) -> None:
    """Steps, waits and looks in any order: in real seconds our time is off by the slew at most."""
    clock = VirtualClock()
    for wait_s, step_s, looks in history:
        before_ms, uptime_s = clock.now_ms(), clock.monotonic()
        clock.step(step_s)
        if looks:
            clock.slew()
        clock.advance(wait_s)
        passed_ms = round((clock.monotonic() - uptime_s) * 1000)

        assert abs(clock.now_ms() - before_ms - passed_ms) <= passed_ms / SLEW + 2  # two roundings


def test_clock_that_lay_behind_the_store_is_believed_when_it_is_set_right() -> None:
    """Booted with an old time: our time takes a step ahead at once, as far as the store has seen, and slews the rest."""
    clock = VirtualClock()
    newest_ms = clock.now_ms() + YEAR_S * 1000
    clock.seen(newest_ms)
    clock.slew()
    before = clock.now_ms()
    clock.step(YEAR_S + HOUR_S)
    clock.slew()

    assert before == newest_ms - YEAR_S * 1000
    assert clock.now_ms() == newest_ms
    clock.step(YEAR_S)
    clock.slew()
    assert clock.now_ms() == newest_ms


def test_process_that_is_stopped_between_two_readings_sees_no_step() -> None:
    """On a busy machine seconds may pass between reading one clock and the other: the closest pair counts."""
    paused: Iterator[int] = iter(())
    now = 0

    def wall_ns() -> int:
        nonlocal now
        now += next(paused, 100)
        return now

    clock = SlewedClock(lambda: now, wall_ns)
    paused = iter([8_000_000_000])

    assert abs(clock.slew()) < 0.001


def test_machine_clock_starts_at_the_wall_clock() -> None:
    """Both times of day agree while nobody touches the machine's clock."""
    clock = SystemClock()

    assert abs(clock.slew()) < 1
    assert abs(clock.wall_ms() - clock.now_ms()) < 1_000


def test_clock_begins_at_the_machine_that_it_follows_and_slews_after_it() -> None:
    """The first moment is taken at once, whatever this machine's clock says; what differs later is worked off."""
    clock = VirtualClock(1_000_000_000)
    clock.follow(5_000_000_000)
    began = clock.now_ms(), clock.wall_ms()
    clock.step(-3_600)  # this machine's own clock counts no more
    clock.advance(10)
    clock.slew()
    later = clock.now_ms()
    clock.follow(later + 100)
    clock.slew()
    at_once = clock.now_ms(), clock.wall_ms()
    clock.advance(1)
    part = clock.now_ms()
    clock.advance(10)
    whole = clock.now_ms()

    assert began == (5_000_000_000, 5_000_000_000)
    assert later == 5_000_010_000
    assert at_once == (later, later + 100)
    assert part == later + 1_000 + 1_000 // SLEW
    assert whole == later + 11_000 + 100
