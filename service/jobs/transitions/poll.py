"""What follows from polls: what the provider says when it is asked, and when it is asked next."""

from __future__ import annotations

from service.backoff import exponential, honouring
from service.jobs.transitions import observed
from service.jobs.transitions.draft import Draft
from service.jobs.transitions.facts import CannotAsk, Polled
from service.polling import pace
from service.polling.pace import Rules
from service.providers.client import PollVerdict
from service.providers.mapping import Observation, Seen
from service.states import ErrorCode, JobStatus, ResolvedBy, Source

#: Failed polls in a row that are repeated by their own backoff; afterwards the usual pace is the least.
PATIENT_FAILURES = 8


def polled(draft: Draft, fact: Polled, rules: Rules) -> bool:
    """The provider was asked."""
    job, outcome = draft.job, fact.outcome
    job.polls += 1
    detail = {
        "verdict": outcome.verdict.value,
        "http_status": outcome.http_status,
        "provider_status": outcome.observation.provider_status if outcome.observation else None,
        "reason": outcome.message,
        "duration_ms": outcome.duration_ms,
        **({"head": outcome.head} if outcome.head else {}),
    }
    draft.note("poll.answered", Source.POLL, detail)
    holds_lease = fact.epoch == job.lease_epoch and job.lease_owner is not None
    if fact.submission_id != job.submission_id:
        if outcome.observation is not None:
            observed.contradiction(draft, outcome.observation, Source.POLL, verified=True, replaced=True)
        if holds_lease:
            draft.wake_at(draft.now_ms)
        return True
    before = job.status
    job.not_found_polls = job.not_found_polls + 1 if outcome.verdict is PollVerdict.NOT_FOUND else 0
    if outcome.verdict is PollVerdict.OBSERVED and outcome.observation is not None:
        _polled_observed(draft, outcome.observation, rules)
    elif outcome.verdict is PollVerdict.NOT_FOUND:
        _polled_not_found(draft, fact, rules)
    else:
        job.poll_failures += 1
    if holds_lease and not (job.is_final and job.status is not before):
        _plan_next_poll(draft, fact, rules)
    return True


def _polled_observed(draft: Draft, observation: Observation, rules: Rules) -> None:
    job = draft.job
    job.poll_failures = 0
    if observation.task_id and observation.task_id != job.provider_task_id:
        observed.conflict(draft, observation, Source.POLL, verified=False, reason="the answer is about another task")
        job.poll_failures += 1
        return
    job.task_confirmed = True
    if observation.seen in {Seen.QUEUED, Seen.RUNNING}:
        job.running_at = draft.now_ms
    resolved_by = ResolvedBy.CALLBACK if job.hint_at is not None else ResolvedBy.POLL
    observed.apply(draft, observation, Source.POLL, resolved_by, rules)


def _polled_not_found(draft: Draft, fact: Polled, rules: Rules) -> None:
    """404: replication lag at first, then the provider's word that there is no such task."""
    job = draft.job
    job.poll_failures += 1
    if not job.task_confirmed:
        # The id came from an unverified callback and leads nowhere: as if it had never been said.
        job.provider_task_id = None
        job.task_confirmed = True
        job.hint_at = None
        return
    lag_is_over = draft.now_ms - (job.submitted_at or job.created_at) > rules.not_found_grace_ms
    if lag_is_over and job.status is JobStatus.RUNNING and job.not_found_polls >= pace.NOT_FOUND_LIMIT:
        job.error_code = ErrorCode.PROVIDER_FAILED.value
        job.error_message = fact.outcome.message or "the provider no longer knows the task"
        draft.finish(JobStatus.FAILED, Source.POLL, ResolvedBy.POLL)


def _plan_next_poll(draft: Draft, fact: Polled, rules: Rules) -> None:
    job = draft.job
    if job.is_final:
        if job.hint_at is not None and job.hint_tries < len(
            pace.HINT_RETRIES_MS
        ):  # expired, and a callback said otherwise
            draft.wake_at(draft.now_ms + pace.HINT_RETRIES_MS[job.hint_tries])
            job.hint_tries += 1
        else:
            job.hint_at = None
            draft.wake_at(None)
        return
    age_ms = draft.now_ms - (job.submitted_at or job.created_at)
    if job.provider_task_id is None:
        draft.wake_at(job.expires_at)
        return
    if job.poll_failures:
        failure_s = exponential(job.poll_failures, first_s=pace.FAILURE_FIRST_S, cap_s=pace.FAILURE_CAP_S)
        if fact.outcome.verdict is PollVerdict.DENIED:
            failure_s = pace.FAILURE_CAP_S  # the key is the operator's to mend; asking faster helps nobody
        wait_ms = round(honouring(failure_s * fact.spread, fact.outcome.retry_after_s) * 1000)
        # A job whose polls have failed for days is not asked more often than one that is stuck.
        wait_ms = max(
            wait_ms, pace.next_poll_ms(rules, age_ms, fact.spread) if job.poll_failures > PATIENT_FAILURES else 0
        )
    elif job.missing_since is not None:
        wait_ms = pace.MISSING_RETRY_MS
    elif job.hint_at is not None and job.hint_tries < len(pace.HINT_RETRIES_MS):
        wait_ms = pace.HINT_RETRIES_MS[job.hint_tries]
        job.hint_tries += 1
    else:
        job.hint_at = None
        wait_ms = pace.next_poll_ms(rules, age_ms, fact.spread)
    draft.wake_at(observed.wake_up(draft, rules, wait_ms))


def cannot_ask(draft: Draft, fact: CannotAsk) -> bool:
    """It is time to ask, and there is nobody to ask: wait for the deadline."""
    job = draft.job
    if fact.epoch != job.lease_epoch:
        return False
    job.hint_at = None
    if not job.is_active:
        draft.wake_at(None)
    elif fact.for_ever or job.provider_task_id is None:
        draft.wake_at(job.expires_at)
    else:  # a key or a card that is missing now may be back tomorrow
        draft.wake_at(min(draft.now_ms + pace.CANNOT_ASK_MS, job.expires_at))
    return False
