"""The one place where an error becomes an HTTP answer: RFC 9457 `application/problem+json`.

What is not meant for a caller is logged under an id, and the caller is told the id. This file must not know routes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, MethodNotAllowedException
from litestar.types import ExceptionHandlersMap

from service.api.answers.responses import PROBLEM
from service.api.exchange import request_id
from service.api.requests.refusal_log import remember
from service.errors import (
    CardInvalid,
    EgressCut,
    EgressError,
    EgressNotSent,
    EgressRefused,
    GuardFailed,
    Problem,
    RemoraError,
    SettingsInvalid,
    StorageUnavailable,
    StoreFailed,
    StoreInDoubt,
    StoreUnavailable,
)

STORE_RETRY_AFTER_S: Final = 5  # told when the store takes no writes

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Told:
    """What a caller is told of an error that was not made for callers. `detail` None: the error's own message."""

    status: int
    code: str
    title: str
    detail: str | None
    retry_after_s: int | None = None


_INTERNAL: Final = _Told(500, "internal", "An error of ours", "the error is ours, and it was recorded")
_STORE: Final = _Told(
    503,
    "store_unavailable",
    "The store cannot take this now",
    "nothing was stored; try again a little later",
    STORE_RETRY_AFTER_S,
)

_IN_DOUBT: Final = _Told(
    503,
    "store_in_doubt",
    "The store failed meanwhile",
    "nobody knows whether this was stored; look before you send it again, or send it with the same Idempotency-Key",
    STORE_RETRY_AFTER_S,
)

#: Every error of ours that is no Problem; a Problem says itself how it is told. A class not named is told as its base.
_TOLD: Final[dict[type[RemoraError], _Told]] = {
    StoreUnavailable: _STORE,
    StoreInDoubt: _IN_DOUBT,
    StoreFailed: _STORE,
    StorageUnavailable: _Told(503, "storage_unavailable", "The storage does not answer", None, STORE_RETRY_AFTER_S),
    GuardFailed: _Told(503, "busy", "Others change the same object", "nothing was changed; try again", 1),
    EgressRefused: _Told(422, "address_refused", "The address cannot be reached from here", None),
    EgressNotSent: _Told(503, "unreachable", "The other side cannot be reached", None, STORE_RETRY_AFTER_S),
    EgressCut: _Told(503, "unreachable", "The other side did not answer", None, STORE_RETRY_AFTER_S),
    EgressError: _Told(503, "unreachable", "The other side did not answer", None, STORE_RETRY_AFTER_S),
    SettingsInvalid: _INTERNAL,
    CardInvalid: _INTERNAL,
    RemoraError: _INTERNAL,
}

#: What Litestar itself refuses, by status.
_REFUSED: Final[dict[int, _Told]] = {
    400: _Told(400, "malformed", "The request is malformed", "the request cannot be understood"),
    404: _Told(404, "not_found", "Not found", "there is nothing at this path; /schema describes what there is"),
    405: _Told(405, "method_not_allowed", "Not with this method", "this path does not take this method"),
    413: _Told(413, "too_large", "The body is too large", "the body is too large"),
}


def _from_problem(problem: Problem) -> Response[bytes]:
    headers: dict[str, str] = {}
    if problem.retry_after_s is not None:
        headers["Retry-After"] = str(problem.retry_after_s)
    elif problem.status in {429, 503}:
        headers["Retry-After"] = str(STORE_RETRY_AFTER_S)
    if problem.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="remora"'
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": problem.title,
        "status": problem.status,
        "code": problem.code,
        "detail": problem.detail,
        **problem.more,
    }
    if problem.errors:
        body["errors"] = [{"pointer": error.pointer, "detail": error.detail} for error in problem.errors]
    return _response(problem.status, body, headers)


def _from_told(told: _Told, detail: str, headers: dict[str, str]) -> Response[bytes]:
    if told.retry_after_s is not None:
        headers["Retry-After"] = str(told.retry_after_s)
    body = {
        "type": "about:blank",
        "title": told.title,
        "status": told.status,
        "code": told.code,
        "detail": told.detail or detail,
    }
    return _response(told.status, body, headers)


def _response(status: int, body: dict[str, Any], headers: dict[str, str]) -> Response[bytes]:
    return Response(msgspec.json.encode(body) + b"\n", status_code=status, media_type=PROBLEM, headers=headers)


def answer(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """The answer to a request that ended in an error."""
    if isinstance(error, Problem):
        remember(request.scope, error.status, error.code, error)
        return _from_problem(error)
    if isinstance(error, HTTPException) and error.status_code < 500:
        told = _REFUSED.get(error.status_code, _REFUSED[400])
        remember(request.scope, told.status, told.code, error)
        return _refused(error, told)
    told = next((_TOLD[kind] for kind in type(error).__mro__ if kind in _TOLD), _INTERNAL)
    if told is _INTERNAL:
        return _recorded(request, error)
    remember(request.scope, told.status, told.code, error)
    return _from_told(told, str(error), {})


def _refused(error: HTTPException, told: _Told) -> Response[bytes]:
    headers: dict[str, str] = {}
    if isinstance(error, MethodNotAllowedException) and error.headers:
        headers["Allow"] = ", ".join(sorted(error.headers["allow"].split(", ")))
        told = replace(told, detail=f"{told.detail}, only {headers['Allow']}")
    return _from_told(told, "", headers)


def _recorded(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Nothing of what went wrong leaves; the request's id is what an operator finds it by."""
    known_as = request_id(request.scope)
    _log.error("request_failed", request_id=known_as, exc_info=error)
    detail = f"the error is ours; it was recorded under the request id {known_as}"
    return _from_told(_Told(500, _INTERNAL.code, _INTERNAL.title, detail), detail, {})


#: For Litestar: everything goes through `answer`.
EXCEPTION_HANDLERS: Final[ExceptionHandlersMap] = {Exception: answer}
