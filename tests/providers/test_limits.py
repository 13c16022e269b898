"""One provider gets no more requests at a time, and in a time, than it allows, and none while it wants a pause."""

from __future__ import annotations

from service.clock import VirtualClock
from service.notation import SubmitRate
from service.providers.limiter import Limiter, Slot


def _sent(limiter: Limiter) -> Slot:
    slot = limiter.enter()
    slot.sent()
    return slot


def test_no_more_enter_than_may_be_under_way() -> None:
    """The next one goes when another has left; leaving twice frees one slot."""
    limiter = Limiter(VirtualClock(), at_once=2)
    first, _ = limiter.enter(), limiter.enter()
    full = limiter.room(), limiter.wait_s()
    first.leave()
    first.leave()

    assert full == (0, None)
    assert (limiter.room(), limiter.in_use) == (1, 1)


def test_no_window_has_more_than_the_rate() -> None:
    """20 in 10 s means any 10 s: not 20 at the end of one and 20 at the start of the next."""
    clock = VirtualClock()
    limiter = Limiter(clock, at_once=1000, rate=SubmitRate(20, 10.0))
    sent_s: list[float] = []

    for _ in range(400):
        if limiter.room():
            _sent(limiter).leave()
            sent_s.append(clock.monotonic())
        clock.advance(0.1)

    # 40 s hold four windows of 10 s, and the first of each comes no sooner than 10 s after that of the last.
    assert len(sent_s) == 80
    assert all(later - earlier >= 10.0 for earlier, later in zip(sent_s, sent_s[20:], strict=False))


def test_rate_counts_from_when_the_request_leaves() -> None:
    """A slot that is held for long, for moderation say, must not let two requests out in one window."""
    clock = VirtualClock()
    limiter = Limiter(clock, at_once=10, rate=SubmitRate(1, 10.0))
    slot = limiter.enter()
    clock.advance(9)
    held = limiter.room()
    slot.sent()
    clock.advance(9)
    after = limiter.room(), limiter.wait_s()
    clock.advance(1)

    assert held == 0
    assert after == (0, 1.0)
    assert limiter.room() == 1


def test_request_that_never_left_uses_nothing_up() -> None:
    """One that did has been counted by the provider."""
    limiter = Limiter(VirtualClock(), at_once=10, rate=SubmitRate(1, 10.0))
    limiter.enter().leave()
    unused = limiter.room()
    _sent(limiter).leave()

    assert (unused, limiter.room(), limiter.wait_s()) == (1, 0, 10.0)


def test_refusal_pauses_everybody_for_what_was_asked() -> None:
    """Then one request tries, and each that is taken lets twice as many through."""
    clock = VirtualClock()
    limiter = Limiter(clock, at_once=8)
    _sent(limiter).leave()
    limiter.refused(60)
    paused = limiter.room(), limiter.wait_s()
    clock.advance(60)
    rooms = []
    for _ in range(4):
        rooms.append(limiter.room())
        limiter.accepted()

    assert paused == (0, 60.0)
    assert rooms == [1, 2, 4, 8]


def test_refusals_of_one_burst_are_one_refusal() -> None:
    """A hundred requests that were out when the provider said stop do not make the pause a hundred times longer."""
    clock = VirtualClock()
    limiter = Limiter(clock, at_once=100)
    for _ in range(100):
        limiter.refused(None)
    limiter.accepted()  # it left before the pause, too

    assert limiter.pause_s() == 2.0
    clock.advance(2)
    assert limiter.room() == 1


def test_provider_that_goes_on_refusing_is_asked_ever_more_rarely() -> None:
    """Doubled up to five minutes where it names no time; up to ten times what it asks for where it does."""
    clock = VirtualClock()
    silent, asking = Limiter(clock, at_once=9), Limiter(clock, at_once=9)
    pauses: list[tuple[float, float]] = []
    for _ in range(9):
        silent.refused(None)
        asking.refused(3)
        pauses.append((round(silent.pause_s()), round(asking.pause_s())))
        clock.advance(301)

    assert pauses[:4] == [(2, 3), (4, 4), (8, 8), (16, 16)]
    assert pauses[-1] == (300, 30)


def test_pause_is_bounded() -> None:
    """Nobody puts everybody off for longer than that."""
    clock = VirtualClock()
    limiter = Limiter(clock, at_once=9, longest_pause_s=300)
    limiter.refused(86_400)

    assert limiter.pause_s() == 300
