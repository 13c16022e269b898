"""What follows from what a caller asks of its job: to cancel it, to submit it again, to erase it."""

from __future__ import annotations

from service.errors import Conflict, NotFound
from service.jobs.transitions.draft import Draft
from service.jobs.transitions.facts import (
    Answer,
    CancelAnswered,
    CancelAsked,
    EraseAsked,
    ResubmitAsked,
)
from service.states import JobStatus, ResolvedBy, Source


def cancel(draft: Draft, fact: CancelAsked) -> Answer:
    """The caller wants no result any more: done at once where the provider has nothing of it."""
    job = draft.job
    if job.account_id != fact.account_id:
        return NotFound("there is no such job")
    if job.status is JobStatus.CANCELLED:
        return False
    if job.status is JobStatus.QUEUED or (job.status is JobStatus.SUBMIT_UNKNOWN and fact.force):
        draft.finish(JobStatus.CANCELLED, Source.API, ResolvedBy.API, {"force": fact.force})
        return True
    return Conflict(_why_not_cancellable(job.status), code="not_cancellable")


def cancel_answered(draft: Draft, fact: CancelAnswered) -> Answer:
    """The provider was asked to cancel the task, and said whether it did."""
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


def resubmit(draft: Draft, fact: ResubmitAsked) -> Answer:
    """A further submission of a job of which nobody knows whether the provider took it."""
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
    job.task_confirmed = True
    job.hint_at = None
    job.submit_failures = 0
    job.refusals = None
    draft.move(JobStatus.QUEUED)
    draft.note("job.resubmitted", Source.API)
    draft.wake_at(draft.now_ms)
    return True


def erase(draft: Draft, fact: EraseAsked) -> Answer:
    """What the caller gave and got is to be removed."""
    job = draft.job
    if job.account_id != fact.account_id:
        return NotFound("there is no such job")
    if job.is_active:
        return Conflict(f"the job is {job.status.value}; it can be erased once it is final", code="not_final")
    if job.erased_at is None:
        draft.erase()
    return True  # done again where it was done before: whatever is left of it goes now
