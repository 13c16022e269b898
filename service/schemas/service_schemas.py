"""What is told of providers and of the service itself, and how a problem is told (contract 3)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from service.schemas.values import Encoded, Money, Time


class FieldErrorView(TypedDict):
    """A field at fault."""

    pointer: str
    """A JSON pointer into the body."""
    detail: str


class ProblemView(TypedDict):
    """What is wrong and what to do about it (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str
    """Stable."""
    detail: str
    errors: NotRequired[list[FieldErrorView]]
    oldest_cursor: NotRequired[str]
    """With `cursor_expired`: where the feed begins now."""
    limit: NotRequired[Annotated[str, Encoded({"type": "string", "enum": ["prepaid", "monthly"]})]]
    """With `insufficient_balance` (402), as are the next five."""
    currency: NotRequired[Literal["USD"]]
    needed: NotRequired[Money]
    """What the job is expected to cost; 0.000001 where nobody knows."""
    available: NotRequired[Money]
    missing: NotRequired[Money]
    resets_at: NotRequired[Time]
    """With `monthly`: when the next month begins."""


class ProviderHealthView(TypedDict):
    """`down`: submissions fail in a row; jobs wait in the queue, and one is tried now and then."""

    status: Literal["up", "down"]
    since: Time | None
    failures_in_a_row: Annotated[int, Field(ge=0)]
    last_error: str | None
    paused_for_s: float | None
    """Seconds for which it gets no submissions, since it answered 429; null: no pause."""


class SubmitRateView(TypedDict):
    """At most so many submissions in so many seconds."""

    count: int
    per_s: float


class ProviderLimitsView(TypedDict):
    """What a provider is asked at most."""

    in_flight: int
    """Tasks that it has not finished."""
    submits: int
    """Requests to submit at once."""
    submit_rate: SubmitRateView | None
    retention_s: float | None


class ProviderLoadView(TypedDict):
    """What it has of us now."""

    tasks: int
    """Tasks that it has not finished."""
    submits: int
    """Requests to submit that are under way."""
    polls: int
    """Polls that are under way."""


class PriceRowView(TypedDict):
    """What an input costs that fits."""

    where: dict[str, Any]
    amount: Money


class PriceView(TypedDict):
    """What an operation costs."""

    currency: Literal["USD"]
    per: str | None
    """The field of the input that multiplies the price."""
    rows: list[PriceRowView]
    failures: Annotated[str, Encoded({"type": "string", "enum": ["free", "assumed_free", "unknown"]})]
    unknown: bool
    """Whether the completion tells the cost of what no row fits."""
    ceiling: Money | None
    """What is held for such a job until it ends. Where this is null, an account with a limit is refused (422, `price_unknown`) what no row fits."""


class OperationView(TypedDict):
    """What a provider can be asked for."""

    title: str
    learns_by: Literal["callback", "poll", "response"]
    """How the end is usually heard of."""
    callback: bool
    poll: bool
    typical_s: float
    overdue_after_s: float | None
    price: PriceView | None
    """Where this is null, an account with a limit cannot use the operation."""
    input_schema: dict[str, Any]
    """JSON Schema 2020-12."""


class ProviderView(TypedDict):
    """A provider card in force."""

    name: str
    title: str
    configured: bool
    reason: str | None
    """Why it is not configured."""
    default_operation: str | None
    verify: Annotated[str, Encoded({"type": "string", "enum": ["fetch", "trust"]})]
    health: ProviderHealthView
    limits: ProviderLimitsView
    load: ProviderLoadView
    operations: dict[str, OperationView]


class ProviderList(TypedDict):
    """All providers, on one page."""

    data: list[ProviderView]
    next_cursor: str | None


class StoredCallback(TypedDict):
    """The callback is stored."""

    ok: Literal[True]


class HealthView(TypedDict):
    """The process answers."""

    status: Literal["ok"]


class DownProviderView(TypedDict):
    """A provider at which submissions fail."""

    since: Time | None
    error: str | None


class ReadinessView(TypedDict):
    """The service can take work."""

    status: Literal["ready"]
    providers_down: dict[str, DownProviderView]
    providers_paused: dict[str, float]
    """Seconds for which providers that refused for the moment get no submissions."""
    clock_offset_s: NotRequired[float]
    """How far the machine's clock is ahead of the time that due work goes by, where that is a second or more: the clock was stepped while the service ran."""


class Welcome(TypedDict):
    """Where things are."""

    service: Literal["remora"]
    version: str
    schema: str
