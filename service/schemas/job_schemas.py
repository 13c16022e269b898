"""Jobs: what is taken, how one looks, its results and its timeline (contract 3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal, NotRequired, Self

import msgspec
from pydantic import AfterValidator, Field, PrivateAttr
from typing_extensions import TypedDict

from service.errors import FieldError
from service.schemas.query_model import PageQuery, QueryModel, WholeNumber
from service.schemas.request_model import RequestModel
from service.schemas.values import (
    REF,
    AnyObject,
    Encoded,
    IdOf,
    Moment,
    Money,
    OneOf,
    StringList,
    StringMap,
    Time,
    said,
    unique,
)
from service.schemas.words import EXPORT_FORMATS, JOB_EVENT_TYPES
from service.states import ErrorCode, JobStatus, ResolvedBy, Source

MAX_ROWS: Final = 10_000_000  # of one export

JobEventType = Annotated[str, OneOf(JOB_EVENT_TYPES)]
Statuses = Annotated[tuple[Annotated[str, OneOf(tuple(JobStatus))], ...], Field(strict=False), AfterValidator(unique)]
Verdict = Literal["passed", "blocked", "skipped", "waiting"]


class JobRequest(RequestModel):
    """A job to be taken."""

    UNKNOWN_CODE = None  # as callers of this route know it

    provider: Annotated[str, Field(min_length=1, max_length=200)]
    """The name of a card."""
    operation: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """May be left out where the card names a default."""
    input: Annotated[dict[str, Any], said("an object with the operation's input")]
    """Checked against the operation's JSON Schema."""
    callback_url: Annotated[str, Field(min_length=1, max_length=2_048, json_schema_extra={"format": "uri"})] | None = (
        None
    )
    """Where the events of this job are sent."""
    callback_events: (
        Annotated[
            tuple[JobEventType, ...],
            said(
                "a list of 1 to 50 event types; leave it out for the final ones",
                min_length=1,
                max_length=50,
                strict=False,
            ),
            AfterValidator(unique),
        ]
        | None
    ) = None
    """Left out: the final events."""
    metadata: (
        Annotated[
            dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=1_024)]],
            said("an object of at most 50 string pairs", max_length=50),
        ]
        | None
    ) = None
    """The caller's own; found with `metadata.<key>=<value>`."""
    tags: (
        Annotated[
            tuple[Annotated[str, Field(min_length=1, max_length=64)], ...],
            said("a list of at most 10 strings", max_length=10, strict=False),
            AfterValidator(unique),
        ]
        | None
    ) = None
    """The caller's own."""
    expires_in_s: Annotated[int, said("a whole number of seconds from 60 to 604800", ge=60, le=604_800)] | None = None
    """After so long without an end the job has expired."""

    _sent: dict[str, Any] = PrivateAttr(default_factory=dict)

    @classmethod
    def read(cls, body: object) -> Self:
        """As any request; the body is kept as it came, since an idempotency key belongs to all of it."""
        request = super().read(body)
        request._sent = body  # type: ignore[assignment]  # noqa: SLF001 - ours; an object, or `read` would have raised
        return request

    @property
    def sent(self) -> dict[str, Any]:
        """The body as it came."""
        return self._sent

    @classmethod
    def faults_between(cls, body: Mapping[str, Any]) -> Iterable[FieldError]:
        """Events need somewhere to go."""
        if body.get("callback_events") is not None and body.get("callback_url") is None:
            yield FieldError("/callback_events", "has no effect without callback_url; add one or leave this out")


class CancelRequest(RequestModel):
    """How a job is to be cancelled."""

    force: bool = False
    """Also where nobody knows whether the provider works on it."""


class JobListQuery(PageQuery):
    """What a list of jobs is narrowed to."""

    PREFIXED = "metadata"

    status: Statuses | None = None
    """One or several, repeated or separated by commas."""
    provider: str | None = None
    operation: str | None = None
    tag: str | None = None
    provider_task_id: str | None = None
    created_after: Moment | None = None
    created_before: Moment | None = None
    metadata: Annotated[dict[str, str], said("there for at most 10 keys", max_length=10)] = Field(default_factory=dict)


class ExportQuery(QueryModel):
    """What an export is narrowed to."""

    format: Annotated[str, OneOf(EXPORT_FORMATS)] = "csv"
    status: Statuses | None = None
    """One or several, repeated or separated by commas."""
    provider: str | None = None
    operation: str | None = None
    tag: str | None = None
    created_after: Moment | None = None
    created_before: Moment | None = None
    after: Annotated[str, IdOf("job")] | None = None
    """The id of a job; the rows behind it."""
    limit: Annotated[int, WholeNumber(1, MAX_ROWS)] = MAX_ROWS
    """Of rows; left out: all."""


class JobErrorView(TypedDict):
    """Why a job failed."""

    code: Annotated[str, Encoded({"type": "string", "enum": list(ErrorCode)})]
    message: str | None


class CostView(TypedDict):
    """What a job costs."""

    currency: Literal["USD"]
    estimated: Money | None
    charged: Money | None
    basis: str


class ModerationView(TypedDict):
    """What moderation made of the input before it was sent; only where the operator has a moderator."""

    verdict: Verdict
    """`skipped`: a moderator did not answer, and the operator lets jobs go on; `waiting`: it is asked again."""
    by: str
    categories: list[str]
    at: Time


class ResultView(TypedDict):
    """One file that a job produced. In an event only `index`, `url` and `expires_at`, and `error` where it is lost already."""

    index: Annotated[int, Field(ge=0)]
    url: Annotated[str, Field(json_schema_extra={"format": "uri"})]
    """A lasting link that works without a key."""
    source_url: NotRequired[str | None]
    """The provider's own link. Null where it gave the picture itself (a `data:` URL), or nothing that is a URL."""
    content_type: NotRequired[str | None]
    size_bytes: NotRequired[int | None]
    sha256: NotRequired[str | None]
    width: NotRequired[int | None]
    """Pixels."""
    height: NotRequired[int | None]
    """Pixels."""
    stored: NotRequired[bool]
    """We have a copy."""
    error: NotRequired[str | None]
    """Why there is no copy, where none will come: result_gone, url_invalid, wrong_type, truncated, too_large …"""
    expires_at: Time


class JobView(TypedDict):
    """A job."""

    id: Annotated[str, Field(pattern="^job_")]
    provider: str
    operation: str
    status: Annotated[str, Encoded({REF: "JobStatus"})]
    provider_task_id: str | None
    provider_status: str | None
    """The provider's own word."""
    resolved_by: Annotated[str | None, Encoded({"type": ["string", "null"], "enum": [*ResolvedBy, None]})]
    """Who told the end."""
    input: AnyObject
    """Strings over 2 KiB are shown as `sha256:… (n bytes)`."""
    metadata: StringMap
    tags: StringList
    results: list[ResultView]
    error: JobErrorView | None
    cost: CostView
    polls: Annotated[int, Field(ge=0)]
    callbacks: Annotated[int, Field(ge=0)]
    created_at: Time
    submitted_at: Time | None
    finished_at: Time | None
    expires_at: Time
    overdue: bool
    retry_of: NotRequired[Annotated[str, Field(pattern="^job_")]]
    """The job that this one does again."""
    erased: NotRequired[Literal[True]]
    """Its prompt, inputs and files were erased."""
    moderation: NotRequired[Annotated[msgspec.Raw, Encoded({REF: "Moderation"})]]


class ExportedJobView(TypedDict):
    """A line of an export; the columns of its CSV have the same names."""

    id: Annotated[str, Field(pattern="^job_")]
    created_at: Time
    submitted_at: Time | None
    finished_at: Time | None
    provider: str
    operation: str
    model: str | None
    status: Annotated[str, Encoded({REF: "JobStatus"})]
    error_code: str | None
    mode: Annotated[str | None, Encoded({"type": ["string", "null"], "enum": [*ResolvedBy, None]})]
    """By what the end was heard."""
    key_id: str | None
    tags: StringList
    metadata: StringMap
    provider_task_id: str | None
    estimated: Money | None
    charged: Money | None
    currency: Literal["USD"]
    basis: str
    polls: Annotated[int, Field(ge=0)]
    callbacks: Annotated[int, Field(ge=0)]
    results: Annotated[int, Field(ge=0)]
    moderation: Verdict | None
    retry_of: str | None


class TimelineRowView(TypedDict):
    """One thing that happened to a job."""

    seq: Annotated[int, Field(ge=1)]
    at: Time
    type: str
    source: Annotated[str, Encoded({"type": "string", "enum": list(Source)})]
    detail: AnyObject


class JobPage(TypedDict):
    """A page of jobs."""

    data: list[JobView]
    next_cursor: str | None


class TimelinePage(TypedDict):
    """A page of a job's timeline."""

    data: list[TimelineRowView]
    next_cursor: str | None
