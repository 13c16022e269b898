"""What follows from a fact: pure decisions on a draft, no store and no network.

The state machine of contract 2 lives here and in `states.MOVES`; whoever brings a fact, it ends here.
"""

from __future__ import annotations

from service.errors import Conflict, NotFound, Problem
from service.jobs import hearing, submitting
from service.jobs.draft import Draft
from service.jobs.facts import (
    CallbackHeard,
    CancelAnswered,
    CancelAsked,
    CannotAsk,
    DeadlinePassed,
    EraseAsked,
    Fact,
    ModerationAwaited,
    OverdueNoticed,
    Polled,
    ResubmitAsked,
    ResultHappened,
    SubmitAbandoned,
    SubmitAnswered,
    SubmitBegun,
    SubmitBlocked,
    SubmitImpossible,
    SubmitPostponed,
)
from service.jobs.pace import Rules
from service.states import ErrorCode, JobStatus, ResolvedBy, Source

#: A Problem: the caller is told. False: the fact came too late to matter.
Answer = Problem | bool


def decide(draft: Draft, fact: Fact, rules: Rules) -> Answer:
    """Change the draft by what follows from the fact.

    Returns:
        True: something followed. False: the fact came too late or repeats what is known. A Problem: it is refused.
    """
    match fact:
        case SubmitBegun():
            return submitting.begin(draft, fact, rules)
        case SubmitPostponed():
            return submitting.postponed(draft, fact)
        case SubmitBlocked():
            return submitting.blocked(draft, fact)
        case ModerationAwaited():
            return submitting.awaited(draft, fact)
        case SubmitAnswered():
            return submitting.answered(draft, fact, rules)
        case SubmitAbandoned():
            return submitting.abandoned(draft, fact, rules)
        case SubmitImpossible():
            return submitting.impossible(draft, fact)
        case CallbackHeard():
            return hearing.heard(draft, fact, rules)
        case Polled():
            return hearing.polled(draft, fact, rules)
        case CannotAsk():
            return hearing.cannot_ask(draft, fact)
        case CancelAsked():
            return _cancel(draft, fact)
        case CancelAnswered():
            return _cancel_answered(draft, fact)
        case ResubmitAsked():
            return _resubmit(draft, fact)
        case DeadlinePassed():
            return _deadline(draft)
        case OverdueNoticed():
            return _overdue(draft, rules)
        case ResultHappened():
            return _result(draft, fact)
        case EraseAsked():
            return _erase(draft, fact)


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


def _cancel_answered(draft: Draft, fact: CancelAnswered) -> Answer:
    job = draft.job
    if job.account_id != fact.account_id:
        return NotFound("there is no such job")
    if job.status is JobStatus.CANCELLED:
        return False
    if fact.cancelled and job.status is JobStatus.RUNNING:
        draft.finish(JobStatus.CANCELLED, Source.API, ResolvedBy.API, {"by": "provider"})
        return True
    if job.is_active:
        draft.note("cancel.refused", Source.API, {"reason": fact.reason})
    return True


def _why_not_cancellable(status: JobStatus) -> str:
    match status:
        case JobStatus.SUBMIT_UNKNOWN:
            return (
                "the provider may be working on this job and charge for it; to give it up all the same, "
                'send {"force": true}'
            )
        case JobStatus.SUBMITTING | JobStatus.RUNNING:
            return f"the job is {status.value}, and its provider cannot be asked to cancel it"
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
    job.hint_at = None
    job.submit_failures = 0
    job.refusals = None
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


def _overdue(draft: Draft, rules: Rules) -> bool:
    """The job takes too long, which is announced once. Its task keeps its place at the provider until it does so, too."""
    job = draft.job
    if not job.is_active or job.overdue_at is None or job.overdue_at > draft.now_ms:
        job.overdue_at = None if not job.is_active else job.overdue_at
        return False
    known, job.overdue = job.overdue, 1
    kept_until = submitting.overdue_at(draft, rules)
    job.overdue_at = kept_until if kept_until is not None and kept_until > draft.now_ms else None
    if not known:
        draft.announce("job.overdue", Source.SWEEP)
    return True


def _result(draft: Draft, fact: ResultHappened) -> bool:
    if draft.job.erased_at is not None:
        return False
    if fact.type == "result.lost":
        draft.note(fact.type, Source.SWEEP, {"index": fact.result.idx, "reason": fact.result.error})
    else:
        draft.announce_result(fact.type, fact.result, fact.results)
    return True


def _erase(draft: Draft, fact: EraseAsked) -> Answer:
    job = draft.job
    if job.account_id != fact.account_id:
        return NotFound("there is no such job")
    if job.is_active:
        return Conflict(f"the job is {job.status.value}; it can be erased once it is final", code="not_final")
    if job.erased_at is None:
        draft.erase()
    return True  # done again where it was done before: whatever is left of it goes now
