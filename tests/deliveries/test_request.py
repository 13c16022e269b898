"""What may be asked of a subscription: every fault is told with its place and a fix, and never repeats a secret."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import Invalid
from service.schemas.subscription_schemas import RotateSecretRequest, SubscriptionChangeRequest, SubscriptionRequest

URL = "https://shop.example/hooks"
FULL: dict[str, Any] = {
    "url": URL,
    "description": "the shop",
    "events": ["job.completed", "subscription.disabled"],
    "providers": ["apimodels"],
    "operations": ["generate"],
    "tags": ["shop"],
    "headers": {"Authorization": "Bearer sesame", "X-Tenant": "7"},
    "rate_per_s": 0.5,
    "max_in_flight": 1000,
    "schedule": [5, "5m", 0.1, "7d"],
    "signatures": ["v1"],
    "stop_at_expiry": True,
    "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
}


def faults(body: object, *, change: bool = False) -> dict[str, str]:
    """The fields at fault, by pointer."""
    with pytest.raises(Invalid) as refused:
        (SubscriptionChangeRequest if change else SubscriptionRequest).read(body)
    return {error.pointer: error.detail for error in refused.value.errors}


def test_creation_takes_everything_that_the_contract_names() -> None:
    """All fields at once, durations and seconds alike."""
    asked = SubscriptionRequest.read(FULL)

    assert asked.url == URL
    assert asked.events == ("job.completed", "subscription.disabled")
    assert asked.headers == {"Authorization": "Bearer sesame", "X-Tenant": "7"}
    assert asked.schedule == (5.0, 300.0, 0.1, 604_800.0)
    assert (asked.rate_per_s, asked.max_in_flight, asked.stop_at_expiry) == (0.5, 1000, True)
    assert "sesame" not in repr(asked)
    assert "MfKQ9r8" not in repr(asked)


@pytest.mark.parametrize("nothing", [{}, dict.fromkeys(FULL.keys() - {"url"})])
def test_creation_needs_nothing_but_the_address(nothing: dict[str, None]) -> None:
    """Missing and null mean the default."""
    asked = SubscriptionRequest.read({"url": URL} | nothing)

    assert asked.model_dump(exclude={"url"}, exclude_none=True) == {}


@pytest.mark.parametrize(
    ("named", "signatures"),
    [
        (["v1"], ("v1",)),
        (["v1a"], ("v1", "v1a")),
        (["v1a", "v1"], ("v1", "v1a")),
        (["v1", "v1a", "v1a"], ("v1", "v1a")),
    ],
)
def test_v1_is_always_sent(named: list[str], signatures: tuple[str, ...]) -> None:
    """Most receivers know nothing else; what is asked for comes beside it, in one order."""
    assert SubscriptionRequest.read({"url": URL, "signatures": named}).signatures == signatures
    assert SubscriptionChangeRequest.read({"signatures": named}).signatures == signatures


@pytest.mark.parametrize(("size", "taken"), [(23, False), (24, True), (64, True), (65, False)])
def test_secret_of_a_caller_has_24_to_64_bytes(size: int, taken: bool) -> None:
    """Both bounds to the byte; padding that was left out is put back, since some libraries need it."""
    full = "whsec_" + base64.b64encode(b"s" * size).decode()
    if taken:
        assert SubscriptionRequest.read({"url": URL, "secret": full.rstrip("=")}).secret == full
    else:
        assert f"this one has {size}" in faults({"url": URL, "secret": full})["/secret"]


@pytest.mark.parametrize(
    ("fields", "pointer", "says"),
    [
        ({"url": None}, "/url", "is required"),
        ({"url": ""}, "/url", "1 to 2048 characters"),
        ({"url": 7}, "/url", "1 to 2048 characters"),
        ({"url": "https://shop.example/" + "x" * 2048}, "/url", "1 to 2048 characters"),
        ({"description": "x" * 501}, "/description", "0 to 500 characters"),
        ({"events": "job.completed"}, "/events", "must be a list"),
        ({"events": ["job.completed", "job.done"]}, "/events/1", "must be one of job.submitted, job.running"),
        ({"events": [["job.completed"]]}, "/events/0", "must be one of"),
        ({"providers": [""]}, "/providers/0", "1 to 64 characters"),
        ({"providers": ["p"] * 51}, "/providers", "0 to 50 strings"),
        ({"operations": [None]}, "/operations/0", "1 to 64 characters"),
        ({"tags": ["x" * 65]}, "/tags/0", "1 to 64 characters"),
        ({"headers": []}, "/headers", "must be an object"),
        ({"headers": {f"X-{n}": "1" for n in range(21)}}, "/headers", "at most 20"),
        ({"headers": {"X A": "1"}}, "/headers/X A", "is no header name"),
        ({"headers": {"X-A": "a\r\nwebhook-id: 1"}}, "/headers/X-A", "visible ASCII"),
        ({"headers": {"X-A": "größe"}}, "/headers/X-A", "visible ASCII"),
        ({"headers": {"X-A": ""}}, "/headers/X-A", "visible ASCII"),
        ({"headers": {"X-A": " a"}}, "/headers/X-A", "visible ASCII"),
        ({"headers": {"X-A": 1}}, "/headers/X-A", "visible ASCII"),
        ({"headers": {"X-A": "…"}}, "/headers/X-A", "which cannot be sent back"),
        ({"headers": {"a/b~": "1"}}, "/headers/a~1b~0", "is no header name"),
        ({"headers": {"X-A": "1", "x-a": "2"}}, "/headers/x-a", "is named twice"),
        ({"headers": {"": "1"}}, "/headers/", "is no header name"),
        ({"rate_per_s": 0}, "/rate_per_s", "from 0.1 to 1000"),
        ({"rate_per_s": 1001}, "/rate_per_s", "from 0.1 to 1000"),
        ({"rate_per_s": True}, "/rate_per_s", "from 0.1 to 1000"),
        ({"rate_per_s": "5"}, "/rate_per_s", "from 0.1 to 1000"),
        ({"max_in_flight": 0}, "/max_in_flight", "from 1 to 1000"),
        ({"max_in_flight": 1001}, "/max_in_flight", "from 1 to 1000"),
        ({"max_in_flight": 2.5}, "/max_in_flight", "from 1 to 1000"),
        ({"max_in_flight": True}, "/max_in_flight", "from 1 to 1000"),
        ({"schedule": "5s"}, "/schedule", "a list of at most 50 waits"),
        ({"schedule": [1] * 51}, "/schedule", "a list of at most 50 waits"),
        ({"schedule": [5, "8d"]}, "/schedule/1", "from 0.1 to 604800"),
        ({"schedule": [0]}, "/schedule/0", "from 0.1 to 604800"),
        ({"schedule": ["soon"]}, "/schedule/0", "a duration such as 30s"),
        ({"schedule": [None]}, "/schedule/0", "a duration such as 30s"),
        ({"signatures": []}, "/signatures", "1 to 50 strings"),
        ({"signatures": ["v1", "v2"]}, "/signatures/1", "must be one of v1, v1a"),
        ({"signatures": [["v1a"]]}, "/signatures/0", "must be one of v1, v1a"),
        ({"stop_at_expiry": "true"}, "/stop_at_expiry", "true or false"),
        ({"stop_at_expiry": 1}, "/stop_at_expiry", "true or false"),
        ({"public_key": "whpk_"}, "/public_key", "is made by us"),
        ({"previous_public_key": None}, "/previous_public_key", "leave it out"),
        ({"secret": "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}, "/secret", "starts with whsec_"),
        ({"secret": "whsec_MfKQ9r8G"}, "/secret", "24 to 64 bytes"),
        ({"secret": 1}, "/secret", "must be a string"),
        ({"colour": "red"}, "/colour", "unknown field; known are description, events"),
        ({"status": "disabled"}, "/status", "cannot be set here; POST"),
        ({"health": {}}, "/health", "leave it out"),
    ],
)
def test_creation_tells_the_field_and_the_fix(fields: dict[str, Any], pointer: str, says: str) -> None:
    """One fault, one pointer; what may be a secret is not in the message."""
    found = faults({"url": URL} | fields)

    assert list(found) == [pointer]
    assert says in found[pointer]
    assert "MfKQ9r8" not in found[pointer]


@pytest.mark.parametrize(
    "name",
    [
        *(
            "webhook-id",
            "Webhook-Signature",
            "webhook-anything",
            "Content-Type",
            "content-length",
            "Host",
            "Connection",
        ),
        *("Transfer-Encoding", "TE", "Trailer", "Upgrade", "User-Agent", "Accept-Encoding", "Keep-Alive"),
        *("Proxy-Authorization", "Expect"),
    ],
)
def test_header_that_is_ours_or_the_connections_is_refused(name: str) -> None:
    """A subscription's headers never stand over ours, and never break the framing of a request."""
    assert "is set by us" in faults({"url": URL, "headers": {name: "x"}})[f"/headers/{name}"]


def test_all_faults_are_told_at_once() -> None:
    """Nobody has to come back once for each."""
    assert set(faults({"url": 1, "tags": 1, "max_in_flight": -1, "x": 1})) == {"/url", "/tags", "/max_in_flight", "/x"}


def test_change_names_what_was_given() -> None:
    """Missing stays as it is, null brings the default back, and the address cannot be taken away."""
    asked = SubscriptionChangeRequest.read({"tags": None, "rate_per_s": 2})

    assert asked.model_fields_set == {"tags", "rate_per_s"}
    assert (asked.tags, asked.rate_per_s) == (None, 2.0)
    assert SubscriptionChangeRequest.read({}).model_fields_set == set()
    assert "cannot be taken away" in faults({"url": None}, change=True)["/url"]
    assert "rotate-secret" in faults({"secret": FULL["secret"]}, change=True)["/secret"]


@pytest.mark.parametrize(("body", "grace_s"), [({}, 86_400), ({"grace_s": 0}, 0), ({"grace_s": 7}, 7)])
def test_rotation_has_a_grace_of_a_day_unless_told(body: object, grace_s: int) -> None:
    """Whole seconds, a day unless it is given."""
    assert RotateSecretRequest.read(body).grace_s == grace_s


@pytest.mark.parametrize("grace_s", [-1, 604_801, "1", 1.5, True, None])
def test_rotation_refuses_a_grace_that_makes_no_sense(grace_s: object) -> None:
    """Whole seconds, a week at most."""
    with pytest.raises(Invalid, match="whole number of seconds from 0 to 604800") as refused:
        RotateSecretRequest.read({"grace_s": grace_s})

    assert [error.pointer for error in refused.value.errors] == ["/grace_s"]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)


@given(body=_JSON | st.dictionaries(st.sampled_from(sorted(FULL)), _JSON))
def test_no_body_finds_another_error(body: object) -> None:
    """Whatever JSON comes, it is taken or refused with a pointer."""
    for model in (SubscriptionRequest, SubscriptionChangeRequest, RotateSecretRequest):
        try:
            model.read(body)
        except Invalid as refused:
            pointers = [error.pointer for error in refused.errors]
        else:
            continue

        assert pointers
