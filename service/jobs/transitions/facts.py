"""What can happen to a job: facts, brought by the code that saw them. Plain values; `decide` says what follows from them.

`spread` is a factor around 1, drawn by the code that brings the fact, so that deciding stays pure and waits do not align.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from service.errors import Problem
from service.jobs.view import ResultRow
from service.providers.client import PollOutcome, SubmitOutcome
from service.providers.mapping import Observation
from service.states import ErrorCode


@dataclass(frozen=True, slots=True)
class SubmitBegun:
    """A request to the provider is about to leave; its token exists from now on."""

    job_id: str
    epoch: int
    submission_id: str
    token_hash: bytes
    lease_ms: int
    moderation: str | None = None  # the verdict, where it was asked for just now


@dataclass(frozen=True, slots=True)
class SubmitPostponed:
    """The provider is down: the job goes back to the queue without a try."""

    job_id: str
    epoch: int
    wait_ms: int


@dataclass(frozen=True, slots=True)
class SubmitBlocked:
    """Moderation objects to the input: nothing is ever sent."""

    job_id: str
    epoch: int
    moderation: str
    message: str


@dataclass(frozen=True, slots=True)
class ModerationAwaited:
    """A moderator does not answer, and the job must not go without its verdict; it comes back after a while."""

    job_id: str
    epoch: int
    moderation: str
    reason: str
    spread: float = 1.0


@dataclass(frozen=True, slots=True)
class SubmitAnswered:
    """The request ended, one way or another.

    Args:
        probing: The provider counted as down, and this was the try whether it is back: it does not count against the job.
        pause_s: For how long the provider gets nothing, from any job, since it refused for the moment.
    """

    job_id: str
    submission_id: str
    epoch: int
    outcome: SubmitOutcome
    spread: float = 1.0
    probing: bool = False
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SubmitAbandoned:
    """The process that had the request in flight is gone: a crash, or a lease that ran out."""

    job_id: str
    submission_id: str | None


@dataclass(frozen=True, slots=True)
class SubmitImpossible:
    """The job cannot be sent at all, such as when its provider's card is gone."""

    job_id: str
    epoch: int
    code: ErrorCode
    message: str


@dataclass(frozen=True, slots=True)
class CallbackHeard:
    """A request came to the callback URL of a submission.

    Args:
        evidence: The observation is proof by itself (signature, trust by setting, or no way to ask).
        at_ms: When it came.
        adoptable: No other submission has the task id that the callback names.
        signed: Whether its signature fits; None where the card asks for none.
    """

    job_id: str
    submission_id: str
    observation: Observation
    evidence: bool
    at_ms: int
    adoptable: bool = True
    signed: bool | None = None


@dataclass(frozen=True, slots=True)
class Polled:
    """The provider was asked for the task."""

    job_id: str
    submission_id: str | None
    epoch: int
    outcome: PollOutcome
    spread: float = 1.0


@dataclass(frozen=True, slots=True)
class CannotAsk:
    """The job's time to be asked for came, but nobody can be asked.

    Args:
        for_ever: The card has no way to ask; else its key or the card itself is missing, and may come back.
    """

    job_id: str
    epoch: int
    for_ever: bool


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """A caller wants the job cancelled."""

    job_id: str
    account_id: str
    force: bool


@dataclass(frozen=True, slots=True)
class CancelAnswered:
    """The provider was asked to cancel on a caller's behalf.

    Args:
        cancelled: It did; False: it is too late, `reason` says why.
    """

    job_id: str
    account_id: str
    cancelled: bool
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ResubmitAsked:
    """An operator wants a further submission of a job in `submit_unknown`."""

    job_id: str
    account_id: str


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The clock reached the job's deadline."""

    job_id: str


@dataclass(frozen=True, slots=True)
class OverdueNoticed:
    """The job takes longer than its card says is usual."""

    job_id: str


@dataclass(frozen=True, slots=True)
class ResultHappened:
    """Something became of a result after its job was completed; the job's state stays.

    Args:
        type: `result.stored`, `result.expiring`, `result.expired`; `result.lost` is noted and not sent.
        result: The result as it stands now.
        results: All of the job.
    """

    job_id: str
    type: Literal["result.stored", "result.expiring", "result.expired", "result.lost"]
    result: ResultRow
    results: tuple[ResultRow, ...] = ()


@dataclass(frozen=True, slots=True)
class EraseAsked:
    """A caller wants the job's prompt, inputs and files gone."""

    job_id: str
    account_id: str


Fact = (
    SubmitBegun
    | SubmitPostponed
    | SubmitBlocked
    | ModerationAwaited
    | SubmitAnswered
    | SubmitAbandoned
    | SubmitImpossible
    | CallbackHeard
    | Polled
    | CannotAsk
    | CancelAsked
    | CancelAnswered
    | ResubmitAsked
    | DeadlinePassed
    | OverdueNoticed
    | ResultHappened
    | EraseAsked
)

#: A Problem: the caller is told. False: the fact came too late to matter.
Answer = Problem | bool
