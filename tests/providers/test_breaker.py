"""The breaker: opens on failures in a row, lets one try through now and then, and closes on the first that works."""

from __future__ import annotations

from service.clock import SeededRandomness, VirtualClock
from service.providers.breaker import Breaker, Breakers


def failing(count: int) -> tuple[Breaker, VirtualClock]:
    """A breaker after so many failures."""
    clock = VirtualClock()
    breaker = Breaker(clock, SeededRandomness(1))
    for _ in range(count):
        breaker.begin()
        breaker.failed("connect_refused")
    return breaker, clock


def test_breaker_opens_at_the_fifth_failure_in_a_row() -> None:
    """Four are bad luck; a success in between starts the count anew."""
    four, _ = failing(4)
    five, clock = failing(5)
    mixed, _ = failing(4)
    mixed.worked()
    mixed.failed("again")

    assert four.allows()
    assert mixed.allows()
    assert not five.allows()
    assert five.opened_at == clock.now_ms()
    assert five.last_error == "connect_refused"


def test_open_breaker_lets_one_try_through_and_waits_longer_after_each() -> None:
    """About 5 s, then 10, 20 … up to 300; while the try is out nobody else goes."""
    breaker, clock = failing(5)
    waits = []
    for _ in range(9):
        waited = 0
        while not breaker.allows():
            clock.advance(1)
            waited += 1
        waits.append(waited)
        breaker.begin()
        assert not breaker.allows()
        breaker.failed("still down")

    assert 4 <= waits[0] <= 6
    assert 8 <= waits[1] <= 12
    assert 240 <= waits[-1] <= 360


def test_try_that_works_closes_the_breaker() -> None:
    """Everything goes again, and the next opening starts with a short wait."""
    breaker, clock = failing(5)
    clock.advance(10)
    breaker.begin()
    breaker.worked()

    assert breaker.allows()
    assert not breaker.is_open
    assert breaker.failures == 0


def test_failures_of_polls_while_open_do_not_push_the_try_away() -> None:
    """Only the try itself lengthens the wait."""
    breaker, clock = failing(5)
    for _ in range(100):
        breaker.failed("poll failed")
    clock.advance(7)

    assert breaker.allows()


def test_breakers_tell_who_is_down() -> None:
    """One for each provider."""
    breakers = Breakers(VirtualClock(), SeededRandomness(1))
    for _ in range(5):
        breakers.of("sharkai").failed("502")
    breakers.of("apimodels").worked()

    assert set(breakers.down()) == {"sharkai"}


def test_try_whose_end_nobody_told_holds_up_no_other_for_ever() -> None:
    """A job that was cancelled in the middle of its try: after ten minutes the next may go."""
    breaker, clock = failing(5)
    clock.advance(10)
    breaker.begin()
    during = breaker.allows()
    clock.advance(601)

    assert during is False
    assert breaker.allows()
