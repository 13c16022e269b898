"""What follows from facts about a submission; part of deciding, pure."""

from __future__ import annotations

import msgspec

from service.backoff import exponential, honouring
from service.clock import iso
from service.jobs.transitions import callback, observed
from service.jobs.transitions.callback import WaitingCallback
from service.jobs.transitions.draft import Draft
from service.jobs.transitions.facts import (
    CallbackHeard,
    ModerationAwaited,
    SubmitAbandoned,
    SubmitAnswered,
    SubmitBegun,
    SubmitBlocked,
    SubmitImpossible,
    SubmitPostponed,
)
from service.polling import pace
from service.polling.pace import Rules
from service.providers.client import SubmitOutcome, Verdict
from service.providers.mapping import Observation, Seen
from service.states import ErrorCode, JobStatus, ResolvedBy, Source


class RefusalCounts(msgspec.Struct):
    """Tries in a row of which the provider took none, by verdict: each verdict has one row on the timeline, with its count.

    A provider may refuse for days. `since_ms` is when the first of them was refused.
    """

    count: int
    since_ms: int


_refusals = msgspec.json.Decoder(dict[str, RefusalCounts])


def begin(draft: Draft, fact: SubmitBegun, rules: Rules) -> bool:
    """The request is about to leave: its submission and token exist from now on."""
    job = draft.job
    if job.status is not JobStatus.QUEUED or job.lease_epoch != fact.epoch or job.expires_at <= draft.now_ms:
        return False
    owner = job.lease_owner
    job.submission_id = fact.submission_id
    job.submit_tries += 1
    job.running_at = None
    job.provider_task_id = None
    job.task_confirmed = True
    draft.new_submission = {
        "id": fact.submission_id,
        "job_id": job.id,
        "provider": job.provider,
        "token_hash": fact.token_hash,
        "created_at": draft.now_ms,
    }
    if fact.moderation is not None:
        _note_verdict(draft, fact.moderation)
    draft.move(JobStatus.SUBMITTING)
    if job.overdue:  # it waited for too long, and was announced: its task has not yet taken any time
        job.overdue_at = overdue_at(draft, rules)
    detail = {"try": job.submit_tries, "submission_id": fact.submission_id}
    draft.note("job.submitting", Source.SUBMIT, detail, repeats=job.refusals is not None)
    # The lease outlasts the provider's deadline; if it lapses all the same, the process that held it is gone.
    job.due_at = job.lease_until = draft.now_ms + fact.lease_ms
    job.lease_owner = owner
    return True


def overdue_at(draft: Draft, rules: Rules) -> int | None:
    """When a task at the provider is overdue, however long its job waited before; None: never, or there is none."""
    job = draft.job
    if rules.overdue_after_ms is None or job.status not in {JobStatus.SUBMITTING, JobStatus.RUNNING}:
        return None
    since = draft.now_ms if job.status is JobStatus.SUBMITTING else job.submitted_at or draft.now_ms
    return since + rules.overdue_after_ms


def postponed(draft: Draft, fact: SubmitPostponed) -> bool:
    """The provider is down: wait in the queue."""
    if draft.job.status is JobStatus.QUEUED and draft.job.lease_epoch == fact.epoch:
        draft.wake_at(draft.now_ms + fact.wait_ms)
    return False


def blocked(draft: Draft, fact: SubmitBlocked) -> bool:
    """Moderation objects: the end, before anything was sent or charged."""
    if draft.job.status is not JobStatus.QUEUED or draft.job.lease_epoch != fact.epoch:
        return False
    _note_verdict(draft, fact.moderation)
    draft.job.error_code = ErrorCode.CONTENT_MODERATED.value
    draft.job.error_message = fact.message
    draft.finish(JobStatus.FAILED, Source.SUBMIT, ResolvedBy.SWEEP)
    return True


def awaited(draft: Draft, fact: ModerationAwaited) -> bool:
    """A moderator is silent: back to the queue, longer each time; told once, not at every try until the deadline."""
    job = draft.job
    if job.status is not JobStatus.QUEUED or job.lease_epoch != fact.epoch:
        return False
    if job.moderation is None:
        _note_verdict(draft, fact.moderation, fact.reason)
    age_s = max(0, draft.now_ms - job.created_at) / 1000
    wait_s = min(max(age_s * pace.MODERATION_GROWTH, pace.MODERATION_FIRST_S), pace.MODERATION_CAP_S) * fact.spread
    draft.wake_at(draft.now_ms + round(wait_s * 1000))
    return True


def _note_verdict(draft: Draft, record: str, reason: str | None = None) -> None:
    draft.job.moderation = record
    verdict = {name: value for name, value in msgspec.json.decode(record).items() if name != "at"}
    draft.note("job.moderated", Source.SUBMIT, verdict | ({"reason": reason} if reason else {}))


def answered(draft: Draft, fact: SubmitAnswered, rules: Rules) -> bool:
    """The request ended: accepted, refused, rejected, never sent, or nobody knows."""
    job, outcome = draft.job, fact.outcome
    _close_submission(draft, fact.submission_id, outcome)
    if fact.submission_id != job.submission_id or job.status not in {JobStatus.SUBMITTING, JobStatus.SUBMIT_UNKNOWN}:
        return _answered_late(draft, fact, rules)
    waiting = msgspec.json.decode(job.waiting, type=WaitingCallback) if job.waiting else None
    job.waiting = None
    refusals, job.refusals = job.refusals, None
    if outcome.verdict is Verdict.ACCEPTED:
        _accepted(draft, outcome, rules)
    elif outcome.verdict is Verdict.UNKNOWN or (waiting is not None and callback.proves_taken(waiting.observation)):
        # A callback with this submission's token proves that the provider took what it seems to have refused.
        _unknown(draft, outcome.message or "the provider's answer never came", outcome, rules)
    elif outcome.verdict is Verdict.REJECTED or job.status is JobStatus.SUBMIT_UNKNOWN:
        _rejected(draft, outcome, outcome.error_code or ErrorCode.PROVIDER_REJECTED)
    else:
        job.refusals = refusals
        _try_again(draft, fact)
    if waiting is not None:
        heard = CallbackHeard(
            job.id, fact.submission_id, waiting.observation, waiting.evidence, waiting.at_ms, waiting.adoptable
        )
        callback.follow(draft, heard, rules)
    return True


def _answered_late(draft: Draft, fact: SubmitAnswered, rules: Rules) -> bool:
    """An answer for a job that has moved on: a paid completion is still a fact, anything else is history."""
    observation = fact.outcome.observation
    if fact.outcome.verdict is not Verdict.ACCEPTED or observation is None:
        return False
    if fact.submission_id != draft.job.submission_id:
        observed.conflict(
            draft, observation, Source.SUBMIT, verified=True, reason="another submission replaced this one"
        )
        return True
    if draft.job.provider_task_id is None and observation.task_id:
        draft.job.provider_task_id = observation.task_id
        draft.job.task_confirmed = True
    return observed.apply(draft, observation, Source.SUBMIT, ResolvedBy.RESPONSE, rules)


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
    job.task_confirmed = True
    job.provider_status = observation.provider_status
    job.poll_url = observation.poll_url
    job.cancel_url = observation.cancel_url
    job.submitted_at = draft.now_ms
    job.submit_failures = 0
    if job.cost_estimated is None and observation.cost is not None:
        job.cost_raw, job.cost_basis = observation.cost.raw, observation.cost.basis
        # No price list knows it: this figure is charged if the completion says none. A zero says only "nothing yet".
        job.cost_estimated = observation.cost.micro_usd or None
    draft.announce(
        "job.submitted", Source.SUBMIT, {"provider_task_id": job.provider_task_id, "duration_ms": outcome.duration_ms}
    )
    if observation.seen in {Seen.COMPLETED, Seen.FAILED, Seen.CANCELLED}:
        observed.apply(draft, observation, Source.SUBMIT, ResolvedBy.RESPONSE, rules)
        return
    observed.start_running(draft, Source.SUBMIT)
    draft.wake_at(observed.wake_up(draft, rules, pace.first_poll_ms(rules)))


def _unknown(draft: Draft, message: str, outcome: SubmitOutcome, rules: Rules) -> None:
    job, named = draft.job, outcome.observation.task_id if outcome.observation else None
    known = job.status is JobStatus.SUBMIT_UNKNOWN
    if named is not None and job.provider_task_id is None:
        # As from a callback that proves nothing: the first poll confirms it, or forgets it.
        job.provider_task_id, job.task_confirmed = named, False
    elif known:
        return
    draft.wake_at(observed.wake_up(draft, rules, pace.first_poll_ms(rules)))
    if known:
        return
    draft.move(JobStatus.SUBMIT_UNKNOWN)
    draft.cause, draft.reason = _cause(outcome), message
    head = {"head": outcome.head} if outcome.head else {}
    detail = {"cause": draft.cause, "reason": message, "http_status": outcome.http_status, **head}
    draft.announce("job.submit_unknown", Source.SUBMIT, detail)


def _cause(outcome: SubmitOutcome) -> str:
    """In a word, why nobody knows: `timeout`, `connection_cut`, `http_502` and so on."""
    if outcome.verdict is not Verdict.UNKNOWN:
        return "called_back"  # the provider refused it, and a callback proves that it was taken
    return outcome.cause or (f"http_{outcome.http_status}" if outcome.http_status else "no_answer")


def _rejected(draft: Draft, outcome: SubmitOutcome, code: ErrorCode) -> None:
    draft.job.error_code = code.value
    draft.job.error_message = outcome.message
    draft.finish(JobStatus.FAILED, Source.SUBMIT, ResolvedBy.RESPONSE, {"http_status": outcome.http_status})


def _try_again(draft: Draft, fact: SubmitAnswered) -> None:
    """Refused for the moment, or never sent: back to the queue, or the end when a broken provider had its three tries."""
    job, outcome = draft.job, fact.outcome
    if outcome.verdict is Verdict.REFUSED and outcome.error_code is not ErrorCode.RATE_LIMITED and not fact.probing:
        job.submit_failures += 1
        if job.submit_failures >= pace.SUBMIT_FAILURE_LIMIT:
            _rejected(draft, outcome, ErrorCode.PROVIDER_UNAVAILABLE)
            return
    draft.move(JobStatus.QUEUED)
    if fact.pause_s and outcome.error_code is ErrorCode.RATE_LIMITED:
        # The provider pauses, not the job: it keeps its place before those that came later.
        wait_s = fact.pause_s
        draft.wake_at(job.created_at)
    else:
        wait_s = _own_wait_s(job.submit_tries, fact)
        draft.wake_at(draft.now_ms + round(wait_s * 1000))
    _note_refusal(draft, outcome, wait_s)


def _own_wait_s(tries: int, fact: SubmitAnswered) -> float:
    if fact.outcome.verdict is Verdict.NOT_SENT:
        wait_s = exponential(tries, first_s=pace.NOT_SENT_FIRST_S, cap_s=pace.NOT_SENT_CAP_S)
    else:
        wait_s = exponential(tries, first_s=pace.REFUSED_FIRST_S, cap_s=pace.REFUSED_CAP_S)
    return honouring(wait_s * fact.spread, fact.outcome.retry_after_s)


def _note_refusal(draft: Draft, outcome: SubmitOutcome, wait_s: float) -> None:
    known = _refusals.decode(draft.job.refusals) if draft.job.refusals else {}
    same = known.setdefault(outcome.verdict.value, RefusalCounts(0, draft.now_ms))
    same.count += 1
    draft.job.refusals = msgspec.json.encode(known).decode()
    detail = {"reason": outcome.message, "http_status": outcome.http_status, "retry_in_s": round(wait_s, 3)}
    if repeats := same.count > 1:
        detail |= {"count": same.count, "since": iso(same.since_ms)}
    draft.note(f"submit.{outcome.verdict.value}", Source.SUBMIT, detail, repeats=repeats)


def abandoned(draft: Draft, fact: SubmitAbandoned, rules: Rules) -> bool:
    """Nobody waits for the answer any more."""
    job = draft.job
    if job.status is not JobStatus.SUBMITTING or job.submission_id != fact.submission_id:
        return False
    outcome = SubmitOutcome(
        Verdict.UNKNOWN, message="the service stopped while the request was in flight", cause="stopped"
    )
    return answered(draft, SubmitAnswered(job.id, job.submission_id or "", job.lease_epoch, outcome), rules)


def impossible(draft: Draft, fact: SubmitImpossible) -> bool:
    """The job cannot be sent at all."""
    if draft.job.status is not JobStatus.QUEUED or draft.job.lease_epoch != fact.epoch:
        return False
    draft.job.error_code = fact.code.value
    draft.job.error_message = fact.message
    draft.finish(JobStatus.FAILED, Source.SUBMIT, ResolvedBy.SWEEP)
    return True
