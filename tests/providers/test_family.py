"""The card format grows to the wider family: other shapes of answers, without a line of code.

The cards lie in `cards/`; the bodies are those that the vendors' documents show, where a document is named.
"""

from __future__ import annotations

import json
from pathlib import Path

from service.providers.client import PollVerdict, Verdict
from service.providers.mapping import Money, Seen
from service.providers.registry import Provider
from service.states import ErrorCode
from tests.providers.scripted import CALLBACK_URL, KEY, ScriptedEgress, answer
from tests.providers.scripted import provider as bound

CARDS = Path(__file__).parent / "cards"

#: sharkapi-image.txt, "HTTP 202 Accepted on success".
SHARKAPI_ACCEPTED = b"""{
"job_id": "3a8f2c1d-7b4e-4f9a-b2d6-1c5e8f3a9b7d",
"status": "queued",
"poll_url": "/api/v1/jobs/3a8f2c1d-7b4e-4f9a-b2d6-1c5e8f3a9b7d",
"price_usd": 0.03,
"created_at": "2025-01-15T10:23:44Z"
}"""


def family(name: str, egress: ScriptedEgress) -> Provider:
    return bound(egress, name=name, cards_dir=CARDS)


async def test_poll_only_provider_gives_its_own_poll_address_and_price() -> None:
    """A relative poll_url becomes absolute, and a price quoted at the submission is an estimate."""
    outcome = await family("sharks", ScriptedEgress(answer(202, SHARKAPI_ACCEPTED))).submit("generate", {}, None)

    assert outcome.verdict is Verdict.ACCEPTED
    assert outcome.observation is not None
    assert outcome.observation.seen is Seen.QUEUED
    assert outcome.observation.cost == Money(30_000, "estimate", "0.03")
    assert outcome.observation.poll_url == ("https://www.sharkapi.dev/api/v1/jobs/3a8f2c1d-7b4e-4f9a-b2d6-1c5e8f3a9b7d")


async def test_synchronous_operation_is_completed_by_its_answer() -> None:
    """Credits become dollars (10,000 credits are one), seconds become milliseconds."""
    body = {"created": 1700000000, "data": [{"url": "https://cos.example.com/1"}], "credit": 400}

    outcome = await family("sharks", ScriptedEgress(answer(200, json.dumps(body).encode()))).submit(
        "generate-sync", {}, None
    )

    assert outcome.verdict is Verdict.ACCEPTED
    assert outcome.observation is not None
    assert outcome.observation.seen is Seen.COMPLETED
    assert outcome.observation.task_id is None
    assert outcome.observation.cost == Money(40_000, "provider", "400")
    assert outcome.observation.finished_at_ms == 1700000000000


async def test_typed_errors_and_documented_retries_are_told_apart() -> None:
    """A rule reads the error's type, and one that documents a 5xx as retryable makes it a refusal."""
    moderated = answer(400, b'{"error":{"type":"content_moderation","message":"no"}}')
    busy = answer(502, b'{"error":{"type":"provider_error","message":"try again"}}')
    other = answer(502, b"bad gateway")
    provider = family("sharks", ScriptedEgress(moderated, busy, other))

    outcomes = [await provider.submit("generate", {}, None) for _ in range(3)]

    assert [outcome.verdict for outcome in outcomes] == [Verdict.REJECTED, Verdict.REFUSED, Verdict.UNKNOWN]
    assert outcomes[0].error_code is ErrorCode.CONTENT_MODERATED
    assert outcomes[1].error_code is ErrorCode.PROVIDER_UNAVAILABLE


def test_price_counts_the_images() -> None:
    """The price of one, times the field that says how many."""
    provider = family("sharks", ScriptedEgress())

    assert provider.estimate("generate", {"n": 3}) == Money(90_000, "price_list")
    assert provider.estimate("generate", {}) == Money(30_000, "price_list")
    assert provider.estimate("generate", {"n": True}) is None
    assert provider.estimate("generate-sync", {}) is None


async def test_results_inside_a_json_string_are_found() -> None:
    """kie.ai puts its URLs into JSON inside a string."""
    body = {
        "code": 200,
        "data": {"taskId": "t1", "state": "success", "resultJson": '{"resultUrls":["https://a.example/1"]}'},
    }

    outcome = await family("kie", ScriptedEgress(answer(200, json.dumps(body).encode()))).poll("generate", "t1", None)

    assert outcome.verdict is PollVerdict.OBSERVED
    assert outcome.observation is not None
    assert outcome.observation.urls == ("https://a.example/1",)


def test_callback_may_be_read_by_another_map_than_the_poll() -> None:
    """kie.ai's callbacks have no state: the body's code is the verdict."""
    provider = family("kie", ScriptedEgress())

    done = provider.read_callback(
        "generate", b'{"code":200,"data":{"task_id":"t1","resultUrls":["https://a.example/1"]}}', {}
    )
    refused = provider.read_callback("generate", b'{"code":400,"msg":"flagged","data":{"taskId":"t1"}}', {})

    assert (done.seen, done.task_id, done.urls) == (Seen.COMPLETED, "t1", ("https://a.example/1",))
    assert (refused.seen, refused.error_code, refused.error_message) == (
        Seen.FAILED,
        ErrorCode.CONTENT_MODERATED,
        "flagged",
    )


async def test_extra_fields_are_sent_and_the_given_poll_address_is_asked() -> None:
    """Replicate wants to know which events to call back for, and gives the address to poll."""
    made = {"id": "p1", "status": "starting", "urls": {"get": "https://api.replicate.com/v1/predictions/p1"}}
    done = {
        "id": "p1",
        "status": "succeeded",
        "output": "https://a.example/1",
        "completed_at": "2026-11-21T10:00:00.5Z",
    }
    egress = ScriptedEgress(answer(201, json.dumps(made).encode()), answer(200, json.dumps(done).encode()))
    provider = family("replicate", egress)

    accepted = await provider.submit("generate", {"input": {"prompt": "x"}}, CALLBACK_URL)
    assert accepted.observation is not None
    finished = await provider.poll("generate", "p1", accepted.observation.poll_url)

    assert json.loads(egress.calls[0].body or b"") == {
        "input": {"prompt": "x"},
        "webhook_events_filter": ["completed"],
        "webhook": CALLBACK_URL,
    }
    assert egress.calls[1].url == "https://api.replicate.com/v1/predictions/p1"
    assert finished.observation is not None
    assert (finished.observation.urls, finished.observation.finished_at_ms) == (("https://a.example/1",), 1795255200500)


async def test_poll_never_takes_the_key_to_another_origin() -> None:
    """An address elsewhere is not asked, whoever named it; without another one there is nothing to ask."""
    egress = ScriptedEgress()

    outcome = await family("replicate", egress).poll("generate", "p1", "https://api.replicate.com.evil.example/p1")

    assert outcome.verdict is PollVerdict.RETRY
    assert egress.calls == []


async def test_model_in_the_path_and_callback_in_the_query() -> None:
    """A field that the path uses is not sent again in the body; an accepted task without a state is queued."""
    made = {"request_id": "r1", "status_url": "https://elsewhere.example/r1"}
    egress = ScriptedEgress(answer(200, json.dumps(made).encode()))
    provider = family("queue", egress)

    outcome = await provider.submit("generate", {"model": "fal-ai/flux/dev", "prompt": "x"}, CALLBACK_URL)

    (call,) = egress.calls
    assert call.url == (
        "https://queue.example/fal-ai/flux/dev?webhook=https%3A%2F%2Fremora.example%2Fcallbacks%2Ftok3n"
    )
    assert json.loads(call.body or b"") == {"prompt": "x"}
    assert call.headers["authorization"] == f"Key {KEY}"
    assert outcome.observation is not None
    assert (outcome.observation.seen, outcome.observation.poll_url) == (Seen.QUEUED, None)


def test_value_for_a_path_cannot_leave_it() -> None:
    """What goes into a path is a plain name: no climbing, no query, no other host."""
    provider = family("queue", ScriptedEgress())

    for bad in ("../admin", "a/../b", "a?b=c", "a#b", "//host", "", "a b", 7, None):
        (error,) = provider.validate("generate", {"model": bad})
        assert error.pointer == "/input/model"
    assert provider.validate("generate", {"model": "fal-ai/flux/dev"}) == []
