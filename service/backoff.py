"""How long to wait before the next try: pure functions, capped, with jitter."""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime

from service.clock import Randomness

JITTER = 0.2  # of the wait, either way
RETRY_AFTER_CAP_S = 86_400.0  # a day: nobody may put us off for longer
_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")  # the RFC knows whole ones; some providers send fractions


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


def retry_after_s(header: str | None, now_ms: int) -> float | None:
    """Seconds that a `Retry-After` header asks for, as a number or a date; capped at a day, None if it makes no sense."""
    if header is None:
        return None
    text = header.strip()
    try:
        if _SECONDS.fullmatch(text):
            return min(float(text), RETRY_AFTER_CAP_S)
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:  # the RFC's dates are in GMT; some leave it out
            moment = moment.replace(tzinfo=UTC)
        return min(max(0.0, moment.timestamp() - now_ms / 1000), RETRY_AFTER_CAP_S)
    except (ValueError, OverflowError):  # OverflowError: an absurd year or zone
        return None
