"""Requests and queries: what is taken is what is described, every fault has its place and a fix, and no input finds another error."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from service.errors import MAX_ERRORS, Invalid, Malformed
from service.schemas.account_schemas import (
    AccountLimitRequest,
    AccountRequest,
    CreditRequest,
    KeyRequest,
    UsageRequestQuery,
)
from service.schemas.delivery_schemas import DeliveryListQuery, ReplayListQuery, ReplayRequest
from service.schemas.event_schemas import EventListQuery, EventStreamQuery
from service.schemas.job_schemas import CancelRequest, ExportQuery, JobListQuery, JobRequest
from service.schemas.query_model import QueryModel, parameters
from service.schemas.request_model import NoFields, RequestModel, names
from service.schemas.subscription_schemas import (
    DisableRequest,
    RotateSecretRequest,
    SubscriptionChangeRequest,
    SubscriptionRequest,
)
from tests.generated import ROOT

DOCUMENT = json.loads((ROOT / "docs" / "openapi.json").read_text("utf-8"))
#: A body that is taken whole, by model.
WHOLE: dict[type[RequestModel], dict[str, Any]] = {
    JobRequest: {
        "provider": "apimodels",
        "operation": "generate",
        "input": {"prompt": "a cat"},
        "callback_url": "https://shop.example/",
        "callback_events": ["job.failed"],
        "metadata": {"order": "7"},
        "tags": ["shop"],
        "expires_in_s": 60,
    },
    CancelRequest: {"force": True},
    SubscriptionRequest: {
        "url": "https://shop.example/",
        "description": "",
        "events": ["ping"],
        "providers": ["a"],
        "operations": ["b"],
        "tags": ["c"],
        "headers": {"X-A": "b"},
        "rate_per_s": 0.5,
        "max_in_flight": 3,
        "schedule": [1, "5m"],
        "signatures": ["v1a"],
        "stop_at_expiry": False,
        "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    },
    SubscriptionChangeRequest: {"url": "https://shop.example/", "tags": ["c"], "schedule": None},
    RotateSecretRequest: {"grace_s": 0},
    DisableRequest: {"reason": "moving"},
    ReplayRequest: {
        "since": "2026-01-01T00:00:00Z",
        "until": "2026-02-01T00:00:00+01:00",
        "types": ["job.failed"],
        "status": ["missing"],
        "dry_run": True,
    },
    AccountRequest: {"name": "shop", "limit": "monthly", "budget": "5", "credit": "0.000001"},
    AccountLimitRequest: {"limit": "prepaid"},
    CreditRequest: {"amount": "-5.00", "reason": "a mistake"},
    KeyRequest: {
        "name": "shop",
        "scopes": ["jobs:read"],
        "expires_at": "2099-01-01T00:00:00Z",
        "account_id": "acc_0199a000-0000-7000-8000-000000000001",
    },
}
QUERIES = (
    JobListQuery,
    ExportQuery,
    DeliveryListQuery,
    ReplayListQuery,
    EventListQuery,
    EventStreamQuery,
    UsageRequestQuery,
)
STRANGE: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 59, 60, 604_801, 0.5, 2.5, 1e300, 2**64 - 1),
    *(
        "",
        " ",
        "x",
        "x" * 65,
        "x" * 101,
        "x" * 201,
        "x" * 501,
        "x" * 2_049,
        "\x00",
        "\ud7ff",
        "1",
        "5m",
        "-0",
        "1e5",
        "0.0000001",
    ),
    *([], {}, [None], [[]], [{}], ["x"], ["x", "x"], ["x"] * 51, [1], ["job.failed"], ["v1", "v1a"], ["admin"]),
    *(
        {"": ""},
        {"a": 1},
        {"a": None},
        {"x" * 65: "y"},
        {"a": "y" * 1_025},
        {str(n): "" for n in range(51)},
        {"Host": "x"},
    ),
)
#: What no JSON Schema of ours says: forms that are only told in words, and what two fields say together.
ONLY_IN_WORDS = {
    "name",
    "reason",
    "headers",
    "schedule",
    "secret",
    "since",
    "until",
    "expires_at",
    "account_id",
    "amount",
    "budget",
}
ONLY_IN_WORDS |= {"credit", "callback_events", "callback_url", "limit", "metadata"}


def described(model: type[RequestModel]) -> Draft202012Validator:
    """The schema of a model as the document has it."""
    schemas = DOCUMENT["components"]["schemas"]
    return Draft202012Validator({**schemas[model.__name__], "components": {"schemas": schemas}})


def fault(model: type[RequestModel], body: object) -> Invalid | None:
    """What is wrong with a body; every fault has a place and a sentence."""
    refused = None
    try:
        model.read(body)
    except Invalid as error:
        refused = error
    if refused is not None:
        assert 1 <= len(refused.errors) <= MAX_ERRORS
        for each in refused.errors:
            assert each.pointer == "" or each.pointer.startswith("/")
            assert len(each.detail) > 8
            assert "something else" not in each.detail
    return refused


@pytest.mark.parametrize("model", WHOLE, ids=lambda model: model.__name__)
def test_whole_request_is_taken_and_fits_its_description(model: type[RequestModel]) -> None:
    """Every field that is described can be given."""
    assert fault(model, WHOLE[model]) is None
    assert list(described(model).iter_errors(WHOLE[model])) == []


@pytest.mark.parametrize("model", WHOLE, ids=lambda model: model.__name__)
def test_what_is_taken_is_what_is_described(model: type[RequestModel]) -> None:
    """Whatever stands in a field: the description refuses nothing that is taken, and takes nothing that is refused without a word of why."""
    described_as = described(model)
    for name in names(model):
        for value in STRANGE:
            body = WHOLE[model] | {name: value}
            refused, fits = fault(model, body), described_as.is_valid(body)
            required = model.model_fields[name].is_required()
            assert refused or fits, (name, value)
            assert not refused or not fits or name in ONLY_IN_WORDS or (required and value is None), (name, value)


@pytest.mark.parametrize("model", WHOLE, ids=lambda model: model.__name__)
def test_field_that_nobody_knows_is_told_with_the_one_that_was_meant(model: type[RequestModel]) -> None:
    """A slip of the keyboard is the most common reason."""
    name = max(names(model), key=len)
    refused = fault(model, WHOLE[model] | {name[:-1] + "_": 1})

    assert refused is not None
    assert refused.code == (model.UNKNOWN_CODE or "invalid")
    assert f"did you mean {name}?" in refused.errors[0].detail


def test_request_without_fields_says_so() -> None:
    """Known: none."""
    refused = fault(NoFields, {"a/b~": 1})

    assert refused is not None
    assert [(each.pointer, each.detail) for each in refused.errors] == [("/a~1b~0", "unknown field; known: none")]


@pytest.mark.parametrize(
    ("model", "body", "pointers"),
    [
        (
            JobRequest,
            {"callback_events": ["job.done"], "tags": 1},
            ["/provider", "/input", "/callback_events/0", "/tags", "/callback_events"],
        ),
        (AccountRequest, {"name": "", "limit": "monthly"}, ["/name", "/budget"]),
        (AccountRequest, {"name": "a", "budget": "5"}, ["/budget"]),
        (AccountLimitRequest, {"limit": "weekly", "budget": "5"}, ["/limit"]),
        (SubscriptionRequest, {"url": "https://a.example/", "headers": {"": ""}}, ["/headers/"]),
    ],
)
def test_all_faults_are_told_at_once_and_each_place_once(
    model: type[RequestModel], body: object, pointers: list[str]
) -> None:
    """What two fields say together is told beside what each says by itself."""
    refused = fault(model, body)

    assert refused is not None
    assert sorted(each.pointer for each in refused.errors) == sorted(pointers)


def test_entry_that_is_called_like_a_mark_of_ours_has_its_own_place() -> None:
    """Pydantic marks a name at fault with `[key]`; a caller may use that word."""
    refused = fault(JobRequest, {"provider": "x", "input": {}, "metadata": {"[key]": 5}, "[key]": 1})

    assert refused is not None
    assert [(each.pointer, each.detail[:24]) for each in refused.errors] == [
        ("/metadata/[key]", "must be a string of 0 to"),
        ("/[key]", "unknown field; known are"),
    ]


@pytest.mark.parametrize(
    ("model", "query", "says"),
    [
        (ExportQuery, b"limit=99999999", "'limit' must be a whole number from 1 to 10000000"),
        (JobListQuery, b"limit=&limit=", "'limit' occurs twice"),
        (JobListQuery, b"created_after=2026-01-01T00:00:00 01:00", "write it as %2B, or use Z"),
        (
            JobListQuery,
            b"&".join(b"metadata.%d=x" % number for number in range(11)),
            "'metadata.<key>' must be there for at most 10",
        ),
        (
            UsageRequestQuery,
            b"status=queued",
            "must be one or some of completed, failed, cancelled, expired: jobs are counted",
        ),
        (JobListQuery, b"stat=queued", "did you mean status?"),
    ],
)
def test_query_tells_the_parameter_and_the_fix(model: type[QueryModel], query: bytes, says: str) -> None:
    """In the same words wherever it stands."""
    with pytest.raises(Malformed) as refused:
        model.parse(query)

    assert says in refused.value.detail


def test_repeated_parameter_may_be_empty_once() -> None:
    """What is there counts."""
    assert EventListQuery.parse(b"provider=&provider=sandbox").provider == ("sandbox",)


@pytest.mark.parametrize("name", ["", "x" * 65])
def test_name_at_fault_is_told_as_one(name: str) -> None:
    """Of an object's names as of its values: what would be right."""
    refused = fault(JobRequest, {"provider": "x", "input": {}, "metadata": {name: "v"}})

    assert refused is not None
    assert [each.detail for each in refused.errors] == ["its name must be a string of 1 to 64 characters"]


@pytest.mark.parametrize("body", [[], 0, "", "x", None, True])
def test_body_must_be_an_object(body: object) -> None:
    """And it is told so."""
    refused = fault(JobRequest, body)

    assert refused is not None
    assert refused.detail == "the body must be a JSON object"


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"metadata": {str(number): number for number in range(10_000)}}, ["/metadata"]),
        ({"tags": [None] * 10_000}, ["/tags"]),
        (
            {"metadata": {str(number): number for number in range(50)}},
            [f"/metadata/{number}" for number in range(MAX_ERRORS)],
        ),
        ({f"x{number}": 1 for number in range(10_000)}, [f"/x{number}" for number in range(MAX_ERRORS)]),
    ],
)
def test_faults_are_bounded(body: dict[str, Any], pointers: list[str]) -> None:
    """Nobody mends more than twenty at once, and of ten thousand faulty entries none is looked at."""
    refused = fault(JobRequest, {"provider": "x", "input": {}} | body)

    assert refused is not None
    assert [each.pointer for each in refused.errors] == pointers


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)


@given(data=st.data())
def test_no_body_finds_another_error(data: st.DataObject) -> None:
    """Whatever JSON stands in whatever field, it is taken or told."""
    for model, whole in WHOLE.items():
        name = data.draw(st.sampled_from(names(model)))
        fault(model, whole | {name: data.draw(JSON)})


@given(raw=st.binary(max_size=60))
def test_no_query_finds_another_error(raw: bytes) -> None:
    """Whatever bytes stand behind the question mark, they are taken or told, in words that can be printed."""
    for model in QUERIES:
        for query in (raw, *(f"{name}=".encode() + raw for name in parameters(model))):
            told = ""
            try:
                model.parse(query)
            except Malformed as refused:
                told = refused.detail
            assert told.isprintable()


@pytest.mark.parametrize("model", QUERIES, ids=lambda model: model.__name__)
def test_value_of_a_query_is_taken_as_described(model: type[QueryModel]) -> None:
    """The parameters of the document are those that are read, each with its own schema."""
    operations = [operation for item in DOCUMENT["paths"].values() for operation in item.values()]
    described_as = [
        {each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"} for operation in operations
    ]

    assert set(parameters(model)) in described_as
    for name in parameters(model):
        with pytest.raises(Malformed, match=f"'{name}' is empty"):
            model.parse(f"{name}=".encode())
        with pytest.raises(Malformed, match=f"'{name}' holds the character NUL"):
            model.parse(f"{name}=%00".encode())
        with pytest.raises(Malformed, match=f"'{name}' must have at most 1024"):
            model.parse(f"{name}={quote('x' * 1_025)}".encode())
