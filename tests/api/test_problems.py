"""Errors become problems: every class of ours is mapped, and nothing of ours leaks."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import msgspec
import pytest
from litestar import Request

import service
from service.api.answers.responses import PROBLEM
from service.api.problems import answer
from service.errors import (
    CardInvalid,
    EgressError,
    FieldError,
    GuardFailed,
    Invalid,
    Problem,
    RemoraError,
    SettingsInvalid,
    StoreFailed,
    StoreInDoubt,
    StoreUnavailable,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from tests.api.conftest import STUCK, Served

#: What the contract says of each class; written by hand.
STATUS = {
    "Malformed": 400,
    "Unauthenticated": 401,
    "BalanceTooSmall": 402,
    "Forbidden": 403,
    "NotFound": 404,
    "Conflict": 409,
    "Gone": 410,
    "TooLarge": 413,
    "UnsupportedMediaType": 415,
    "Invalid": 422,
    "TooManyRequests": 429,
    "Unavailable": 503,
    "StorageUnavailable": 503,
    "FileMissing": 503,
    "StoreUnavailable": 503,
    "StoreInDoubt": 503,
    "StoreFailed": 503,
    "GuardFailed": 503,
    "EgressRefused": 422,
    "EgressNotSent": 503,
    "EgressCut": 503,
}
#: Errors of the start or of our own making: a caller who ever meets one has found a fault of ours.
INTERNAL = {
    "AdapterFailed",
    "AnswerCut",
    "SettingsInvalid",
    "CardInvalid",
    "SecretKeyWrong",
    "MoveForbidden",
    "SignatureInvalid",
}
#: Bases that nobody raises.
BASES = {"RemoraError", "EgressError", "Problem"}


def _request() -> Request[Any, Any, Any]:
    scope: Any = {"type": "http", "method": "GET", "headers": [], "state": {"request_id": "r-1"}}
    return Request(scope)


def _subclasses(kind: type[Any]) -> set[type[Any]]:
    found = {kind}
    for each in kind.__subclasses__():
        found |= _subclasses(each)
    return found


def test_every_error_class_has_its_status() -> None:
    """No class of ours is without a decision, in whichever module it is defined."""
    for module in pkgutil.walk_packages(service.__path__, "service."):
        if not module.name.startswith("service._migrations") and module.name != "service.__main__":
            importlib.import_module(module.name)
    kinds = [kind for kind in _subclasses(RemoraError) if kind.__module__.startswith("service.")]
    names = {kind.__name__ for kind in kinds if not kind.__module__.startswith("service.cli.")}

    assert names - BASES == set(STATUS) | (names & INTERNAL)


@pytest.mark.parametrize("kind", sorted(_subclasses(RemoraError), key=str))
def test_error_is_answered_as_a_problem(kind: type[RemoraError]) -> None:
    """The status of the contract, the media type, and all fields of RFC 9457 that we promise."""
    if kind.__name__ not in STATUS:
        return
    error = kind("private", "the detail") if issubclass(kind, EgressError) else kind("the detail")
    response = answer(_request(), error)
    body = _body(response)

    assert response.status_code == body["status"] == STATUS[kind.__name__]
    assert response.media_type == PROBLEM
    assert set(body) == {"type", "title", "status", "code", "detail"}
    assert all(body.values())
    assert ("Retry-After" in response.headers) == (body["status"] in {429, 503})


def test_problem_carries_what_it_was_given() -> None:
    """Fields with pointers, the time to come back, and the scheme of authentication."""
    invalid = _body(answer(_request(), Invalid("wrong", errors=(FieldError("/a", "must be a number"),))))
    busy = answer(_request(), TooManyRequests("slow down", retry_after_s=17))
    stopped = answer(_request(), Unavailable("draining", code="not_ready", retry_after_s=3))
    unknown = answer(_request(), Unauthenticated("no key"))

    assert invalid["errors"] == [{"pointer": "/a", "detail": "must be a number"}]
    assert busy.headers["Retry-After"] == "17"
    assert (stopped.headers["Retry-After"], _body(stopped)["code"]) == ("3", "not_ready")
    assert unknown.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "error", [ValueError("secret"), SettingsInvalid(["secret"]), CardInvalid("secret"), KeyError("secret")]
)
def test_unexpected_error_tells_its_id_and_nothing_else(error: Exception) -> None:
    """500 with the request's id; what went wrong stays in the log."""
    response = answer(_request(), error)

    assert response.status_code == 500
    assert "secret" not in str(_body(response))
    assert "r-1" in _body(response)["detail"]


@pytest.mark.parametrize(
    "error",
    [
        StoreUnavailable("/var/db is full"),
        StoreInDoubt("/var/db"),
        StoreFailed("/var/db"),
        GuardFailed("UPDATE jobs"),
    ],
)
def test_store_error_tells_nothing_of_the_store(error: Exception) -> None:
    """No path and no statement reaches a caller."""
    body = _body(answer(_request(), error))

    assert "/var/db" not in str(body)
    assert "UPDATE" not in str(body)


async def test_unknown_path_and_wrong_method_are_problems(served: Served) -> None:
    """404 and 405 look like every other problem; 405 says what the path takes."""
    nowhere = await served.client.get("/v2/nothing")
    wrong = await served.client.put("/v1/jobs", json=STUCK)

    for response, status in ((nowhere, 404), (wrong, 405)):
        assert response.status_code == status
        assert response.headers["content-type"] == PROBLEM
        assert response.json()["status"] == status
    assert {"GET", "POST"} <= {each.strip() for each in wrong.headers["allow"].split(",")}
    assert wrong.json()["detail"] == f"this path does not take this method, only {wrong.headers['allow']}"


async def test_store_that_cannot_write_is_503(served: Served) -> None:
    """A write that the store cannot take is told as such, with a time to come back; reading goes on."""
    job = await served.take()
    served.service._base.store.writer._closing = True
    refused = await served.client.post("/v1/jobs", json=STUCK)
    shown = await served.client.get(f"/v1/jobs/{job['id']}")
    served.service._base.store.writer._closing = False

    assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
    assert int(refused.headers["retry-after"]) > 0
    assert shown.status_code == 200


def _body(response: Any) -> dict[str, Any]:
    return msgspec.json.decode(response.content)  # type: ignore[no-any-return]


def test_problem_is_the_root_of_what_callers_are_told() -> None:
    """A class below Problem has a code and a title of its own, so that no two look alike."""
    kinds = _subclasses(Problem) - {Problem}

    assert len({kind.default_code for kind in kinds if issubclass(kind, Problem)}) == len(kinds)
