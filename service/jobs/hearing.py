"""What follows from callbacks and polls; part of deciding, pure.

A callback is a hint and a fetch is a fact, unless the callback is evidence by itself.
"""

from __future__ import annotations

import msgspec

from service.backoff import exponential, honouring
from service.jobs import observe, pace
from service.jobs.draft import Draft
from service.jobs.facts import CallbackHeard, CannotAsk, Polled
from service.jobs.pace import Rules
from service.providers.client import PollVerdict
from service.providers.mapping import Observation, Seen
from service.states import ErrorCode, JobStatus, ResolvedBy, Source

PATIENT_FAILURES = (
    8  # failed polls in a row that are repeated by their own backoff; afterwards the usual pace is the least
)
#: Timeline rows for callbacks of one job; further ones are counted only, so that nobody can flood a timeline.
NOTED_CALLBACKS = 100


class Waiting(msgspec.Struct, frozen=True):
    """A callback that came while the submit's answer was still out."""

    observation: Observation
    evidence: bool
    at_ms: int
    adoptable: bool


def heard(draft: Draft, fact: CallbackHeard, rules: Rules) -> bool:
    """A request came to the callback URL of one of the job's submissions."""
    job, observation = draft.job, fact.observation
    draft.heard_at = draft.heard_at or fact.at_ms
    job.callbacks += 1
    if job.callbacks <= NOTED_CALLBACKS:
        detail = {
            "says": observation.seen.value if observation.seen else "unreadable",
            "provider_task_id": observation.task_id,
            "evidence": fact.evidence,
            "signed": fact.signed,
            **({"reason": f"its body {observation.fault}"} if observation.fault else {}),
        }
        draft.note("callback.received", Source.CALLBACK, detail)
    if fact.submission_id == job.submission_id and job.status is JobStatus.SUBMITTING:
        if fact.signed is False:
            return True  # a forged one proves nothing of what the provider took
        if job.waiting is None or _says_more(observation, job.waiting):
            job.waiting = msgspec.json.encode(Waiting(observation, fact.evidence, fact.at_ms, fact.adoptable)).decode()
        return True
    return follow(draft, fact, rules)


def _says_more(observation: Observation, waiting: str) -> bool:
    """Whether a callback tells more than the one that waits for the submit's answer: an end, or the task's id."""
    if observation.seen in {Seen.COMPLETED, Seen.FAILED, Seen.CANCELLED}:
        return True
    known = msgspec.json.decode(waiting, type=Waiting).observation
    return observation.task_id is not None and known.task_id is None and known.seen is None


def follow(draft: Draft, fact: CallbackHeard, rules: Rules) -> bool:
    """Take a callback as what it is: evidence, or a reason to ask."""
    job, observation = draft.job, fact.observation
    if fact.submission_id != job.submission_id:
        return observe.contradiction(draft, observation, Source.CALLBACK, verified=fact.evidence, replaced=True)
    if job.status is JobStatus.QUEUED:
        if fact.signed is False or not proves_taken(observation):
            return True  # the job waits for its next try
        _taken_after_all(draft)
    fits = not (job.provider_task_id and observation.task_id and job.provider_task_id != observation.task_id)
    if fact.evidence and fits and observation.seen is not None:
        _adopt(draft, fact, confirmed=True)
        return observe.apply(draft, observation, Source.CALLBACK, ResolvedBy.CALLBACK, rules)
    if job.is_final and job.status is not JobStatus.EXPIRED:
        return observe.contradiction(draft, observation, Source.CALLBACK, verified=False, replaced=False)
    if not fits:
        observe.conflict(draft, observation, Source.CALLBACK, verified=False, reason="the callback names another task")
    else:
        _adopt(draft, fact, confirmed=False)
    return _ask_soon(draft, fact, rules)


def proves_taken(observation: Observation) -> bool:
    """Whether a callback about a submission that was refused tells more than the refusal did: that it failed does not."""
    return observation.seen not in {Seen.FAILED, Seen.CANCELLED}


def _taken_after_all(draft: Draft) -> None:
    """The provider seemed to refuse a submission and calls back about it all the same: nothing is sent a second time."""
    draft.job.refusals = None
    draft.move(JobStatus.SUBMITTING)
    draft.move(JobStatus.SUBMIT_UNKNOWN)
    draft.wake_at(draft.job.expires_at)
    reason = "the provider calls back about a request that it had seemed to refuse"
    draft.announce("job.submit_unknown", Source.CALLBACK, {"reason": reason, "http_status": None})


def _adopt(draft: Draft, fact: CallbackHeard, *, confirmed: bool) -> None:
    """Take the callback's task id when we have none; without evidence only a fetch confirms it."""
    job, task_id = draft.job, fact.observation.task_id
    if job.provider_task_id is None and task_id and fact.adoptable:
        job.provider_task_id = task_id
        job.task_confirmed = int(confirmed)
        draft.adopted = True


def _ask_soon(draft: Draft, fact: CallbackHeard, rules: Rules) -> bool:
    """An unsigned callback is a hint: make one fetch due at once, however many hints come while it is under way."""
    job = draft.job
    says_nothing_new = fact.observation.seen in {Seen.QUEUED, Seen.RUNNING} and job.status is JobStatus.RUNNING
    if not rules.can_poll or job.provider_task_id is None or says_nothing_new:
        return True
    under_way = job.lease_owner is not None or (job.due_at is not None and job.due_at <= draft.now_ms)
    if job.hint_at is not None and (under_way or job.callbacks > NOTED_CALLBACKS):
        job.hint_tries = 0  # what is under way may have been answered before this callback: the next look is soon
        return True
    job.hint_at = fact.at_ms
    job.hint_tries = 0
    draft.wake_at(draft.now_ms)
    return True


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
            observe.contradiction(draft, outcome.observation, Source.POLL, verified=True, replaced=True)
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
        observe.conflict(draft, observation, Source.POLL, verified=False, reason="the answer is about another task")
        job.poll_failures += 1
        return
    job.task_confirmed = 1
    if observation.seen in {Seen.QUEUED, Seen.RUNNING}:
        job.running_at = draft.now_ms
    resolved_by = ResolvedBy.CALLBACK if job.hint_at is not None else ResolvedBy.POLL
    observe.apply(draft, observation, Source.POLL, resolved_by, rules)


def _polled_not_found(draft: Draft, fact: Polled, rules: Rules) -> None:
    """404: replication lag at first, then the provider's word that there is no such task."""
    job = draft.job
    job.poll_failures += 1
    if not job.task_confirmed:
        # The id came from an unverified callback and leads nowhere: as if it had never been said.
        job.provider_task_id = None
        job.task_confirmed = 1
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
    draft.wake_at(observe.wake_up(draft, rules, wait_ms))


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
