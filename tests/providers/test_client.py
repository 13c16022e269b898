"""Asking apimodels: exact requests, and what each answer means. The bodies are those of apimodels-sparkpix.txt."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from service.backoff import retry_after_s
from service.clock import VirtualClock
from service.egress import Answer
from service.errors import EgressCut, EgressError, EgressNotSent, EgressRefused
from service.providers.client import PollOutcome, PollVerdict, SubmitOutcome, Verdict
from service.providers.mapping import Money, Observation, Seen
from service.settings import ProviderSettings
from service.states import ErrorCode
from tests.providers.scripted import CALLBACK_URL, KEY, ScriptedEgress, answer, provider, quoted

GIVEN = {"model": "sparkpix", "prompt": "A cute cat wearing a space helmet", "aspect_ratio": "16:9"}


async def submitted(given: Answer | EgressError) -> SubmitOutcome:
    return await provider(ScriptedEgress(given)).submit("generate", GIVEN, CALLBACK_URL)


async def polled(given: Answer | EgressError) -> PollOutcome:
    return await provider(ScriptedEgress(given)).poll("generate", "clxxx...", None)


async def test_submit_sends_the_documented_request_and_nothing_else() -> None:
    """The body is the caller's input plus the callback field; the key travels in the documented header."""
    egress = ScriptedEgress(answer(200, quoted("create-task-response")))

    await provider(egress).submit("generate", GIVEN, CALLBACK_URL)

    (call,) = egress.calls
    assert (call.method, call.url) == ("POST", "https://apimodels.app/api/v1/images/generations")
    assert json.loads(call.body or b"") == {**GIVEN, "callBackUrl": CALLBACK_URL}
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert call.headers["content-type"] == "application/json"
    assert egress.fresh == [True]


async def test_submit_without_callback_sends_the_input_alone() -> None:
    """No public URL, or callbacks switched off: the callback field is absent, not empty."""
    egress = ScriptedEgress(*[answer(200, quoted("create-task-response"))] * 2)

    await provider(egress).submit("generate", GIVEN, None)
    await provider(egress, ProviderSettings(callbacks="off")).submit("generate", GIVEN, CALLBACK_URL)

    assert [json.loads(call.body or b"") for call in egress.calls] == [GIVEN, GIVEN]


async def test_submit_is_accepted_with_the_documented_answer() -> None:
    """The create answer gives the task's id and its state."""
    outcome = await submitted(answer(200, quoted("create-task-response")))

    assert outcome.verdict is Verdict.ACCEPTED
    assert outcome.observation is not None
    assert (outcome.observation.task_id, outcome.observation.seen) == ("clxxx...", Seen.QUEUED)
    assert (outcome.observation.provider_status, outcome.http_status, outcome.duration_ms) == ("pending", 200, 12)


async def test_submit_accepts_an_answer_that_is_final_already() -> None:
    """A model that is done at once answers completed with its URLs; that is no error and needs no poll."""
    outcome = await submitted(answer(200, quoted("success-response")))

    assert outcome.verdict is Verdict.ACCEPTED
    assert outcome.observation is not None
    assert outcome.observation.seen is Seen.COMPLETED
    assert outcome.observation.urls == ("https://r2.apimodels.app/images/xxx.jpeg",)


async def test_submit_accepts_an_answer_that_failed_already() -> None:
    """`code` 200 describes the query, never the task."""
    outcome = await submitted(answer(200, quoted("failed-response")))

    assert outcome.verdict is Verdict.ACCEPTED
    assert outcome.observation is not None
    assert outcome.observation.error_code is ErrorCode.CONTENT_MODERATED


@pytest.mark.parametrize("in_body", [False, True])
@pytest.mark.parametrize(
    ("status", "verdict", "code"),
    [
        (400, Verdict.REJECTED, ErrorCode.INVALID_INPUT),
        (401, Verdict.REJECTED, ErrorCode.PROVIDER_AUTH),
        (402, Verdict.REJECTED, ErrorCode.PROVIDER_FUNDS),
        (403, Verdict.REJECTED, ErrorCode.PROVIDER_AUTH),
        (404, Verdict.REJECTED, ErrorCode.PROVIDER_REJECTED),
        (408, Verdict.UNKNOWN, ErrorCode.SUBMIT_UNKNOWN),
        (422, Verdict.REJECTED, ErrorCode.PROVIDER_REJECTED),
        (429, Verdict.REFUSED, ErrorCode.RATE_LIMITED),
        (500, Verdict.UNKNOWN, ErrorCode.SUBMIT_UNKNOWN),
        (502, Verdict.UNKNOWN, ErrorCode.SUBMIT_UNKNOWN),
        (504, Verdict.UNKNOWN, ErrorCode.SUBMIT_UNKNOWN),
    ],
)
async def test_submit_reads_errors_from_http_and_from_the_body(
    status: int, verdict: Verdict, code: ErrorCode, *, in_body: bool
) -> None:
    """The document does not say where its error codes stand, so both places count."""
    body = json.dumps({"code": status, "msg": "no such luck", "data": None}).encode()

    outcome = await submitted(answer(200 if in_body else status, body))

    assert (outcome.verdict, outcome.error_code) == (verdict, code)
    assert outcome.message == f"apimodels answered {status}: no such luck"
    assert outcome.http_status == (200 if in_body else status)


async def test_submit_tells_a_moderated_prompt_from_a_wrong_one() -> None:
    """A 400 whose text speaks of the content policy is no mistake in the input."""
    outcome = await submitted(answer(400, b'{"code":400,"msg":"Rejected by content policy"}'))

    assert (outcome.verdict, outcome.error_code) == (Verdict.REJECTED, ErrorCode.CONTENT_MODERATED)


NO_TASK = " without a task that can be followed"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", ", but its body is empty"),
        (b"<html>busy</html>", ", but its body is no JSON"),
        (b'{"code":200,"msg":"success","data":{}}', NO_TASK),
        (b'{"code":200,"data":{"taskId":"","state":"pending"}}', NO_TASK),
        (b'{"code":200,"data":{"taskId":{"no":"text"},"state":"pending"}}', NO_TASK),
        (b'{"code":1001,"msg":"busy","data":null}', NO_TASK),
        (b"[" * 90_000, ", but its body is nested too deeply"),
        (b"[" * 200_000, ", but its body holds more than 100000 values"),
        (b"\xff\xfe", ", but its body is empty"),
        (b"{]", ", but its body is broken JSON"),
    ],
)
async def test_submit_is_unknown_when_a_success_names_no_task(body: bytes, why: str) -> None:
    """A 2xx that cannot be followed may have been taken all the same: never sent again by itself, and it is told why."""
    outcome = await submitted(answer(200, body))

    assert (outcome.verdict, outcome.error_code) == (Verdict.UNKNOWN, ErrorCode.SUBMIT_UNKNOWN)
    assert outcome.message == f"apimodels answered 200{why}"
    assert outcome.observation is None


async def test_submit_is_unknown_when_the_answer_was_too_long() -> None:
    """Of a body that is not whole only the task's id is taken, which a poll has to confirm."""
    outcome = await submitted(answer(200, quoted("create-task-response")[:-10], truncated=True))

    assert outcome.verdict is Verdict.UNKNOWN
    assert outcome.message == "apimodels answered 200, but its body is larger than 64 MiB"
    assert outcome.observation == Observation(None, "clxxx...")


async def test_submit_never_follows_a_redirect() -> None:
    """A redirect means that nothing was handled; the message names the setting to check and no path."""
    outcome = await submitted(answer(301, b"", location="https://www.apimodels.app/api?token=abc"))

    assert (outcome.verdict, outcome.error_code) == (Verdict.REJECTED, ErrorCode.PROVIDER_REJECTED)
    assert outcome.message == (
        "apimodels answered 301, a redirect to https://www.apimodels.app, and none is followed: "
        "check REMORA_PROVIDERS__APIMODELS__BASE_URL"
    )


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (EgressRefused("forbidden", "10.0.0.1 is private"), Verdict.NOT_SENT),
        (EgressNotSent("connect", "connection refused"), Verdict.NOT_SENT),
        (EgressCut("timeout", "no answer in 60 s"), Verdict.UNKNOWN),
    ],
)
async def test_submit_tells_what_never_left_from_what_may_have_arrived(error: EgressError, verdict: Verdict) -> None:
    """Only a request that provably was not sent may be sent again."""
    assert (await submitted(error)).verdict is verdict


async def test_messages_never_hold_the_key_or_a_callback_token() -> None:
    """A provider that repeats our request in its error does not put our secrets into our records."""
    body = json.dumps({"code": 400, "msg": f"bad key {KEY} or url {CALLBACK_URL}/x"}).encode()

    rejected = await submitted(answer(400, body))
    cut = await submitted(EgressCut("cut", f"while sending {KEY}"))

    assert rejected.message == (
        "apimodels answered 400: bad key [secret] or url https://remora.example/callbacks/[secret]/x"
    )
    assert KEY not in (cut.message or "")


async def test_poll_asks_the_documented_address() -> None:
    """GET with task_id in the query, the id encoded."""
    egress = ScriptedEgress(answer(200, quoted("success-response")))

    await provider(egress, ProviderSettings(base_url="http://127.0.0.1:9000")).poll("generate", "a b&c/d", None)

    (call,) = egress.calls
    assert call.method == "GET"
    assert call.url == "http://127.0.0.1:9000/api/v1/images/generations?task_id=a%20b%26c%2Fd"
    assert call.body is None
    assert call.headers["authorization"] == f"Bearer {KEY}"


async def test_poll_observes_the_documented_success() -> None:
    """The state, the file and the time of the document's own example."""
    outcome = await polled(answer(200, quoted("success-response")))

    assert outcome.verdict is PollVerdict.OBSERVED
    assert outcome.observation is not None
    assert outcome.observation.seen is Seen.COMPLETED
    assert outcome.observation.finished_at_ms == 1705123465000
    assert outcome.observation.cost is None


async def test_poll_observes_the_documented_failure() -> None:
    """A failed task is free, and its text says moderated."""
    outcome = await polled(answer(200, quoted("failed-response")))

    assert outcome.observation is not None
    assert outcome.observation.seen is Seen.FAILED
    assert outcome.observation.error_code is ErrorCode.CONTENT_MODERATED
    assert outcome.observation.error_message == "Content policy violation"
    assert outcome.observation.cost == Money(0, "price_list")


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (answer(404), PollVerdict.NOT_FOUND),
        (answer(200, b'{"code":404,"msg":"task not found"}'), PollVerdict.NOT_FOUND),
        (answer(401), PollVerdict.DENIED),
        (answer(402), PollVerdict.DENIED),
        (answer(403), PollVerdict.DENIED),
        (answer(200, b'{"code":401}'), PollVerdict.DENIED),
        (answer(400), PollVerdict.RETRY),
        (answer(429), PollVerdict.RETRY),
        (answer(500), PollVerdict.RETRY),
        (answer(302, b"", location="/login"), PollVerdict.RETRY),
        (answer(200, b"not json"), PollVerdict.RETRY),
        (answer(200, b'{"code":200,"data":{"taskId":"clxxx..."}}'), PollVerdict.RETRY),
        (answer(200, quoted("success-response")[:-10], truncated=True), PollVerdict.RETRY),
        (EgressCut("timeout", "too late"), PollVerdict.RETRY),
        (EgressNotSent("connect", "refused"), PollVerdict.RETRY),
        (EgressRefused("forbidden", "private"), PollVerdict.RETRY),
    ],
)
async def test_poll_decides_nothing_from_an_answer_without_a_state(
    given: Answer | EgressError, verdict: PollVerdict
) -> None:
    """Only a state that was read is an observation; every other answer says why there is none."""
    outcome = await polled(given)

    assert outcome.verdict is verdict
    assert outcome.observation is None
    assert outcome.message


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("999999999", 86_400.0),
        ("soon", None),
        ("-5", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_reads_seconds(value: str | None, seconds: float | None) -> None:
    """Seconds up to a day; what is not understood is not guessed."""
    assert retry_after_s(value, VirtualClock().now_ms()) == seconds


def test_retry_after_reads_a_date() -> None:
    """An HTTP date counts from now, and a past one means now."""
    clock = VirtualClock(1_800_000_000_000)
    later = format_datetime(datetime.fromtimestamp(1_800_000_090, UTC), usegmt=True)
    earlier = format_datetime(datetime.fromtimestamp(1_700_000_000, UTC), usegmt=True)

    assert retry_after_s(later, clock.now_ms()) == 90.0
    assert retry_after_s(earlier, clock.now_ms()) == 0.0


async def test_outcomes_carry_retry_after() -> None:
    """What the provider asks for reaches those who plan the next try."""
    refused = await submitted(answer(429, retry_after="13"))
    later = await polled(answer(503, retry_after="14"))

    assert (refused.verdict, refused.retry_after_s) == (Verdict.REFUSED, 13.0)
    assert (later.verdict, later.retry_after_s) == (PollVerdict.RETRY, 14.0)
