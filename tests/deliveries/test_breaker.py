"""The breaker of a lane: when it opens, how it tries, and what it lets through afterwards."""

from __future__ import annotations

import pytest

from service.clock import SeededRandomness, VirtualClock
from service.deliveries.lanes.lane_breaker import BREAK_AFTER, MAX_REMEMBERED, LaneBreakers


@pytest.fixture
def clock() -> VirtualClock:
    """A clock that the test moves."""
    return VirtualClock()


@pytest.fixture
def breakers(clock: VirtualClock) -> LaneBreakers:
    """No lane has failed yet."""
    return LaneBreakers(clock, SeededRandomness(1))


def fail(breakers: LaneBreakers, times: int = 1, retry_after_s: float | None = None) -> None:
    """That many requests of lane `a` fail."""
    for _ in range(times):
        breakers.failed("a", retry_after_s)


def test_breaker_opens_on_failures_in_a_row_only(breakers: LaneBreakers) -> None:
    """Four failures and a success are no outage."""
    for _ in range(3):
        fail(breakers, BREAK_AFTER - 1)
        breakers.succeeded("a", 10)

    assert not breakers.is_open("a")
    fail(breakers, BREAK_AFTER)
    assert breakers.is_open("a")
    assert breakers.limit("a") == 0
    assert breakers.limit("b") is None


def test_open_breaker_tries_ever_more_rarely_up_to_five_minutes(breakers: LaneBreakers, clock: VirtualClock) -> None:
    """After 5 s, 10 s, 20 s …, each ± 20 %."""
    fail(breakers, BREAK_AFTER)
    waits = []
    for _ in range(9):
        waits.append(breakers.state("a").probe_in_s or 0.0)
        clock.advance(waits[-1] + 0.001)
        assert breakers.limit("a") == 1
        assert breakers.state("a").word == "probing"
        fail(breakers)

    for wait, nominal in zip(waits, [5, 10, 20, 40, 80, 160, 300, 300, 300], strict=True):
        assert nominal * 0.8 <= wait <= nominal * 1.2


def test_retry_after_puts_the_next_try_off(breakers: LaneBreakers, clock: VirtualClock) -> None:
    """Who asks for an hour is left alone for an hour."""
    fail(breakers, BREAK_AFTER, retry_after_s=3_600)
    clock.advance(3_599)
    before = breakers.limit("a")
    clock.advance(1)

    assert (before, breakers.limit("a")) == (0, 1)


def test_failure_of_a_request_from_before_changes_nothing(breakers: LaneBreakers) -> None:
    """What was out when the breaker opened comes back, too, and is no try."""
    fail(breakers, BREAK_AFTER)
    wait = breakers.state("a").probe_in_s
    fail(breakers, 3)

    assert breakers.state("a").probe_in_s == wait


def test_delivery_that_was_asked_for_is_tried_once(breakers: LaneBreakers, clock: VirtualClock) -> None:
    """It must not keep the lane shut."""
    fail(breakers, BREAK_AFTER)
    breakers.try_now("a", "dlv_wanted")
    first = breakers.wanted("a")
    clock.advance(1)
    fail(breakers)

    assert first == "dlv_wanted"
    assert breakers.wanted("a") is None


def test_destination_that_is_back_gets_bursts_that_double(breakers: LaneBreakers, clock: VirtualClock) -> None:
    """One, two, four, eight, then its own limit; a failure on the way begins again at one."""
    fail(breakers, BREAK_AFTER)
    clock.advance(70)
    absent_long = breakers.succeeded("a", 10)
    limits = [breakers.limit("a")]
    for _ in range(3):
        breakers.succeeded("a", 10)
        limits.append(breakers.limit("a"))

    assert absent_long
    assert limits == [2, 4, 8, None]


def test_failure_while_it_comes_back_begins_again_at_one(breakers: LaneBreakers, clock: VirtualClock) -> None:
    """Slow start, as it was."""
    fail(breakers, BREAK_AFTER)
    clock.advance(70)
    breakers.succeeded("a", 100)
    breakers.succeeded("a", 100)
    fail(breakers)

    assert breakers.limit("a") == 1


def test_short_absence_leaves_the_schedule_alone(breakers: LaneBreakers, clock: VirtualClock) -> None:
    """Under a minute the ordinary waits are short enough."""
    fail(breakers, BREAK_AFTER)
    clock.advance(20)

    assert not breakers.succeeded("a", 10)
    assert not breakers.is_open("a")


def test_any_number_of_paths_that_fail_once_opens_no_breaker_again(breakers: LaneBreakers) -> None:
    """Memory is bounded, and what makes room is what matters least."""
    fail(breakers, BREAK_AFTER)
    for number in range(MAX_REMEMBERED * 2):
        breakers.failed(f"acc_1:https://shop.example/{number}", None)

    assert breakers.open_lanes() == ["a"]
    assert not breakers.is_open("acc_1:https://shop.example/0")


def test_operator_can_have_it_tried_at_once(breakers: LaneBreakers) -> None:
    """With the delivery that was asked for."""
    fail(breakers, BREAK_AFTER)
    breakers.try_now("a", "dlv_wanted")

    assert breakers.limit("a") == 1
    assert breakers.wanted("a") == "dlv_wanted"
