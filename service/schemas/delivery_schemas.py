"""Deliveries and replays: what may be asked of them, and what became of each try (contract 3)."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from service.schemas.query_model import PageQuery
from service.schemas.request_model import RequestModel
from service.schemas.values import (
    Encoded,
    IdOf,
    Moment,
    OneOf,
    StringList,
    Time,
    said,
    unique,
)
from service.schemas.words import DELIVERY_STATUSES, REPLAYABLE_TYPES, REPLAYED


class ReplayRequest(RequestModel):
    """Which events are to be sent again."""

    UNKNOWN_CODE = None  # as callers of this route know it

    since: Moment
    """The first moment."""
    until: Moment | None = None
    """The moment at which the range is over; left out or in the future, it is now."""
    types: (
        Annotated[
            tuple[Annotated[str, OneOf(REPLAYABLE_TYPES)], ...],
            said(
                f"a list of 1 to {len(REPLAYABLE_TYPES)} of {', '.join(REPLAYABLE_TYPES)}, or leave it out",
                min_length=1,
                max_length=len(REPLAYABLE_TYPES),
                strict=False,
            ),
            AfterValidator(unique),
        ]
        | None
    ) = None
    """Left out: the subscription's own."""
    status: (
        Annotated[
            tuple[Annotated[str, OneOf(REPLAYED)], ...],
            said(
                f"a list of 1 to 4 of {', '.join(REPLAYED)}, or leave it out", min_length=1, max_length=4, strict=False
            ),
            AfterValidator(unique),
        ]
        | None
    ) = None
    """Left out: all four. `missing`: it has no delivery, such as one older than the subscription."""
    dry_run: bool | None = None
    """Only count."""


class ReplayListQuery(PageQuery):
    """What a list of replays is narrowed to."""

    subscription: Annotated[str, IdOf("sub")] | None = None


class DeliveryListQuery(PageQuery):
    """What a list of deliveries is narrowed to."""

    status: (
        Annotated[tuple[Annotated[str, OneOf(DELIVERY_STATUSES)], ...], Field(strict=False), AfterValidator(unique)]
        | None
    ) = None
    """One or several, repeated or separated by commas."""
    subscription: Annotated[str, IdOf("sub")] | None = None
    job: Annotated[str, IdOf("job")] | None = None
    event: Annotated[str, IdOf("evt")] | None = None


class ReplayView(TypedDict):
    """A range of events that are sent again."""

    id: Annotated[str, Field(pattern="^rpl_")]
    subscription_id: Annotated[str, Field(pattern="^sub_")]
    status: Literal["running", "done", "cancelled"]
    """Done when everything is queued; a running one waits while its subscription is disabled or has 1,000 pending."""
    reason: str | None
    """Why it was cancelled: cancelled, subscription_deleted."""
    since: Time
    until: Time
    types: StringList
    """Empty: the subscription's own."""
    statuses: Annotated[list[str], Encoded({"type": "array", "items": {"type": "string", "enum": list(REPLAYED)}})]
    total: int
    """Events in the range when it began, whether they are meant or not."""
    looked_at: int
    """Of those."""
    queued: int
    """Of those, how many are sent again."""
    backlog: int
    """What is pending for the subscription now, of this replay or not."""
    created_at: Time
    finished_at: Time | None


class ReplayCountView(TypedDict):
    """What a replay would do."""

    dry_run: Literal[True]
    count: int
    """Deliveries that a replay would queue now."""
    by_status: dict[str, int]
    subscription_id: Annotated[str, Field(pattern="^sub_")]
    since: Time
    until: Time
    types: StringList
    statuses: StringList


class ReplayPage(TypedDict):
    """A page of replays."""

    data: list[ReplayView]
    next_cursor: str | None


class AttemptTimingView(TypedDict):
    """Parts of the duration in milliseconds; null for what did not happen or did not end. A kept connection has only the last."""

    dns_ms: Annotated[int, Field(ge=0)] | None
    connect_ms: Annotated[int, Field(ge=0)] | None
    tls_ms: Annotated[int, Field(ge=0)] | None
    first_byte_ms: Annotated[int, Field(ge=0)] | None
    """From the beginning to the answer's head."""


class AttemptView(TypedDict):
    """One try of a delivery."""

    at: Time
    status_code: int | None
    error: str | None
    """What went wrong where no answer came."""
    error_class: str | None
    """What went wrong in a stable word, such as dns_not_found, connect_refused, tls_expired, timeout, redirect, rate_limited, gone, http_4xx, http_5xx."""
    duration_ms: Annotated[int, Field(ge=0)]
    timing: AttemptTimingView
    url: str | None
    """Where it went; the subscription's may be another one by now."""
    request_headers: dict[str, str] | None
    """What went along; signatures and the values of the subscription's own headers are masked."""
    response_body: str | None
    """At most 16 KiB, as text."""
    response_truncated: bool
    """The answer was longer than what is kept of it."""


class DeliveryView(TypedDict):
    """One event for one destination."""

    id: Annotated[str, Field(pattern="^dlv_")]
    event_id: Annotated[str, Field(pattern="^evt_")]
    type: str
    job_id: str | None
    subscription_id: str | None
    url: str | None
    status: Annotated[str, Encoded({"type": "string", "enum": list(DELIVERY_STATUSES)})]
    reason: str | None
    """Why it is dead or skipped, in a word."""
    attempt_count: Annotated[int, Field(ge=0)]
    next_attempt_at: Time | None
    created_at: Time
    attempts: NotRequired[list[AttemptView]]
    """The last hundred, oldest first; not in a list."""


class DeliveryPage(TypedDict):
    """A page of deliveries, without their attempts."""

    data: list[DeliveryView]
    next_cursor: str | None
