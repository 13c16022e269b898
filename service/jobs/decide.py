"""What follows from a fact: pure decisions on a draft, no store and no network.

The state machine of contract 2 lives here and in `states.MOVES`; whoever brings a fact, it ends here.
"""

from __future__ import annotations

import msgspec

from service.backoff import exponential, honouring
from service.errors import Conflict, NotFound, Problem
from service.jobs import observe, pace
from service.jobs.draft import Draft
from service.jobs.facts import (
    CallbackHeard,
    CancelAsked,
    CannotAsk,
    DeadlinePassed,
    Fact,
    OverdueNoticed,
    Polled,
    ResubmitAsked,
    SubmitAbandoned,
    SubmitAnswered,
    SubmitBegun,
    SubmitImpossible,
)
from service.jobs.pace import Rules
from service.providers.client import PollVerdict, SubmitOutcome, Verdict
from service.providers.mapping import Observation, Seen
from service.states import ErrorCode, JobStatus, ResolvedBy, Source

#: Timeline rows for callbacks of one job; further ones are counted only, so that nobody can flood a timeline.
NOTED_CALLBACKS = 100

#: None: the fact was taken. A Problem: the caller is told. False: the fact came too late to matter.
Answer = Problem | bool


class Waiting(msgspec.Struct, frozen=True):
    """A callback that came while the submit's answer was still out."""

    observation: Observation
    evidence: bool
    adoptable: bool


def decide(draft: Draft, fact: Fact, rules: Rules) -> Answer:
    """Change the draft by what follows from the fact.

    Returns:
        True: something followed. False: the fact came too late or repeats what is known. A Problem: it is refused.
    """
    match fact:
        case SubmitBegun():
            return _begin(draft, fact)
        case SubmitAnswered():
            return _answered(draft, fact, rules)
        case SubmitAbandoned():
            return _abandoned(draft, fact, rules)
        case SubmitImpossible():
            return _impossible(draft, fact)
        case CallbackHeard():
            return _heard(draft, fact, rules)
        case Polled():
            return _polled(draft, fact, rules)
        case CannotAsk():
            return _cannot_ask(draft, fact)
        case CancelAsked():
            return _cancel(draft, fact)
        case ResubmitAsked():
            return _resubmit(draft, fact)
        case DeadlinePassed():
            return _deadline(draft)
        case OverdueNoticed():
            return _overdue(draft)


# -- submitting ------------------------------------------------------------------------------------------------------


def _begin(draft: Draft, fact: SubmitBegun) -> bool:
    job = draft.job
    if job.status is not JobStatus.QUEUED or job.lease_epoch != fact.epoch or job.expires_at <= draft.now_ms:
        return False
    owner = job.lease_owner
    job.submission_id = fact.submission_id
    job.submit_tries += 1
    job.provider_task_id = None
    job.task_confirmed = 1
    draft.new_submission = {
        "id": fact.submission_id,
        "job_id": job.id,
        "provider": job.provider,
        "token_hash": fact.token_hash,
        "created_at": draft.now_ms,
    }
    draft.move(JobStatus.SUBMITTING)
    draft.note("job.submitting", Source.SUBMIT, {"try": job.submit_tries, "submission_id": fact.submission_id})
    # The lease outlasts the provider's deadline; should it lapse all the same, whoever held it is gone.
    job.due_at = job.lease_until = draft.now_ms + fact.lease_ms
    job.lease_owner = owner
    return True


def _answered(draft: Draft, fact: SubmitAnswered, rules: Rules) -> bool:
    job, outcome = draft.job, fact.outcome
    _close_submission(draft, fact.submission_id, outcome)
    if fact.submission_id != job.submission_id or job.status not in {JobStatus.SUBMITTING, JobStatus.SUBMIT_UNKNOWN}:
        return _answered_late(draft, fact, rules)
    waiting = msgspec.json.decode(job.waiting, type=Waiting) if job.waiting else None
    job.waiting = None
    if outcome.verdict is Verdict.ACCEPTED:
        _accepted(draft, outcome, rules)
    elif outcome.verdict is Verdict.UNKNOWN or waiting is not None:
        # A callback with this submission's token proves that the provider took what it seems to have refused.
        _unknown(draft, outcome.message or "the provider's answer never came", outcome)
    elif outcome.verdict is Verdict.REJECTED or job.status is JobStatus.SUBMIT_UNKNOWN:
        _rejected(draft, outcome, outcome.error_code or ErrorCode.PROVIDER_REJECTED)
    else:
        _try_again(draft, fact)
    if waiting is not None:
        heard = CallbackHeard(job.id, fact.submission_id, waiting.observation, waiting.evidence, waiting.adoptable)
        _follow_callback(draft, heard, rules)
    return True


def _answered_late(draft: Draft, fact: SubmitAnswered, rules: Rules) -> bool:
    """An answer for a job that has moved on: a paid completion is still a fact, anything else is history."""
    observation = fact.outcome.observation
    if fact.outcome.verdict is not Verdict.ACCEPTED or observation is None:
        return False
    if fact.submission_id != draft.job.submission_id:
        observe.conflict(
            draft, observation, Source.SUBMIT, verified=True, reason="another submission replaced this one"
        )
        return True
    if draft.job.provider_task_id is None and observation.task_id:
        draft.job.provider_task_id = observation.task_id
        draft.job.task_confirmed = 1
    return observe.apply(draft, observation, Source.SUBMIT, ResolvedBy.RESPONSE, rules)


def _close_submission(draft: Draft, submission_id: str, outcome: SubmitOutcome) -> None:
    draft.submissions.append(
        {
            "id": submission_id,
            "outcome": outcome.verdict.value,
            "provider_task_id": outcome.observation.task_id if outcome.observation else None,
            "http_status": outcome.http_status,
            "answered_at": draft.now_ms,
        }
    )


def _accepted(draft: Draft, outcome: SubmitOutcome, rules: Rules) -> None:
    job = draft.job
    observation = outcome.observation or Observation(seen=None)
    job.provider_task_id = observation.task_id or job.provider_task_id
    job.task_confirmed = 1
    job.provider_status = observation.provider_status
    job.poll_url = observation.poll_url
    job.submitted_at = draft.now_ms
    job.submit_failures = 0
    if job.cost_estimated is None and observation.cost is not None:
        job.cost_raw, job.cost_basis = observation.cost.raw, observation.cost.basis
    draft.announce(
        "job.submitted", Source.SUBMIT, {"provider_task_id": job.provider_task_id, "duration_ms": outcome.duration_ms}
    )
    if observation.seen in {Seen.COMPLETED, Seen.FAILED, Seen.CANCELLED}:
        observe.apply(draft, observation, Source.SUBMIT, ResolvedBy.RESPONSE, rules)
        return
    observe.start_running(draft, Source.SUBMIT)
    draft.wake_at(observe.wake_up(draft, rules, pace.first_poll_ms(rules)))


def _unknown(draft: Draft, message: str, outcome: SubmitOutcome | None) -> None:
    if draft.job.status is JobStatus.SUBMIT_UNKNOWN:
        return
    draft.move(JobStatus.SUBMIT_UNKNOWN)
    draft.wake_at(draft.job.expires_at)
    detail = {"reason": message, "http_status": outcome.http_status if outcome else None}
    draft.announce("job.submit_unknown", Source.SUBMIT, detail)


def _rejected(draft: Draft, outcome: SubmitOutcome, code: ErrorCode) -> None:
    draft.job.error_code = code.value
    draft.job.error_message = outcome.message
    draft.finish(JobStatus.FAILED, Source.SUBMIT, ResolvedBy.RESPONSE, {"http_status": outcome.http_status})


def _try_again(draft: Draft, fact: SubmitAnswered) -> None:
    """Refused for the moment, or never sent: back to the queue, or the end when a broken provider had its three tries."""
    job, outcome = draft.job, fact.outcome
    if outcome.verdict is Verdict.REFUSED and outcome.error_code is not ErrorCode.RATE_LIMITED:
        job.submit_failures += 1
        if job.submit_failures >= pace.SUBMIT_FAILURE_LIMIT:
            _rejected(draft, outcome, ErrorCode.PROVIDER_UNAVAILABLE)
            return
    if outcome.verdict is Verdict.NOT_SENT:
        wait_s = exponential(job.submit_tries, first_s=pace.NOT_SENT_FIRST_S, cap_s=pace.NOT_SENT_CAP_S)
    else:
        wait_s = exponential(job.submit_tries, first_s=pace.REFUSED_FIRST_S, cap_s=pace.REFUSED_CAP_S)
    wait_s = honouring(wait_s * fact.spread, outcome.retry_after_s)
    draft.move(JobStatus.QUEUED)
    detail = {"reason": outcome.message, "http_status": outcome.http_status, "retry_in_s": round(wait_s, 3)}
    draft.note(f"submit.{outcome.verdict.value}", Source.SUBMIT, detail)
    draft.wake_at(draft.now_ms + round(wait_s * 1000))


def _abandoned(draft: Draft, fact: SubmitAbandoned, rules: Rules) -> bool:
    job = draft.job
    if job.status is not JobStatus.SUBMITTING or job.submission_id != fact.submission_id:
        return False
    outcome = SubmitOutcome(Verdict.UNKNOWN, message="the service stopped while the request was in flight")
    return _answered(draft, SubmitAnswered(job.id, job.submission_id or "", job.lease_epoch, outcome), rules)


def _impossible(draft: Draft, fact: SubmitImpossible) -> bool:
    if draft.job.status is not JobStatus.QUEUED or draft.job.lease_epoch != fact.epoch:
        return False
    draft.job.error_code = fact.code.value
    draft.job.error_message = fact.message
    draft.finish(JobStatus.FAILED, Source.SUBMIT, ResolvedBy.SWEEP)
    return True


# -- hearing and asking ----------------------------------------------------------------------------------------------


def _heard(draft: Draft, fact: CallbackHeard, rules: Rules) -> bool:
    job, observation = draft.job, fact.observation
    job.callbacks += 1
    if job.callbacks <= NOTED_CALLBACKS:
        detail = {
            "says": observation.seen.value if observation.seen else "unreadable",
            "provider_task_id": observation.task_id,
            "evidence": fact.evidence,
        }
        draft.note("callback.received", Source.CALLBACK, detail)
    if fact.submission_id == job.submission_id and job.status is JobStatus.SUBMITTING:
        if job.waiting is None or observation.seen in {Seen.COMPLETED, Seen.FAILED, Seen.CANCELLED}:
            job.waiting = msgspec.json.encode(Waiting(observation, fact.evidence, fact.adoptable)).decode()
        return True
    return _follow_callback(draft, fact, rules)


def _follow_callback(draft: Draft, fact: CallbackHeard, rules: Rules) -> bool:
    job, observation = draft.job, fact.observation
    if fact.submission_id != job.submission_id:
        return observe.contradiction(draft, observation, Source.CALLBACK, verified=fact.evidence, replaced=True)
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
    return _ask_soon(draft, observation, rules)


def _adopt(draft: Draft, fact: CallbackHeard, *, confirmed: bool) -> None:
    """Take the callback's task id when we have none; without evidence only a fetch confirms it."""
    job, task_id = draft.job, fact.observation.task_id
    if job.provider_task_id is None and task_id and fact.adoptable:
        job.provider_task_id = task_id
        job.task_confirmed = int(confirmed)
        draft.adopted = True


def _ask_soon(draft: Draft, observation: Observation, rules: Rules) -> bool:
    """An unsigned callback is a hint: make one fetch due at once, however many hints come."""
    job = draft.job
    says_nothing_new = observation.seen in {Seen.QUEUED, Seen.RUNNING} and job.status is JobStatus.RUNNING
    if not rules.can_poll or job.provider_task_id is None or says_nothing_new or job.hint is not None:
        return True
    job.hint = Source.CALLBACK.value
    job.hint_tries = 0
    draft.wake_at(draft.now_ms)
    return True


def _polled(draft: Draft, fact: Polled, rules: Rules) -> bool:
    job, outcome = draft.job, fact.outcome
    job.polls += 1
    detail = {
        "verdict": outcome.verdict.value,
        "http_status": outcome.http_status,
        "provider_status": outcome.observation.provider_status if outcome.observation else None,
        "reason": outcome.message,
        "duration_ms": outcome.duration_ms,
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
    resolved_by = ResolvedBy.CALLBACK if job.hint else ResolvedBy.POLL
    observe.apply(draft, observation, Source.POLL, resolved_by, rules)


def _polled_not_found(draft: Draft, fact: Polled, rules: Rules) -> None:
    """404: replication lag at first, then the provider's word that there is no such task."""
    job = draft.job
    job.poll_failures += 1
    if not job.task_confirmed:
        # The id came from an unverified callback and leads nowhere: as if it had never been said.
        job.provider_task_id = None
        job.task_confirmed = 1
        job.hint = None
        return
    lag_is_over = draft.now_ms - (job.submitted_at or job.created_at) > rules.not_found_grace_ms
    if lag_is_over and job.status is JobStatus.RUNNING and job.poll_failures >= pace.SUBMIT_FAILURE_LIMIT:
        job.error_code = ErrorCode.PROVIDER_FAILED.value
        job.error_message = fact.outcome.message or "the provider no longer knows the task"
        draft.finish(JobStatus.FAILED, Source.POLL, ResolvedBy.POLL)


def _plan_next_poll(draft: Draft, fact: Polled, rules: Rules) -> None:
    job = draft.job
    if job.is_final:
        if job.hint and job.hint_tries < len(pace.HINT_RETRIES_MS):  # expired, and a callback said otherwise
            draft.wake_at(draft.now_ms + pace.HINT_RETRIES_MS[job.hint_tries])
            job.hint_tries += 1
        else:
            job.hint = None
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
    elif job.missing_since is not None:
        wait_ms = pace.MISSING_RETRY_MS
    elif job.hint and job.hint_tries < len(pace.HINT_RETRIES_MS):
        wait_ms = pace.HINT_RETRIES_MS[job.hint_tries]
        job.hint_tries += 1
    else:
        job.hint = None
        wait_ms = round(pace.next_poll_ms(rules, age_ms) * fact.spread)
    draft.wake_at(observe.wake_up(draft, rules, wait_ms))


def _cannot_ask(draft: Draft, fact: CannotAsk) -> bool:
    if fact.epoch == draft.job.lease_epoch:
        draft.job.hint = None
        draft.wake_at(draft.job.expires_at if draft.job.is_active else None)
    return False


# -- callers and the clock -------------------------------------------------------------------------------------------


def _cancel(draft: Draft, fact: CancelAsked) -> Answer:
    job = draft.job
    if job.account_id != fact.account_id:
        return NotFound("there is no such job")
    if job.status is JobStatus.CANCELLED:
        return False
    if job.status is JobStatus.QUEUED or (job.status is JobStatus.SUBMIT_UNKNOWN and fact.force):
        draft.finish(JobStatus.CANCELLED, Source.API, ResolvedBy.API, {"force": fact.force})
        return True
    return Conflict(_why_not_cancellable(job.status), code="not_cancellable")


def _why_not_cancellable(status: JobStatus) -> str:
    match status:
        case JobStatus.SUBMIT_UNKNOWN:
            return (
                "the provider may be working on this job and charge for it; to give it up all the same, "
                'send {"force": true}'
            )
        case JobStatus.SUBMITTING | JobStatus.RUNNING:
            return f"the job is {status.value} and its provider has no way to cancel"
        case _:
            return f"the job is already {status.value}"


def _resubmit(draft: Draft, fact: ResubmitAsked) -> Answer:
    job = draft.job
    if job.account_id != fact.account_id:
        return NotFound("there is no such job")
    if job.status is not JobStatus.SUBMIT_UNKNOWN:
        return Conflict(f"the job is {job.status.value}; only a job in submit_unknown gets a further submission")
    draft.submissions.append(
        {
            "id": job.submission_id,
            "outcome": "replaced",
            "provider_task_id": None,
            "http_status": None,
            "answered_at": draft.now_ms,
        }
    )
    job.submission_id = None
    job.provider_task_id = None
    job.task_confirmed = 1
    job.hint = None
    job.submit_failures = 0
    draft.move(JobStatus.QUEUED)
    draft.note("job.resubmitted", Source.API)
    draft.wake_at(draft.now_ms)
    return True


def _deadline(draft: Draft) -> bool:
    job = draft.job
    # A request in flight is let out first: its lease ends soon, and then the job is submit_unknown.
    if not job.is_active or job.status is JobStatus.SUBMITTING or job.expires_at > draft.now_ms:
        return False
    job.error_code = ErrorCode.EXPIRED.value
    job.error_message = f"nothing decisive was heard before the deadline (last state: {job.status.value})"
    draft.finish(JobStatus.EXPIRED, Source.SWEEP, ResolvedBy.SWEEP, {"was": job.status.value})
    return True


def _overdue(draft: Draft) -> bool:
    job = draft.job
    if not job.is_active or job.overdue or job.overdue_at is None or job.overdue_at > draft.now_ms:
        job.overdue_at = None if not job.is_active else job.overdue_at
        return False
    job.overdue = 1
    job.overdue_at = None
    draft.announce("job.overdue", Source.SWEEP)
    return True
