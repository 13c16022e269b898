"""Events: as they are signed and sent, and as the feed has them (contract 3)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from service.schemas.job_schemas import JobEventType, JobView, ResultView
from service.schemas.query_model import PageQuery, QueryModel
from service.schemas.values import IdOf, OneOf, Time, unique
from service.states import EVENT_TYPES

Some = Annotated[tuple[str, ...], Field(strict=False), AfterValidator(unique)]


class EventFilterQuery(QueryModel):
    """What events are narrowed to; those that are repeated or hold several values, separated by commas, mean any of them."""

    type: (
        Annotated[tuple[Annotated[str, OneOf(EVENT_TYPES)], ...], Field(strict=False), AfterValidator(unique)] | None
    ) = None
    provider: Some | None = None
    operation: Some | None = None
    tag: Some | None = None
    job: Annotated[tuple[Annotated[str, IdOf("job")], ...], Field(strict=False), AfterValidator(unique)] | None = None


class EventListQuery(EventFilterQuery, PageQuery):
    """Which events."""

    begin: Annotated[Literal["oldest", "now"] | None, Field(alias="from")] = None
    """Where to begin without a cursor: at the oldest event that is kept, or behind the newest. Left out: at the oldest."""


class EventStreamQuery(EventFilterQuery):
    """Which events, live."""

    last_event_id: Annotated[str | None, Field(alias="lastEventId")] = None
    """As the header `Last-Event-ID`, for clients that cannot set headers."""
    begin: Annotated[Literal["oldest", "now"] | None, Field(alias="from")] = None
    """Where to begin without an id or a cursor: at the oldest event that is kept, or behind the newest. Left out: behind the newest."""
    cursor: str | None = None
    """A `next_cursor` of `GET /v1/events`."""


class JobEventData(TypedDict):
    """What happened to a job."""

    seq: Annotated[int, Field(ge=1)]
    """Grows within a job."""
    job: JobView
    result: NotRequired[ResultView]
    """Of `result.…` events: the one that they are about."""


class JobEvent(TypedDict):
    """Something happened to a job."""

    type: JobEventType
    timestamp: Time
    data: JobEventData


class Notice(TypedDict):
    """Something that concerns no job."""

    type: str
    timestamp: Time
    data: dict[str, Any]


class FeedEventView(TypedDict):
    """An event of the feed."""

    id: Annotated[str, Field(pattern="^evt_")]
    """The `webhook-id` of the same event."""
    type: str
    timestamp: Time
    data: dict[str, Any]


class EventPage(TypedDict):
    """A page of events."""

    data: list[FeedEventView]
    next_cursor: str
    """Never null: with the last one a page has what happened since."""
