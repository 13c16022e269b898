"""What follows when a result could not be fetched: when to try again, and when to give it up. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from service.backoff import honouring, jittered
from service.clock import Randomness

WAITS_S: Final = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0)  # after the first, second … failure; then the last for ever
LONGEST_ASKED_S: Final = 3600.0  # of what a host asks for with Retry-After
STORAGE_WAIT_S: Final = 15.0  # where it is our own place that fails; while it does, everything pauses besides
REFUSED_TRIES: Final = 4  # a wrong file, 401, 403, 404 so many times in a row stay: caches may know a new file late
GONE: Final = "result_gone"
STORAGE: Final = "storage_unavailable"
LAST_MOMENT_MS: Final = 5_000  # before a link dies, for one more try

#: No second look at these makes sense.
_FINAL: Final = frozenset({"too_large", "address_forbidden", "url_invalid"})
#: These may be an error page or a file that is still being written.
_STUBBORN: Final = frozenset({"wrong_type", "truncated", "too_many_pixels", "encoded", "too_many_redirects"})
#: Statuses that say the link is dead: expired signatures are 400 or 403, removed files 404 or 410.
DEAD_STATUSES: Final = frozenset({400, 401, 403, 404, 410, 451})


@dataclass(frozen=True, slots=True)
class Missed:
    """A try that brought nothing.

    Args:
        reason: A word.
        dead: The host says that the link is dead.
        retry_after_s: What it asked for.
        final: A further try would bring the same.
    """

    reason: str
    dead: bool = False
    retry_after_s: float | None = None
    final: bool = False


@dataclass(frozen=True, slots=True)
class Next:
    """What follows: another try at `due_at`, or none any more, and then `error` says why."""

    due_at: int | None
    error: str | None = None


def counted(missed: Missed, tries: int, refused: int) -> tuple[int, int]:
    """Both counts with this failure: of the host's, and of those in a row in which it refused the file.

    A failure of our own storage says nothing about the host, and changes neither.
    """
    if missed.reason == STORAGE:
        return tries, refused
    return tries + 1, refused + 1 if missed.dead or missed.reason in _STUBBORN else 0


def after(  # noqa: PLR0917 - the row's own figures, in the row's order
    missed: Missed,
    tries: int,
    refused: int,
    now_ms: int,
    ends_ms: int,
    randomness: Randomness,
) -> Next:
    """Decide after a try.

    Args:
        missed: What happened.
        tries: So many failed so far, this one included; see `counted`.
        refused: So many of the last ones in a row said that the link is dead, or brought a wrong file.
        now_ms: The time.
        ends_ms: When the link dies or the result expires.
        randomness: For the jitter.
    """
    if missed.final or missed.reason in _FINAL or (missed.reason in _STUBBORN and refused >= REFUSED_TRIES):
        return Next(None, missed.reason)
    if missed.dead and refused >= (2 if missed.reason == "http_410" else REFUSED_TRIES):
        return Next(None, GONE)
    waits_s = (STORAGE_WAIT_S,) if missed.reason == STORAGE else WAITS_S
    wait_s = jittered(waits_s[min(max(tries, 1), len(waits_s)) - 1], randomness)
    asked_s = None if missed.retry_after_s is None else min(missed.retry_after_s, LONGEST_ASKED_S)
    due_at = now_ms + round(honouring(wait_s, asked_s) * 1000)
    if due_at < ends_ms:
        return Next(due_at)
    if now_ms < ends_ms - 2 * LAST_MOMENT_MS:
        return Next(ends_ms - LAST_MOMENT_MS)
    return Next(None, missed.reason if missed.reason in _STUBBORN | {STORAGE} else GONE)
