"""What a caller may send to `POST /v1/jobs`, checked field by field; every fault is told with a pointer and a fix."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from service.errors import MAX_ERRORS, FieldError, Invalid, Malformed
from service.providers.documents.longtexts import encoded
from service.states import EVENT_TYPES

MAX_METADATA = 50  # pairs
MAX_METADATA_NAME = 64  # characters
MAX_METADATA_VALUE = 1_024  # characters
MAX_TAGS = 10  # of a job
MAX_TAG = 64  # characters
EXPIRES_IN_S = (60, 604_800)
MAX_EVENT_TYPES = 50  # in `callback_events`
JOB_EVENT_TYPES = tuple(name for name in EVENT_TYPES if name.startswith(("job.", "result.")))

_FIELDS = frozenset(
    {"provider", "operation", "input", "callback_url", "callback_events", "metadata", "tags", "expires_in_s"}
)
_KEY = re.compile(r"[\x21\x23-\x7e]{1,255}")


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A request whose own fields are sound; the provider has not been asked about `input` yet."""

    provider: str
    operation: str | None
    input: dict[str, Any]
    callback_url: str | None = None
    callback_events: tuple[str, ...] | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    expires_in_s: int | None = None
    body_hash: bytes = b""


def idempotency_key(header: str | None) -> str | None:
    """The key of an `Idempotency-Key` header; quoted and bare keys are the same key.

    Raises:
        Malformed: It is empty, longer than 255 characters, or not visible ASCII.
    """
    if header is None:
        return None
    key = header.strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not _KEY.fullmatch(key):
        msg = "Idempotency-Key must be 1 to 255 visible ASCII characters without quotes or blanks inside"
        raise Malformed(msg, code="idempotency_key_invalid")
    return key


def parse(body: object) -> JobRequest:
    """Check a decoded body.

    Raises:
        Invalid: With a pointer for every field at fault.
    """
    if not isinstance(body, dict):
        raise Invalid("the body must be a JSON object", errors=(FieldError("", "send a JSON object"),))
    errors: list[FieldError] = [
        FieldError(f"/{_escaped(name)}", f"unknown field; known are {', '.join(sorted(_FIELDS))}")
        for name in islice((name for name in body if name not in _FIELDS), MAX_ERRORS)
    ]
    request = JobRequest(
        provider=_text(body, "provider", errors, required=True) or "",
        operation=_text(body, "operation", errors),
        input=_object(body, errors),
        callback_url=_text(body, "callback_url", errors, limit=2_048),
        callback_events=_event_types(body, errors),
        metadata=_metadata(body, errors),
        tags=_tags(body, errors),
        expires_in_s=_expiry(body, errors),
        body_hash=hashlib.sha256(encoded(body, "deterministic")).digest(),
    )
    if request.callback_events is not None and request.callback_url is None:
        errors.append(FieldError("/callback_events", "has no effect without callback_url; add one or leave this out"))
    if errors:
        raise Invalid.of(errors[:MAX_ERRORS])
    return request


def _escaped(name: str) -> str:
    return name[:100].replace("~", "~0").replace("/", "~1")


def _text(
    body: Mapping[str, Any], name: str, errors: list[FieldError], *, required: bool = False, limit: int = 200
) -> str | None:
    value = body.get(name)
    if value is None:
        if required:
            errors.append(FieldError(f"/{name}", "is required: a string"))
        return None
    if not isinstance(value, str) or not value or len(value) > limit:
        errors.append(FieldError(f"/{name}", f"must be a string of 1 to {limit} characters"))
        return None
    return value


def _object(body: Mapping[str, Any], errors: list[FieldError]) -> dict[str, Any]:
    value = body.get("input")
    if not isinstance(value, dict):
        errors.append(FieldError("/input", "is required: an object with the operation's input"))
        return {}
    return value


def _event_types(body: Mapping[str, Any], errors: list[FieldError]) -> tuple[str, ...] | None:
    value = body.get("callback_events")
    if value is None:
        return None
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_EVENT_TYPES:
        detail = f"must be a list of 1 to {MAX_EVENT_TYPES} event types; leave it out for the final ones"
        errors.append(FieldError("/callback_events", detail))
        return None
    for index, name in enumerate(value):
        if name not in JOB_EVENT_TYPES:
            errors.append(FieldError(f"/callback_events/{index}", f"must be one of {', '.join(JOB_EVENT_TYPES)}"))
    return tuple(dict.fromkeys(name for name in value if isinstance(name, str)))


def _metadata(body: Mapping[str, Any], errors: list[FieldError]) -> dict[str, str]:
    value = body.get("metadata")
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > MAX_METADATA:
        errors.append(FieldError("/metadata", f"must be an object of at most {MAX_METADATA} string pairs"))
        return {}
    for name, inner in value.items():
        pointer = f"/metadata/{_escaped(name)}"
        if not 1 <= len(name) <= MAX_METADATA_NAME:
            errors.append(FieldError(pointer, f"names have 1 to {MAX_METADATA_NAME} characters"))
        if not isinstance(inner, str) or len(inner) > MAX_METADATA_VALUE:
            errors.append(FieldError(pointer, f"must be a string of at most {MAX_METADATA_VALUE} characters"))
    return value


def _tags(body: Mapping[str, Any], errors: list[FieldError]) -> tuple[str, ...]:
    value = body.get("tags")
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_TAGS:
        errors.append(FieldError("/tags", f"must be a list of at most {MAX_TAGS} strings"))
        return ()
    for index, tag in enumerate(value):
        if not isinstance(tag, str) or not 1 <= len(tag) <= MAX_TAG:
            errors.append(FieldError(f"/tags/{index}", f"must be a string of 1 to {MAX_TAG} characters"))
    return tuple(dict.fromkeys(tag for tag in value if isinstance(tag, str)))


def _expiry(body: Mapping[str, Any], errors: list[FieldError]) -> int | None:
    value = body.get("expires_in_s")
    if value is None:
        return None
    low, high = EXPIRES_IN_S
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        errors.append(FieldError("/expires_in_s", f"must be a whole number of seconds from {low} to {high}"))
        return None
    return value
