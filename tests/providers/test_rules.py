"""What an error answer means, where a card says little or nothing."""

from __future__ import annotations

import pytest

from service.providers.card.card import Errors
from service.providers.card.rules import ErrorReader
from service.providers.documents.text import Scrubber
from service.states import ErrorCode


def reader(**errors: object) -> ErrorReader:
    return ErrorReader(Errors.model_validate(errors), Scrubber(None))


@pytest.mark.parametrize(
    ("status", "submit", "poll"),
    [
        (400, "final", "retry"),
        (401, "final", "denied"),
        (404, "final", "not_found"),
        (408, "unknown", "retry"),
        (429, "retryable", "retry"),
        (500, "unknown", "retry"),
        (504, "unknown", "retry"),
        (204, "unknown", "retry"),
    ],
)
def test_status_alone_never_risks_a_second_submission(status: int, submit: str, poll: str) -> None:
    """Without a word from the card only 429 is sent again; what may have been taken is unknown."""
    meaning = reader().meaning(status, None)

    assert (meaning.submit, meaning.poll) == (submit, poll)


def test_rule_without_submit_leaves_it_to_the_status() -> None:
    """Naming the error of a 502 does not make it final, nor safe to repeat."""
    meaning = reader(rules=[{"status": "5xx", "error": "provider_unavailable"}]).meaning(502, None)

    assert (meaning.error, meaning.submit) == (ErrorCode.PROVIDER_UNAVAILABLE, "unknown")


def test_first_rule_that_fits_counts_and_all_its_conditions_must_hold() -> None:
    """Rules are read from the top."""
    rules = [
        {"status": 400, "type": "safety", "error": "content_moderated"},
        {"code": [7, "E8"], "error": "provider_funds", "submit": "final"},
        {"status": [400, 422], "message": "(?i)quota", "error": "rate_limited", "submit": "retryable"},
    ]
    errors = reader(type="type", code="code", message="text", rules=rules)

    assert errors.meaning(400, {"type": "safety"}).error is ErrorCode.CONTENT_MODERATED
    assert errors.meaning(409, {"type": "safety"}).error is ErrorCode.PROVIDER_REJECTED
    assert errors.meaning(500, {"code": 7}).submit == "final"
    assert errors.meaning(500, {"code": "E8"}).error is ErrorCode.PROVIDER_FUNDS
    assert errors.meaning(422, {"text": "Quota exceeded"}).submit == "retryable"
    assert errors.meaning(422, {"text": None}).submit == "final"


@pytest.mark.parametrize(
    ("http", "said", "status"),
    [
        (200, 404, 404),
        (200, "404", 404),
        (201, 200, 200),
        (200, 1001, 200),
        (200, 302, 200),
        (200, "no", 200),
        (200, None, 200),
        (200, [404], 200),
        (500, 200, 500),
    ],
)
def test_status_in_the_body_counts_only_where_http_says_success(http: int, said: object, status: int) -> None:
    """A body cannot turn an HTTP error into a success, and only a status is a status."""
    assert reader(status="code").status(http, {"code": said}) == status
