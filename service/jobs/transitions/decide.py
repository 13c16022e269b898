"""What follows from a fact: pure decisions on a draft, no store and no network.

The state machine of contract 2 lives here and in `states.MOVES`; every fact comes here, from all sources.
"""

from __future__ import annotations

from service.jobs.transitions import callback, caller, poll, submission
from service.jobs.transitions.draft import Draft
from service.jobs.transitions.facts import (
    Answer,
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
from service.polling.pace import Rules
from service.states import ErrorCode, JobStatus, ResolvedBy, Source


def decide(draft: Draft, fact: Fact, rules: Rules) -> Answer:
    """Change the draft by what follows from the fact.

    Returns:
        True: something followed. False: the fact came too late or repeats what is known. A Problem: it is refused.
    """
    match fact:
        case SubmitBegun():
            return submission.begin(draft, fact, rules)
        case SubmitPostponed():
            return submission.postponed(draft, fact)
        case SubmitBlocked():
            return submission.blocked(draft, fact)
        case ModerationAwaited():
            return submission.awaited(draft, fact)
        case SubmitAnswered():
            return submission.answered(draft, fact, rules)
        case SubmitAbandoned():
            return submission.abandoned(draft, fact, rules)
        case SubmitImpossible():
            return submission.impossible(draft, fact)
        case CallbackHeard():
            return callback.heard(draft, fact, rules)
        case Polled():
            return poll.polled(draft, fact, rules)
        case CannotAsk():
            return poll.cannot_ask(draft, fact)
        case CancelAsked():
            return caller.cancel(draft, fact)
        case CancelAnswered():
            return caller.cancel_answered(draft, fact)
        case ResubmitAsked():
            return caller.resubmit(draft, fact)
        case DeadlinePassed():
            return _deadline(draft)
        case OverdueNoticed():
            return _overdue(draft, rules)
        case ResultHappened():
            return _result(draft, fact)
        case EraseAsked():
            return caller.erase(draft, fact)


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
    known, job.overdue = job.overdue, True
    kept_until = submission.overdue_at(draft, rules)
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
