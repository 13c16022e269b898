"""The states of a job and the moves between them, as one table; the words are the contract's (section 2)."""

from __future__ import annotations

from enum import StrEnum


class JobStatus(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"  # recorded here, nothing sent yet
    SUBMITTING = "submitting"  # a request to the provider is in flight
    SUBMIT_UNKNOWN = "submit_unknown"  # sent, no answer: the provider may or may not work on it
    RUNNING = "running"  # the provider holds the task
    COMPLETED = "completed"  # final: at least one result URL
    FAILED = "failed"  # final: error.code says why
    CANCELLED = "cancelled"  # final
    EXPIRED = "expired"  # final for us; a verified provider fact that comes later still replaces it, once


class ErrorCode(StrEnum):
    """Why a job failed, in our words."""

    INVALID_INPUT = "invalid_input"
    CONTENT_MODERATED = "content_moderated"
    PROVIDER_AUTH = "provider_auth"
    PROVIDER_FUNDS = "provider_funds"
    PROVIDER_REJECTED = "provider_rejected"
    RATE_LIMITED = "rate_limited"
    PROVIDER_UNAVAILABLE = "provider_unavailable"
    PROVIDER_FAILED = "provider_failed"
    PROVIDER_TIMEOUT = "provider_timeout"
    SUBMIT_UNKNOWN = "submit_unknown"
    EXPIRED = "expired"
    RESULT_MISSING = "result_missing"
    INTERNAL = "internal"


class Source(StrEnum):
    """Who brought a fact."""

    SUBMIT = "submit"
    CALLBACK = "callback"
    POLL = "poll"
    SWEEP = "sweep"
    API = "api"
    DELIVERY = "delivery"


class ResolvedBy(StrEnum):
    """Who told us the end of a job."""

    CALLBACK = "callback"
    POLL = "poll"
    RESPONSE = "response"
    SWEEP = "sweep"
    API = "api"


_S = JobStatus

#: The moves of contract 2; nothing else may happen to a job.
MOVES: dict[JobStatus, frozenset[JobStatus]] = {
    _S.QUEUED: frozenset({_S.SUBMITTING, _S.CANCELLED, _S.FAILED, _S.EXPIRED}),
    _S.SUBMITTING: frozenset({_S.RUNNING, _S.COMPLETED, _S.FAILED, _S.SUBMIT_UNKNOWN, _S.QUEUED}),
    _S.SUBMIT_UNKNOWN: frozenset({_S.RUNNING, _S.COMPLETED, _S.FAILED, _S.EXPIRED, _S.CANCELLED, _S.QUEUED}),
    _S.RUNNING: frozenset({_S.COMPLETED, _S.FAILED, _S.CANCELLED, _S.EXPIRED}),
    _S.COMPLETED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
    _S.EXPIRED: frozenset({_S.COMPLETED, _S.FAILED}),
}

#: What each state means to an outsider; docs/states.md is made of it.
MEANINGS: dict[JobStatus, str] = {
    _S.QUEUED: "recorded here, nothing sent yet",
    _S.SUBMITTING: "a request to the provider is in flight; cut off, timed out or left by a crash it becomes submit_unknown at once",
    _S.SUBMIT_UNKNOWN: "sent, no answer: the provider may or may not work on it; never sent again by itself",
    _S.RUNNING: "the provider holds the task",
    _S.COMPLETED: "final: the provider delivered at least one result",
    _S.FAILED: "final: `error.code` says why",
    _S.CANCELLED: "final",
    _S.EXPIRED: "final for us: nothing decisive was heard before the deadline; a verified fact that comes later replaces it, once",
}

ACTIVE = frozenset({_S.QUEUED, _S.SUBMITTING, _S.SUBMIT_UNKNOWN, _S.RUNNING})
FINAL = frozenset(_S) - ACTIVE

#: The event types that subscribers can name; the timeline has further rows of its own.
EVENT_TYPES = (
    "job.submitted",
    "job.running",
    "job.completed",
    "job.failed",
    "job.cancelled",
    "job.expired",
    "job.submit_unknown",
    "job.overdue",
    "result.stored",
    "result.expiring",
    "result.expired",
    "subscription.disabled",
    "ping",
)

#: What a destination gets that names no types.
FINAL_EVENT_TYPES = ("job.completed", "job.failed", "job.cancelled", "job.expired")


def may_move(old: JobStatus, new: JobStatus) -> bool:
    """Whether the table allows this move."""
    return new in MOVES[old]
