"""When to ask a provider again: pure functions of what the card says and how old the submission is."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

from service.polling.plan import BACK_OFF_GROWTH, Schedule, latest_ms

SLOWEST_POLL_MS = 3 * 3_600_000  # a job that has been stuck for days is asked for eight times a day
CALLBACK_GROWTH = 4  # with callbacks, the wait is a quarter of the age: the poll is a fallback
MOST_TYPICAL = 60  # polls through the typical duration, where nothing was learned
HINT_RETRIES_MS = (1_000, 2_000, 5_000, 15_000)  # after a callback, while the provider still says running
MISSING_RETRY_MS = 15_000  # completed without a file: ask again this often …
MISSING_LIMIT_MS = 300_000  # … for five minutes
CANNOT_ASK_MS = 300_000  # until the next look whether a provider whose key or card is missing can be asked again
FAILURE_FIRST_S = 2.0  # seconds after a poll that failed
FAILURE_CAP_S = 600.0  # seconds between polls that fail, at most
NOT_SENT_FIRST_S = 1.0  # seconds after a submit that provably never left
NOT_SENT_CAP_S = 300.0  # seconds between submissions that cannot be sent, at most
REFUSED_FIRST_S = 2.0  # seconds after a submit that the provider refused for the moment
REFUSED_CAP_S = 300.0  # seconds between submissions that are refused, at most
#: 404s in a row, after the grace, that are the provider's word that there is no such task. With the waits between failed polls they
#: take about an hour: a gateway that loses its way for minutes must not cost paid results.
NOT_FOUND_LIMIT = 14
MODERATION_FIRST_S = 2.0  # seconds after a moderator was silent, at least …
MODERATION_GROWTH = 0.25  # … a quarter of the job's age …
MODERATION_CAP_S = 60.0  # … and at most
SUBMIT_FAILURE_LIMIT = 3  # documented retryable 5xx in all, then the job fails


@dataclass(frozen=True, slots=True)
class Rules:
    """What deciding needs to know of a provider's operation; waits in ms.

    Args:
        can_poll: The provider can be asked for a task.
        called_back: The submission carried a callback URL, so polling is the fallback.
        not_found_grace_ms: How long after submitting a 404 may be replication lag.
        result_ttl_ms: How long our links to results live.
        schedule: Learned, for polling without callbacks; None: the card's figures hold.
        late_ms: Learned: before this age a callback is not late, so that asking would be in vain.
        overdue_after_ms: After which a task takes longer than it should; None: never.
    """

    can_poll: bool = False
    called_back: bool = False
    fallback_after_ms: int = 60_000
    poll_every_ms: int = 3_000
    typical_ms: int = 120_000
    not_found_grace_ms: int = 60_000
    result_ttl_ms: int = 7 * 86_400_000
    schedule: Schedule | None = None
    late_ms: int = 0
    overdue_after_ms: int | None = None


def first_poll_ms(rules: Rules) -> int:
    """The wait between the accepted submission and the first poll."""
    if rules.called_back:
        return max(rules.fallback_after_ms, rules.late_ms)
    return rules.schedule.next_wait_ms(0) if rules.schedule else rules.poll_every_ms


def next_poll_ms(rules: Rules, age_ms: int, spread: float = 1.0) -> int:
    """The wait after a poll that found the task still running, `age_ms` after it was submitted.

    Without callbacks it ends by `plan.latest_ms`, or after `SLOWEST_POLL_MS`.

    Args:
        rules: Of the job's operation, with what was learned where anything was.
        age_ms: Since the submission.
        spread: A factor around 1 for waits that many jobs may share. Moments that were planned are left alone: a plan
            is exact, and the jobs' ages are spread by their submissions.
    """
    schedule = rules.schedule
    if rules.called_back:
        wait = max(max(rules.fallback_after_ms, rules.late_ms) - age_ms, age_ms // CALLBACK_GROWTH) * spread
    elif schedule is None:
        wait = min(_unlearned_ms(rules, age_ms) * spread, floor(latest_ms(age_ms, rules.poll_every_ms)) - age_ms)
    elif schedule.covers(age_ms):
        wait = schedule.next_wait_ms(age_ms)
    else:
        wait = schedule.next_wait_ms(age_ms) * spread
    return round(max(min(wait, SLOWEST_POLL_MS), rules.poll_every_ms))


def _unlearned_ms(rules: Rules, age_ms: int) -> int:
    """Through the typical duration at the documented cadence, or slower where that is long, then backing off."""
    if age_ms < rules.typical_ms:
        return max(rules.poll_every_ms, rules.typical_ms // MOST_TYPICAL)
    return age_ms // BACK_OFF_GROWTH
