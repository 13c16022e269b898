"""What a route says of itself: the scope of its key, and the shapes of what it takes and answers.

From here come the reading of bodies and queries, and the description of the API (`description`). It must not know any route.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from litestar import Request

from service.api.answers.responses import JSON
from service.api.requests.body import BODY_MAX_BYTES, optional_body, parsed_body
from service.schemas.query_model import NoQuery, QueryModel
from service.schemas.request_model import NoFields, RequestModel
from service.schemas.words import Scope

Q = TypeVar("Q", bound=QueryModel)
B = TypeVar("B", bound=RequestModel)

#: For routes that take any valid key.
ANY_KEY: Final = "any"


@dataclass(frozen=True, slots=True)
class Header:
    """A header, of a request or of an answer."""

    name: str
    description: str = ""
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})


@dataclass(frozen=True, slots=True)
class RouteAnswer:
    """One of a route's answers.

    Args:
        status: Of HTTP.
        description: When it is given, in a few words.
        shape: Of its body; None: it has none.
        headers: Those worth knowing.
        media: The types of its body, where it is not JSON: each with its JSON Schema.
    """

    status: int
    description: str
    shape: Any = None
    headers: tuple[Header, ...] = ()
    media: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    media_type: str = JSON


@dataclass(frozen=True, slots=True)
class RouteShape:
    """All that a route takes and answers; what is wrong is always told as a problem."""

    answers: tuple[RouteAnswer, ...]
    body: type[RequestModel] = NoFields
    query: type[QueryModel] = NoQuery
    headers: tuple[Header, ...] = ()
    example: Mapping[str, Any] | None = None


LOCATION: Final = Header("Location")
REPLAYED: Final = Header("Idempotent-Replayed", "The answer was given before.", {"type": "string", "const": "true"})
APPLIED: Final = Header("Preference-Applied", "The wait that was honoured.")
IDEMPOTENCY_KEY: Final = Header(
    "Idempotency-Key",
    "The same key with the same body gives the first answer again, for a day.",
    {"type": "string", "minLength": 1, "maxLength": 255},
)
PREFER: Final = Header(
    "Prefer", "`wait=N`: hold the answer back until the job is final, for at most N seconds, 60 in all."
)


def takes(scope: Scope | str | None, *answers: RouteAnswer, **more: Any) -> dict[str, Any]:
    """The `opt` of a route: only a key with this scope may call it (None: everybody); `more` is as in `RouteShape`."""
    return {"scope": scope, "shape": RouteShape(answers, **more)}


def query_of(request: Request[Any, Any, Any], model: type[Q]) -> Q:
    """The query of a request, which is of the model that the route declared.

    Raises:
        Malformed: Not readable, or with a name that is unknown or doubled, or a value that is wrong.
    """
    _check_declared(request, "query", model)
    return model.parse(request.scope["query_string"])


async def body_of(request: Request[Any, Any, Any], model: type[B], limit: int = BODY_MAX_BYTES) -> B:
    """The body of a request, which is of the model that the route declared; none where none of its fields is needed.

    Raises:
        Malformed: It is empty, cut off, or not JSON.
        UnsupportedMediaType: It is not declared as JSON.
        TooLarge: It has more bytes than `limit`.
        Invalid: With a pointer for every field at fault.
    """
    _check_declared(request, "body", model)
    if model.is_optional():
        return await optional_body(request, model.read)
    return await parsed_body(request, model.read, limit)


def _check_declared(request: Request[Any, Any, Any], what: str, model: type[RequestModel]) -> None:
    """What is read is what is described: a mistake in the code, told at the first request."""
    declared = getattr(request.scope["route_handler"].opt["shape"], what)
    if declared is not model:
        msg = f"the route declares {declared.__name__}, and reads {model.__name__}"
        raise TypeError(msg)
