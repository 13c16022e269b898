"""When to ask a provider again: pure functions of what the card says and how old the submission is."""

from __future__ import annotations

from dataclasses import dataclass

SLOWEST_POLL_MS = 3 * 3_600_000  # a job that has been stuck for days is asked for eight times a day
CALLBACK_GROWTH = 4  # with callbacks, the wait is a quarter of the age: the poll is a fallback
POLL_GROWTH = 8  # without, an eighth: the poll is the way
HINT_RETRIES_MS = (1_000, 2_000, 5_000, 15_000)  # after a callback, while the provider still says running
MISSING_RETRY_MS = 15_000  # completed without a file: ask again this often …
MISSING_LIMIT_MS = 300_000  # … for five minutes
FAILURE_FIRST_S = 2.0  # seconds after a poll that failed
FAILURE_CAP_S = 600.0
NOT_SENT_FIRST_S = 1.0  # seconds after a submit that provably never left
NOT_SENT_CAP_S = 300.0
REFUSED_FIRST_S = 2.0  # seconds after a submit that the provider refused for the moment
REFUSED_CAP_S = 300.0
SUBMIT_FAILURE_LIMIT = 3  # documented retryable 5xx in all, then the job fails


@dataclass(frozen=True, slots=True)
class Rules:
    """What deciding needs to know of a provider's operation; waits in ms.

    Args:
        can_poll: The provider can be asked for a task.
        called_back: The submission carried a callback URL, so polling is the fallback.
        not_found_grace_ms: How long after submitting a 404 may be replication lag.
        result_ttl_ms: How long our links to results live.
    """

    can_poll: bool = False
    called_back: bool = False
    fallback_after_ms: int = 60_000
    poll_every_ms: int = 3_000
    typical_ms: int = 120_000
    not_found_grace_ms: int = 60_000
    result_ttl_ms: int = 7 * 86_400_000


def first_poll_ms(rules: Rules) -> int:
    """The wait between the accepted submission and the first poll."""
    return rules.fallback_after_ms if rules.called_back else rules.poll_every_ms


def next_poll_ms(rules: Rules, age_ms: int) -> int:
    """The wait after a poll that found the task still running, `age_ms` after it was submitted."""
    if rules.called_back:
        wait = max(rules.fallback_after_ms - age_ms, age_ms // CALLBACK_GROWTH)
    elif age_ms < rules.typical_ms:
        wait = rules.poll_every_ms
    else:
        wait = age_ms // POLL_GROWTH
    return min(max(wait, rules.poll_every_ms), SLOWEST_POLL_MS)
