"""What follows when a provider's word about a task is taken as a fact; part of deciding, pure.

Also the rules for contradictions: what is final stays, except `expired`, which is our own verdict and gives way once.
"""

from __future__ import annotations

from service.jobs.transitions.draft import Draft
from service.jobs.view import ERASED, ResultRow
from service.polling import pace
from service.polling.pace import Rules
from service.providers.mapping import Observation, Seen
from service.states import ErrorCode, JobStatus, ResolvedBy, Source

_FINAL_WORDS = {Seen.COMPLETED: JobStatus.COMPLETED, Seen.FAILED: JobStatus.FAILED, Seen.CANCELLED: JobStatus.CANCELLED}
MAX_RESULTS = 100  # files of one job
NOT_A_URL = "url_invalid"  # the error of a result that has no address
TOO_MANY = "too_many"  # why further results are left out


def start_running(draft: Draft, source: Source) -> None:
    """The provider holds the task."""
    if draft.job.status is JobStatus.RUNNING:
        return
    draft.job.submitted_at = draft.job.submitted_at or draft.now_ms
    draft.move(JobStatus.RUNNING)
    draft.announce("job.running", source)


def wake_up(draft: Draft, rules: Rules, wait_ms: int) -> int:
    """When to look again: after the wait, or at the deadline where nobody can be asked."""
    job = draft.job
    if not rules.can_poll or job.provider_task_id is None:
        return job.expires_at
    return min(draft.now_ms + wait_ms, max(job.expires_at, draft.now_ms))


def apply(draft: Draft, observation: Observation, source: Source, resolved_by: ResolvedBy, rules: Rules) -> bool:
    """Take a verified observation of the job's present submission as a fact."""
    job = draft.job
    if job.is_final and (job.status is not JobStatus.EXPIRED or observation.seen not in {Seen.COMPLETED, Seen.FAILED}):
        return contradiction(draft, observation, source, verified=True, replaced=False)
    job.provider_status = observation.provider_status or job.provider_status
    match observation.seen:
        case Seen.COMPLETED if observation.urls:
            _complete(draft, observation, source, resolved_by, rules)
        case Seen.COMPLETED:
            _missing(draft, observation, source, resolved_by, rules)
        case Seen.FAILED:
            _fail(draft, observation, source, resolved_by)
        case Seen.CANCELLED:
            if job.status in {JobStatus.SUBMITTING, JobStatus.SUBMIT_UNKNOWN}:
                start_running(draft, source)
            draft.finish(JobStatus.CANCELLED, source, resolved_by)
        case Seen.QUEUED | Seen.RUNNING:
            _still_running(draft, source, rules)
        case None:
            return False
    return True


def _still_running(draft: Draft, source: Source, rules: Rules) -> None:
    job = draft.job
    job.missing_since = None
    if job.status is not JobStatus.RUNNING:
        start_running(draft, source)
        if source is not Source.POLL:  # a poll's own plan for the next one follows
            draft.wake_at(wake_up(draft, rules, pace.first_poll_ms(rules)))


def _complete(draft: Draft, observation: Observation, source: Source, resolved_by: ResolvedBy, rules: Rules) -> None:
    job = draft.job
    expires_at = draft.now_ms + rules.result_ttl_ms
    urls = observation.results[:MAX_RESULTS]
    if job.erased_at is None:
        draft.results = [
            ResultRow(idx, url or "", expires_at, error=None if url else NOT_A_URL) for idx, url in enumerate(urls)
        ]
    else:  # it expired, and was erased: that it completed, and what it cost, is all that is kept
        draft.results = [ResultRow(idx, "", expires_at, error=ERASED) for idx, _ in enumerate(urls)]
    job.result_count = len(draft.results)
    job.error_code = job.error_message = None
    job.missing_since = None
    job.submitted_at = job.submitted_at or draft.now_ms
    _charge(draft, observation)
    draft.finish(JobStatus.COMPLETED, source, resolved_by)
    _note_lost(draft, observation, source)


def _note_lost(draft: Draft, observation: Observation, source: Source) -> None:
    """Tell on the timeline what of the results nobody will ever have."""
    if not (observation.not_urls or observation.left_out) and len(draft.results) == len(observation.urls):
        return
    for result in draft.results:
        if result.error == NOT_A_URL:
            draft.note("result.lost", source, {"index": result.idx, "reason": NOT_A_URL})
    left_out = observation.left_out + len(observation.results) - len(draft.results)
    if left_out:
        draft.note("result.lost", source, {"reason": TOO_MANY, "count": left_out})


def _charge(draft: Draft, observation: Observation) -> None:
    """Book the cost once: the provider's own figure where it gives one, else what was estimated.

    A zero that a failure was said to cost is no booking: the task turned out to be completed, and will be paid for.
    """
    job = draft.job
    if job.cost_charged is not None and (job.cost_charged or job.status is JobStatus.COMPLETED):
        return
    if observation.cost is not None:
        job.cost_charged = observation.cost.micro_usd
        job.cost_basis = observation.cost.basis
        job.cost_raw = observation.cost.raw
    elif job.cost_estimated is not None:
        job.cost_charged = job.cost_estimated


def _missing(draft: Draft, observation: Observation, source: Source, resolved_by: ResolvedBy, rules: Rules) -> None:
    """Completed without a file is not completed: asked again for five minutes, then failed."""
    job = draft.job
    if job.status is JobStatus.EXPIRED:
        return
    if job.missing_since is None:
        job.missing_since = draft.now_ms
        detail = {"reason": NOT_A_URL, "count": len(observation.not_urls)} if observation.not_urls else None
        draft.note("result.missing", source, detail)
    out_of_time = draft.now_ms - job.missing_since >= pace.MISSING_LIMIT_MS
    if out_of_time or not rules.can_poll or job.provider_task_id is None:
        job.error_code = ErrorCode.RESULT_MISSING.value
        but = ", and gives for files what is no URL" if observation.not_urls else " but gives no file"
        job.error_message = f"the provider reports completion{but}"
        draft.finish(JobStatus.FAILED, source, resolved_by)
        return
    start_running(draft, source)
    if source is not Source.POLL:
        draft.wake_at(wake_up(draft, rules, pace.MISSING_RETRY_MS))


def _fail(draft: Draft, observation: Observation, source: Source, resolved_by: ResolvedBy) -> None:
    job = draft.job
    job.error_code = (observation.error_code or ErrorCode.PROVIDER_FAILED).value
    job.error_message = observation.error_message
    job.missing_since = None
    if observation.cost is not None and not observation.cost.micro_usd:
        _charge(draft, observation)  # zero, and who says so; nothing else is ever booked for a failure
    draft.finish(JobStatus.FAILED, source, resolved_by)


def contradiction(draft: Draft, observation: Observation, source: Source, *, verified: bool, replaced: bool) -> bool:
    """Something was said of a job that is final, or of a submission that another one replaced.

    The same final state heard again changes nothing; another one is recorded, and the cost of a verified completion
    is booked, since the provider will charge it.
    """
    job = draft.job
    if observation.seen not in _FINAL_WORDS or (not replaced and _FINAL_WORDS[observation.seen] is job.status):
        return False
    reason = "another submission replaced this one" if replaced else f"the job is already {job.status.value}"
    conflict(draft, observation, source, verified=verified, reason=reason)
    return True


def conflict(draft: Draft, observation: Observation, source: Source, *, verified: bool, reason: str) -> None:
    """Record a contradiction on the timeline."""
    detail = {
        "verified": verified,
        "says": observation.seen.value if observation.seen else None,
        "provider_task_id": observation.task_id,
        "reason": reason,
    }
    draft.note("job.conflict", source, detail)
    if verified and observation.seen is Seen.COMPLETED and observation.urls:
        _charge(draft, observation)
