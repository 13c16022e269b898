"""How long to wait before the next try: pure functions, capped, with jitter."""

from __future__ import annotations

from service.clock import Randomness

JITTER = 0.2  # of the wait, either way
RETRY_AFTER_CAP_S = 86_400.0  # a day: nobody may put us off for longer


def jittered(wait_s: float, randomness: Randomness, *, jitter: float = JITTER) -> float:
    """The wait, spread by ±`jitter` so that what failed together does not come back together."""
    return wait_s * randomness.uniform(1 - jitter, 1 + jitter)


def exponential(attempt: int, *, first_s: float, cap_s: float) -> float:
    """`first_s` doubled for every attempt after the first one, never above `cap_s`."""
    return min(cap_s, first_s * 2.0 ** min(max(attempt - 1, 0), 63))


def from_schedule(failed_attempts: int, schedule_s: tuple[float, ...]) -> float | None:
    """The wait after so many failed attempts; None when the schedule is used up."""
    return schedule_s[failed_attempts - 1] if 1 <= failed_attempts <= len(schedule_s) else None


def honouring(wait_s: float, retry_after_s: float | None) -> float:
    """The wait, or what the other side asked for if that is longer, up to a day."""
    return max(wait_s, min(retry_after_s, RETRY_AFTER_CAP_S)) if retry_after_s is not None else wait_s
