"""What a caller may send about a subscription, checked field by field; every fault is told with a pointer and a fix."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from typing import Any, Final

from service.errors import MAX_ERRORS, FieldError, Invalid
from service.notation import duration
from service.signing import decode_secret, encode_secret
from service.states import EVENT_TYPES

MAX_URL: Final = 2_048  # characters
MAX_DESCRIPTION: Final = 500  # characters
MAX_REASON: Final = 200  # characters
MAX_FILTERS: Final = 50  # entries of one list
MAX_FILTER: Final = 64  # characters of one of them
MAX_HEADERS: Final = 20  # of a subscription
MAX_HEADER_NAME: Final = 100  # characters
MAX_HEADER_VALUE: Final = 2_048  # characters
RATE_PER_S: Final = (0.1, 1_000.0)
MAX_IN_FLIGHT: Final = 1_000  # requests at once that a subscription may ask for
DEFAULT_IN_FLIGHT: Final = 10  # requests at once to a subscription
MAX_WAITS: Final = 50  # entries of a schedule
WAIT_S: Final = (0.1, 7 * 86_400.0)  # seconds of one of them
SIGNATURES: Final = ("v1", "v1a")
DEFAULT_SIGNATURES: Final = ("v1",)
GRACE_S: Final = (0, 604_800)
DEFAULT_GRACE_S: Final = 86_400  # seconds for which a secret that was replaced still signs

#: What may be set at creation and changed later, by the names that the table's columns have too; `secret` is set only at
#: creation, and rotated later.
FIELDS: Final = (
    "url",
    "description",
    "events",
    "providers",
    "operations",
    "tags",
    "headers",
    "rate_per_s",
    "max_in_flight",
    "schedule",
    "signatures",
    "stop_at_expiry",
)
_CHANGEABLE: Final = frozenset(FIELDS)
#: What a caller may send back as it got it in an answer, in hope; the fix is told.
_NOT_HERE: Final = {
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


@dataclass(frozen=True, slots=True)
class SubscriptionRequest:
    """Sound fields of a subscription. `given` are those that the caller named: the others have their defaults."""

    given: frozenset[str]
    url: str = ""
    description: str = ""
    events: tuple[str, ...] = ()  # empty: the final ones
    providers: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    rate_per_s: float | None = None
    max_in_flight: int = DEFAULT_IN_FLIGHT
    schedule_s: tuple[float, ...] | None = None
    signatures: tuple[str, ...] = DEFAULT_SIGNATURES  # always with v1, which every receiver knows
    stop_at_expiry: bool = False
    secret: str | None = field(default=None, repr=False)


def parse_new(body: object) -> SubscriptionRequest:
    """Check the body of a creation.

    Raises:
        Invalid: With a pointer for every field at fault.
    """
    return _parse(body, _CHANGEABLE | {"secret"}, required="url")


def parse_change(body: object) -> SubscriptionRequest:
    """Check the body of a change: what it does not name stays, and null brings a field's default back.

    Raises:
        Invalid: With a pointer for every field at fault.
    """
    return _parse(body, _CHANGEABLE)


def parse_rotation(body: object) -> int:
    """Check the body of a rotation, which may be missing.

    Returns:
        For how many seconds the old secret co-signs.

    Raises:
        Invalid: With a pointer to the field at fault.
    """
    errors: list[FieldError] = []
    fields = _fields({} if body is None else body, frozenset({"grace_s"}), errors)
    low, high = GRACE_S
    grace_s = fields.get("grace_s", DEFAULT_GRACE_S)
    if not _is_whole(grace_s) or not low <= grace_s <= high:
        errors.append(FieldError("/grace_s", f"must be a whole number of seconds from {low} to {high}"))
    _refuse(errors)
    return int(grace_s)


def parse_disabling(body: object) -> str:
    """Check the body of a disabling, which may be missing.

    Returns:
        The reason, as it is shown.

    Raises:
        Invalid: With a pointer to the field at fault.
    """
    errors: list[FieldError] = []
    fields = _fields({} if body is None else body, frozenset({"reason"}), errors)
    reason = fields.get("reason")
    told = "disabled by a caller" if reason is None else _text(MAX_REASON, at_least=1)(reason, "/reason", errors)
    _refuse(errors)
    return told


def _parse(body: object, known: frozenset[str], *, required: str | None = None) -> SubscriptionRequest:
    errors: list[FieldError] = []
    fields = _fields(body, known, errors)
    given = frozenset(fields)
    if required is not None and fields.get(required) is None:
        errors.append(FieldError(f"/{required}", "is required: the address that events are sent to"))
    read: dict[str, Any] = {}
    for name, reader in _READERS.items():
        if (value := fields.get(name)) is not None:
            read["schedule_s" if name == "schedule" else name] = reader(value, f"/{name}", errors)
        elif name in given and name == "url" and required is None:
            errors.append(FieldError("/url", "cannot be taken away; give another address, or leave it out"))
    _refuse(errors)
    return SubscriptionRequest(given=given, **read)


def _refuse(errors: list[FieldError]) -> None:
    if errors:
        raise Invalid.of(errors)


def _fields(body: object, known: frozenset[str], errors: list[FieldError]) -> Mapping[str, Any]:
    if not isinstance(body, dict):
        raise Invalid("the body must be a JSON object", errors=(FieldError("", "send a JSON object"),))
    for name in islice((name for name in body if name not in known), MAX_ERRORS):
        detail = _NOT_HERE.get(name, f"unknown field; known are {', '.join(sorted(known))}")
        errors.append(FieldError(f"/{_escaped(name)}", detail))
    return {name: value for name, value in body.items() if name in known}


def _escaped(name: str) -> str:
    return name[:100].replace("~", "~0").replace("/", "~1")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _text(limit: int, *, at_least: int) -> Callable[[Any, str, list[FieldError]], str]:
    def read(value: Any, pointer: str, errors: list[FieldError]) -> str:
        if not isinstance(value, str) or not at_least <= len(value) <= limit:
            errors.append(FieldError(pointer, f"must be a string of {at_least} to {limit} characters"))
            return ""
        return value

    return read


def _words(known: Iterable[str] | None = None, *, at_least: int = 0) -> Callable[..., tuple[str, ...]]:
    choices = None if known is None else tuple(known)

    def read(value: Any, pointer: str, errors: list[FieldError]) -> tuple[str, ...]:
        if not isinstance(value, list) or not at_least <= len(value) <= MAX_FILTERS:
            errors.append(FieldError(pointer, f"must be a list of {at_least} to {MAX_FILTERS} strings"))
            return ()
        for index, word in enumerate(value):
            if choices is not None and word not in choices:
                errors.append(FieldError(f"{pointer}/{index}", f"must be one of {', '.join(choices)}"))
            elif not isinstance(word, str) or not 1 <= len(word) <= MAX_FILTER:
                errors.append(FieldError(f"{pointer}/{index}", f"must be a string of 1 to {MAX_FILTER} characters"))
        return tuple(dict.fromkeys(word for word in value if isinstance(word, str)))

    return read


def _headers(value: Any, pointer: str, errors: list[FieldError]) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or len(value) > MAX_HEADERS:
        errors.append(FieldError(pointer, f"must be an object of at most {MAX_HEADERS} header names and their values"))
        return ()
    seen: set[str] = set()
    for name, text in value.items():
        fault = _header_fault(name, text) or ("is named twice, in other case" if name.lower() in seen else None)
        seen.add(name.lower())
        if fault is not None:
            errors.append(FieldError(f"{pointer}/{_escaped(name)}", fault))
    return tuple((name, text) for name, text in value.items() if isinstance(text, str))


def _header_fault(name: str, value: Any) -> str | None:
    """What is wrong with one header; the value is not repeated, since it may be a secret."""
    if len(name) > MAX_HEADER_NAME or not _HEADER_NAME.fullmatch(name):
        return f"is no header name: use 1 to {MAX_HEADER_NAME} letters, digits and -"
    if name.lower() in _RESERVED_HEADERS or name.lower().startswith(_RESERVED_PREFIXES):
        return "is set by us or by the connection; choose another name, such as X-…"
    if not isinstance(value, str) or len(value) > MAX_HEADER_VALUE or not _HEADER_VALUE.fullmatch(value):
        return (
            f"must be 1 to {MAX_HEADER_VALUE} visible ASCII characters; answers show values as …, which cannot be "
            "sent back"
        )
    return None


def _rate(value: Any, pointer: str, errors: list[FieldError]) -> float | None:
    low, high = RATE_PER_S
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        errors.append(FieldError(pointer, f"must be a number from {low:g} to {high:g}, or null for no limit"))
        return None
    return float(value)


def _in_flight(value: Any, pointer: str, errors: list[FieldError]) -> int:
    if not _is_whole(value) or not 1 <= value <= MAX_IN_FLIGHT:
        errors.append(FieldError(pointer, f"must be a whole number from 1 to {MAX_IN_FLIGHT}"))
        return DEFAULT_IN_FLIGHT
    return int(value)


def _schedule(value: Any, pointer: str, errors: list[FieldError]) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) > MAX_WAITS:
        errors.append(
            FieldError(pointer, f"must be a list of at most {MAX_WAITS} waits, or null for the service's own")
        )
        return ()
    waits: list[float] = []
    low, high = WAIT_S
    for index, wait in enumerate(value):
        seconds = _seconds(wait)
        if seconds is None or not low <= seconds <= high:
            detail = f"must be seconds from {low:g} to {high:g}, or a duration such as 30s, 5m, 7d"
            errors.append(FieldError(f"{pointer}/{index}", detail))
        else:
            waits.append(seconds)
    return tuple(waits)


def _seconds(wait: Any) -> float | None:
    if isinstance(wait, str):
        try:
            return duration(wait) / timedelta(seconds=1)
        except ValueError:
            return None
    return float(wait) if isinstance(wait, int | float) and not isinstance(wait, bool) else None


def _signatures(value: Any, pointer: str, errors: list[FieldError]) -> tuple[str, ...]:
    named = _words(SIGNATURES, at_least=1)(value, pointer, errors)
    return tuple(each for each in SIGNATURES if each in (*DEFAULT_SIGNATURES, *named))


def _flag(value: Any, pointer: str, errors: list[FieldError]) -> bool:
    if not isinstance(value, bool):
        errors.append(FieldError(pointer, "must be true or false"))
    return value is True


def _secret(value: Any, pointer: str, errors: list[FieldError]) -> str:
    if not isinstance(value, str):
        errors.append(FieldError(pointer, "must be a string: whsec_ and base64; leave it out to have one made"))
        return ""
    try:
        return encode_secret(decode_secret(value))  # with padding, which some libraries need
    except ValueError as error:
        errors.append(FieldError(pointer, f"{error}; leave it out to have one made"))
    return ""


_READERS: Final[dict[str, Callable[[Any, str, list[FieldError]], Any]]] = {
    "url": _text(MAX_URL, at_least=1),
    "description": _text(MAX_DESCRIPTION, at_least=0),
    "events": _words(EVENT_TYPES),
    "providers": _words(),
    "operations": _words(),
    "tags": _words(),
    "headers": _headers,
    "rate_per_s": _rate,
    "max_in_flight": _in_flight,
    "schedule": _schedule,
    "signatures": _signatures,
    "stop_at_expiry": _flag,
    "secret": _secret,
}
