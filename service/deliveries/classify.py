"""What an answer, or its absence, means for a delivery: pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from service.backoff import JITTER, from_schedule, honouring, jittered, retry_after_s
from service.clock import Randomness
from service.deliveries.store import KEPT_RESPONSE_BYTES
from service.egress import Answer
from service.errors import UNTIMED, EgressError, Timing

GONE = 410  # the status of a destination that wants nothing any more
SLOW_DOWN = frozenset({429, 502, 504})  # the destination says that it is overloaded
NOBODY_THERE = frozenset({502, 503, 504})
SLOW_DOWN_S = 5.0  # seconds without a new request in its lane, unless it asks for more
LONG_S = 86_400.0  # a schedule of at least so many seconds …
AHEAD = 0.025  # … is run through at most so much of it too early
CUT = "…"  # behind an answer that is kept in part

#: Answers with a word of their own in the log; others have `redirect`, `http_4xx` or `http_5xx`.
_CLASSES = {GONE: "gone", 429: "rate_limited"}


@dataclass(frozen=True, slots=True)
class Tried:
    """One attempt, judged. `slow_s`: seconds in which the lane starts nothing new."""

    delivered: bool
    status_code: int | None
    error: str | None
    response_body: str | None
    retry_after_s: float | None = None
    gone: bool = False
    slow_s: float = 0.0
    error_class: str | None = None  # a stable word for what went wrong
    timing: Timing = UNTIMED

    @property
    def is_unreachable(self) -> bool:
        """Whether the whole origin may be away: no answer came, or one of a gateway that found nobody behind it."""
        return self.status_code is None or self.status_code in NOBODY_THERE


def classify(answer: Answer, wall_ms: int) -> Tried:
    """Only 2xx is success; a redirect is a failure like any other."""
    text = _kept(answer.body)
    if 200 <= answer.status < 300:
        return Tried(delivered=True, status_code=answer.status, error=None, response_body=text, timing=answer.timing)
    wanted_s = retry_after_s(answer.headers.get("retry-after"), wall_ms)
    slow_s = max(SLOW_DOWN_S, wanted_s or 0.0) if answer.status in SLOW_DOWN else 0.0
    error = _redirected(answer) if 300 <= answer.status < 400 else None
    return Tried(
        delivered=False,
        status_code=answer.status,
        error=error,
        response_body=text,
        retry_after_s=wanted_s,
        gone=answer.status == GONE,
        slow_s=slow_s,
        error_class=_CLASSES.get(answer.status)
        or ("redirect" if answer.status < 400 else f"http_{answer.status // 100}xx"),
        timing=answer.timing,
    )


def _redirected(answer: Answer) -> str:
    """Where it leads, but for path and query, which may hold a token; nobody goes there."""
    try:
        parts = urlsplit(answer.headers.get("location", "").strip()[:2_048])
        host = f" to {parts.scheme}://{parts.hostname}" if parts.scheme in {"http", "https"} and parts.hostname else ""
    except ValueError:  # a bracket without its other half
        host = ""
    return f"redirect{host} refused ({answer.status}); change the address if it has moved"


def broken(error: EgressError) -> Tried:
    """No answer came."""
    return Tried(
        delivered=False,
        status_code=None,
        error=f"{error.reason}: {error}"[:500],
        response_body=None,
        error_class=error.reason,
        timing=error.timing,
    )


def _kept(body: bytes) -> str | None:
    """The beginning of an answer as text; what was cut ends in `CUT`, and only that is longer than is kept."""
    text = body[:KEPT_RESPONSE_BYTES].decode("utf-8", "replace").replace("\x00", "\ufffd")
    if len(body) <= KEPT_RESPONSE_BYTES and (text.isascii() or len(text.encode()) <= KEPT_RESPONSE_BYTES):
        return text or None
    return text.encode()[:KEPT_RESPONSE_BYTES].decode("utf-8", "replace") + CUT


def kept_and_cut(text: str | None) -> tuple[str | None, bool]:
    """What was kept of an answer, and whether there was more of it."""
    if text is None or len(text.encode()) <= KEPT_RESPONSE_BYTES:
        return text, False
    return text.removesuffix(CUT), True


def next_due_ms(
    tried: Tried,
    failed_attempts: int,
    schedule_s: tuple[float, ...],
    now_ms: int,
    randomness: Randomness,
    *,
    since_ms: int | None = None,
) -> int | None:
    """When to try again.

    Args:
        tried: The attempt that failed.
        failed_attempts: How many failed so far, this one included.
        schedule_s: The waits between attempts.
        now_ms: When it failed.
        randomness: For the jitter.
        since_ms: When the schedule began; None: it does not matter.

    Returns:
        Milliseconds UTC; None when the schedule is used up or the destination is gone.
    """
    if tried.gone:
        return None
    wait_s = from_schedule(failed_attempts, schedule_s)
    if wait_s is None:
        return None
    jitter_s = jittered(wait_s, randomness)
    if since_ms is not None and sum(schedule_s) >= LONG_S:
        # Jitter that falls short every time would end a schedule of 75 hours after 60, before a destination that was
        # down for three days is back. So a long schedule never runs ahead of itself by more than a little.
        behind_s = sum(schedule_s[:failed_attempts]) - sum(schedule_s) * AHEAD - (now_ms - since_ms) / 1000
        jitter_s = min(max(jitter_s, behind_s), wait_s * (1 + JITTER))
    return now_ms + round(honouring(jitter_s, tried.retry_after_s) * 1000)
