"""Subscriptions: what may be asked of a destination, and how it fares (contract 3)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, ClassVar, Final, Literal, NotRequired

import msgspec
from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from typing_extensions import TypedDict

from service.notation import duration
from service.schemas.request_model import RequestModel
from service.schemas.values import (
    WORDS,
    Encoded,
    EventTypes,
    OneOf,
    Secret,
    StringList,
    Time,
    Words,
    fault,
    said,
)
from service.schemas.words import SIGNATURES
from service.signing import decode_secret, encode_secret

MAX_HEADERS: Final = 20  # of a subscription
MAX_HEADER_NAME: Final = 100  # characters
MAX_HEADER_VALUE: Final = 2_048  # characters
DEFAULT_IN_FLIGHT: Final = 10  # requests at once to a subscription
MAX_WAITS: Final = 50  # entries of a schedule
WAIT_S: Final = (0.1, 7 * 86_400.0)  # seconds of one of them
DEFAULT_GRACE_S: Final = 86_400  # seconds for which a secret that was replaced still signs
_A_WAIT: Final = f"seconds from {WAIT_S[0]:g} to {WAIT_S[1]:g}, or a duration such as 30s, 5m, 7d"

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
#: Ours, or the connection's own: a subscription's headers may never stand in for them.
_RESERVED_HEADERS: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "date",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)
_RESERVED_PREFIXES: Final = ("webhook-", "content-", "proxy-")


def _header_name(name: str) -> str:
    if len(name) > MAX_HEADER_NAME or not _HEADER_NAME.fullmatch(name):
        raise fault(f"is no header name: use 1 to {MAX_HEADER_NAME} letters, digits and -")
    if name.lower() in _RESERVED_HEADERS or name.lower().startswith(_RESERVED_PREFIXES):
        raise fault("is set by us or by the connection; choose another name, such as X-…")
    return name


def _header_value(value: object) -> str:
    """The value is not repeated in a fault, since it may be a secret."""
    if not isinstance(value, str) or len(value) > MAX_HEADER_VALUE or not _HEADER_VALUE.fullmatch(value):
        raise fault(
            f"must be 1 to {MAX_HEADER_VALUE} visible ASCII characters; answers show values as …, which cannot be sent back"
        )
    return value


def _no_twins(headers: dict[str, str]) -> dict[str, str]:
    seen: set[str] = set()
    for name in headers:
        if name.lower() in seen:
            raise fault("is named twice, in other case", at=name)
        seen.add(name.lower())
    return headers


def _wait(value: object) -> float:
    """Seconds."""
    seconds: float | None = None
    if isinstance(value, str):
        try:
            seconds = duration(value) / timedelta(seconds=1)
        except ValueError:
            seconds = None
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    low, high = WAIT_S
    if seconds is None or not low <= seconds <= high:
        raise fault(f"must be {_A_WAIT}")
    return seconds


def _secret(value: object) -> str:
    if not isinstance(value, str):
        raise fault("must be a string: whsec_ and base64; leave it out to have one made")
    try:
        return encode_secret(decode_secret(value))  # with padding, which some libraries need
    except ValueError as error:
        raise fault(f"{error}; leave it out to have one made") from error


def _with_v1(named: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(each for each in SIGNATURES if each == "v1" or each in named)


Headers = Annotated[
    dict[
        Annotated[str, AfterValidator(_header_name)],
        Annotated[str, BeforeValidator(_header_value)],
    ],
    said(f"an object of at most {MAX_HEADERS} header names and their values", max_length=MAX_HEADERS),
    AfterValidator(_no_twins),
]
Url = Annotated[str, Field(min_length=1, max_length=2_048, json_schema_extra={"format": "uri"})]
Schedule = Annotated[
    tuple[
        Annotated[float, BeforeValidator(_wait), WithJsonSchema({"type": ["number", "string"], WORDS: _A_WAIT})], ...
    ],
    said(f"a list of at most {MAX_WAITS} waits, or null for the service's own", max_length=MAX_WAITS, strict=False),
]
Signatures = Annotated[
    tuple[Annotated[str, OneOf(SIGNATURES)], ...],
    Field(min_length=1, max_length=50, strict=False),
    AfterValidator(_with_v1),
]


OwnSecret = Annotated[str, BeforeValidator(_secret), WithJsonSchema({"type": "string", "pattern": "^whsec_"})]


class SubscriptionChangeRequest(RequestModel):
    """What may be changed of a subscription: what is left out stays, and null brings the default back."""

    NOT_HERE: ClassVar[Mapping[str, str]] = {
        "id": "is given by us; leave it out",
        "created_at": "is given by us; leave it out",
        "health": "is measured by us; leave it out",
        "status": "cannot be set here; POST /v1/subscriptions/{id}/enable and /disable do that, DELETE ends",
        "disabled_reason": "cannot be set; leave it out",
        "secret": "cannot be changed here; use POST /v1/subscriptions/{id}/rotate-secret",
        "public_key": "is made by us where signatures name v1a; leave it out",
        "previous_public_key": "is shown by us during a rotation; leave it out",
        "previous_secret_until": "is shown by us during a rotation; leave it out",
    }
    NEEDED = True
    UNKNOWN_CODE = None  # as callers of this route know it

    url: Annotated[Url, said("a string of 1 to 2048 characters; it cannot be taken away")] = ""
    """Where events are sent."""
    description: Annotated[str, Field(min_length=0, max_length=500)] | None = None
    events: EventTypes | None = None
    """Empty: the final events."""
    providers: Words | None = None
    """Names of cards, also of those that are still to come; empty: all."""
    operations: Words | None = None
    """Empty: all."""
    tags: Words | None = None
    """Jobs with any of these; empty: all."""
    headers: Annotated[Headers | None, Field(repr=False)] = None
    """Sent along; answers show their names only."""
    rate_per_s: Annotated[float, said("a number from 0.1 to 1000, or null for no limit", ge=0.1, le=1_000)] | None = (
        None
    )
    """Requests a second at most; null: no limit."""
    max_in_flight: Annotated[int, Field(ge=1, le=1_000)] | None = None
    """Requests at once; 10 unless it is given."""
    schedule: Schedule | None = None
    """Waits between tries, in seconds or as `30s`, `5m`, `7d`; empty: one try and no more; null: the service's."""
    signatures: Signatures | None = None
    """`v1` (HMAC-SHA256) is always sent, named or not; `v1a` adds Ed25519, verified with `public_key`."""
    stop_at_expiry: bool | None = None
    """Send nothing after the event's results have expired."""


class SubscriptionRequest(SubscriptionChangeRequest):
    """A new subscription."""

    url: Annotated[Url, said("a string of 1 to 2048 characters, the address that events are sent to")]
    """Where events are sent."""
    secret: Annotated[OwnSecret | None, Field(repr=False)] = None
    """Your own; without it one is made."""


class RotateSecretRequest(RequestModel):
    """How a secret is to be replaced."""

    UNKNOWN_CODE = None  # as callers of this route know it

    grace_s: Annotated[int, said("a whole number of seconds from 0 to 604800", ge=0, le=604_800)] = DEFAULT_GRACE_S
    """For so long the previous secret co-signs."""


class DisableRequest(RequestModel):
    """Why a subscription is disabled."""

    UNKNOWN_CODE = None  # as callers of this route know it

    reason: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Shown as `disabled_reason`."""


class LatencyView(TypedDict):
    """How long answers took in the last hour, whatever they were, in milliseconds; null without answers."""

    p50: int | None
    p95: int | None


class SubscriptionHealthView(TypedDict):
    """How a destination fares."""

    last_success_at: Time | None
    last_failure_at: Time | None
    failing_since: Time | None
    backlog: Annotated[int, Field(ge=0, le=10_000)]
    """Deliveries that wait to be sent."""
    backlog_capped: bool
    """There may be more of them; the rest is not counted."""
    oldest_due_at: Time | None
    """Since when the oldest delivery that is due has been due; null if nothing is."""
    in_flight: Annotated[int, Field(ge=0)]
    """Requests that are out."""
    attempts_1h: Annotated[int, Field(ge=0)]
    """In the last hour, or since the service was started."""
    success_rate_1h: Annotated[float, Field(ge=0, le=1)] | None
    """Null without attempts."""
    latency_ms: LatencyView
    breaker: Annotated[str, Encoded({"type": "string", "enum": ["closed", "open", "probing"]})]
    """`open`: it keeps failing and is left alone, but for a try now and then; `probing`: a try is due or out."""
    next_probe_at: Time | None


class SubscriptionView(TypedDict):
    """A standing destination with its health."""

    id: Annotated[str, Field(pattern="^sub_")]
    url: Annotated[str, Field(json_schema_extra={"format": "uri"})]
    description: str
    events: StringList
    providers: StringList
    operations: StringList
    tags: StringList
    headers: dict[str, str]
    """Names only; the values are masked."""
    rate_per_s: float | None
    max_in_flight: int
    schedule: Annotated[msgspec.Raw | None, Encoded({"type": ["array", "null"], "items": {"type": "number"}})]
    signatures: Annotated[
        msgspec.Raw, Encoded({"type": "array", "items": {"type": "string", "enum": list(SIGNATURES)}})
    ]
    stop_at_expiry: bool
    public_key: Annotated[str, Field(pattern="^whpk_")] | None
    """Verifies `v1a`; null without it."""
    previous_public_key: Annotated[str, Field(pattern="^whpk_")] | None
    """The old one, until a rotation's grace is over."""
    previous_secret_until: Time | None
    """The end of a rotation's grace, in which the old secret and key co-sign; null without one."""
    status: Literal["enabled", "disabled"]
    disabled_reason: str | None
    health: SubscriptionHealthView
    created_at: Time


class SubscriptionWithSecretView(SubscriptionView):
    """A subscription and its secret, which is shown this once."""

    secret: Secret


class ChangedSubscriptionView(SubscriptionView):
    """A subscription after a change."""

    dropped_headers: NotRequired[list[str]]
    """Names of the headers that went with the old origin, where some did."""


class SubscriptionPage(TypedDict):
    """A page of subscriptions."""

    data: list[SubscriptionView]
    next_cursor: str | None
