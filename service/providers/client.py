"""What asking a provider comes to: the outcomes of a submission, a poll and a cancel, and the ports between the parts.

`Dialect` is the seam for providers that no card can describe. It must not know cards, nor what becomes of a job.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from service.egress import Answer, Call
from service.providers.mapping import Observation
from service.states import ErrorCode


class Verdict(StrEnum):
    """What became of a submission."""

    ACCEPTED = "accepted"  # the provider holds the task, or has finished it already
    REFUSED = "refused"  # provably not taken, and worth another try
    REJECTED = "rejected"  # provably not taken, for good
    NOT_SENT = "not_sent"  # it never left
    UNKNOWN = "unknown"  # it may have been taken


@dataclass(frozen=True, slots=True)
class SubmitOutcome:
    """What is known after a submission.

    The observation of one that is `UNKNOWN` has at most a task id, which a part of the answer named.
    """

    verdict: Verdict
    observation: Observation | None = None
    error_code: ErrorCode | None = None
    message: str | None = None
    http_status: int | None = None
    retry_after_s: float | None = None
    duration_ms: int = 0
    head: str | None = None  # of an answer that told nothing, for the timeline
    cause: str | None = None  # of an `UNKNOWN` without an HTTP answer: a short stable word, as egress has it


class PollVerdict(StrEnum):
    """What became of a poll."""

    OBSERVED = "observed"  # the provider told the task's state
    NOT_FOUND = "not_found"  # it knows no such task (yet)
    RETRY = "retry"  # nothing was learnt
    DENIED = "denied"  # our key is refused: the operator's to mend


@dataclass(frozen=True, slots=True)
class PollOutcome:
    """What is known after a poll."""

    verdict: PollVerdict
    observation: Observation | None = None
    message: str | None = None
    http_status: int | None = None
    retry_after_s: float | None = None
    duration_ms: int = 0
    head: str | None = None  # see `SubmitOutcome`


class CancelVerdict(StrEnum):
    """What became of the wish to cancel a task."""

    CANCELLED = "cancelled"  # the provider will not go on with it
    TOO_LATE = "too_late"  # it goes on with it, or has finished it
    NOT_FOUND = "not_found"  # it knows no such task
    RETRY = "retry"  # nothing was learnt
    DENIED = "denied"  # our key is refused, or the provider has no cancel


@dataclass(frozen=True, slots=True)
class CancelOutcome:
    """What is known after a cancel; the observation is what its answer says of the task, if anything."""

    verdict: CancelVerdict
    observation: Observation | None = None
    message: str | None = None
    http_status: int | None = None
    retry_after_s: float | None = None
    duration_ms: int = 0


class Outbound(Protocol):
    """The part of `Egress` that a provider is asked through."""

    async def call(self, call: Call, *, timeout_s: float, read_bytes: int, fresh: bool = False) -> Answer:
        """See `Egress`."""


class Dialect(Protocol):
    """Speaks with one provider: by its card, or by code where no card can say it."""

    async def submit(self, operation: str, given: Mapping[str, object], callback_url: str | None) -> SubmitOutcome:
        """Hand a task in."""

    async def poll(self, operation: str, task_id: str, poll_url: str | None) -> PollOutcome:
        """Ask for a task."""

    async def cancel(self, operation: str, task_id: str, cancel_url: str | None) -> CancelOutcome:
        """Cancel a task; asked only where the card has `cancel`."""

    def read_callback(self, operation: str, body: bytes, headers: Mapping[str, str]) -> Observation:
        """What a callback says; garbled: an observation that has seen nothing."""
