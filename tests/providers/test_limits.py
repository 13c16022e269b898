"""One provider gets no more submissions at a time, and in a time, than it allows."""

from __future__ import annotations

from service.clock import VirtualClock
from service.notation import SubmitRate
from service.providers.limits import SubmitLimits, Turn

GRANTED = Turn(granted=True)


def test_no_more_enter_than_may_be_in_flight() -> None:
    """The next one goes when another has left."""
    limits = SubmitLimits(2, None, VirtualClock())

    assert [limits.enter(), limits.enter(), limits.enter()] == [GRANTED, GRANTED, Turn(granted=False)]
    limits.leave()
    assert limits.enter() == GRANTED
    assert limits.in_flight == 2


def test_no_window_has_more_than_the_rate() -> None:
    """20 in 10 s means any 10 s: not 20 at the end of one and 20 at the start of the next."""
    clock = VirtualClock()
    limits = SubmitLimits(1000, SubmitRate(20, 10.0), clock)
    granted_s: list[float] = []

    for _ in range(400):
        if limits.enter().granted:
            granted_s.append(clock.monotonic())
        clock.advance(0.1)

    # 40 s hold four windows of 10 s, and the first of each comes no sooner than 10 s after that of the last.
    assert len(granted_s) == 80
    assert all(later - earlier >= 10.0 for earlier, later in zip(granted_s, granted_s[20:], strict=False))


def test_wait_tells_when_to_ask_again() -> None:
    """Asking after the wait succeeds, and what was refused used nothing up."""
    clock = VirtualClock()
    limits = SubmitLimits(10, SubmitRate(1, 10.0), clock)
    limits.enter()
    clock.advance(4)

    refused = limits.enter()
    assert refused == Turn(granted=False, wait_s=6.0)
    clock.advance(6)
    assert limits.enter() == GRANTED


def test_leaving_gives_no_rate_back() -> None:
    """The provider has counted the request."""
    limits = SubmitLimits(10, SubmitRate(1, 10.0), VirtualClock())
    limits.enter()
    limits.leave()

    assert limits.enter() == Turn(granted=False, wait_s=10.0)
