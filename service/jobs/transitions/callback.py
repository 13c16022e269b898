"""What follows from callbacks.

A callback is a hint, and only asking the provider gives a fact, unless the callback is evidence by itself.
"""

from __future__ import annotations

import msgspec

from service.jobs.transitions import observed
from service.jobs.transitions.draft import Draft
from service.jobs.transitions.facts import CallbackHeard
from service.polling.pace import Rules
from service.providers.mapping import Observation, Seen
from service.states import JobStatus, ResolvedBy, Source

#: Timeline rows for callbacks of one job; further ones are counted only, so that nobody can flood a timeline.
NOTED_CALLBACKS = 100


class WaitingCallback(msgspec.Struct, frozen=True):
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
            job.waiting = msgspec.json.encode(
                WaitingCallback(observation, fact.evidence, fact.at_ms, fact.adoptable)
            ).decode()
        return True
    return follow(draft, fact, rules)


def _says_more(observation: Observation, waiting: str) -> bool:
    """Whether a callback tells more than the one that waits for the submit's answer: an end, or the task's id."""
    if observation.seen in {Seen.COMPLETED, Seen.FAILED, Seen.CANCELLED}:
        return True
    known = msgspec.json.decode(waiting, type=WaitingCallback).observation
    return observation.task_id is not None and known.task_id is None and known.seen is None


def follow(draft: Draft, fact: CallbackHeard, rules: Rules) -> bool:
    """Take a callback as what it is: evidence, or a reason to ask."""
    job, observation = draft.job, fact.observation
    if fact.submission_id != job.submission_id:
        return observed.contradiction(draft, observation, Source.CALLBACK, verified=fact.evidence, replaced=True)
    if job.status is JobStatus.QUEUED:
        if fact.signed is False or not proves_taken(observation):
            return True  # the job waits for its next try
        _taken_after_all(draft)
    fits = not (job.provider_task_id and observation.task_id and job.provider_task_id != observation.task_id)
    if fact.evidence and fits and observation.seen is not None:
        _adopt(draft, fact, confirmed=True)
        return observed.apply(draft, observation, Source.CALLBACK, ResolvedBy.CALLBACK, rules)
    if job.is_final and job.status is not JobStatus.EXPIRED:
        return observed.contradiction(draft, observation, Source.CALLBACK, verified=False, replaced=False)
    if not fits:
        observed.conflict(draft, observation, Source.CALLBACK, verified=False, reason="the callback names another task")
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
        job.task_confirmed = confirmed
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
