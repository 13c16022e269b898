"""Shark AI against sharkai-images.txt and sharkai-gpt-image-2.txt; what is written here is read from them by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from service.errors import FieldError
from service.providers.client import PollVerdict, Verdict
from service.providers.mapping import Money, Seen
from service.states import ErrorCode
from tests.providers.scripted import CALLBACK_URL, KEY, ScriptedEgress, answer, provider

GPT = {"model": "openai/gpt-image-2", "prompt": "A cute baby sea otter floating on calm water"}
TASK = {"id": "task_abc123", "object": "image.generation.task", "created": 1700000000, "timeout": 300}
URL = "https://cos.example.com/images/...signed..."
RESULT = {"created": 1700000000, "data": [{"url": URL}], "usage": {"total_tokens": 1556}, "credit": 400}
OPERATIONS = ["generate", "generate-sync"]


def sharkai(*answers: tuple[int, object]) -> tuple[ScriptedEgress, Any]:
    egress = ScriptedEgress(*(answer(status, json.dumps(body).encode()) for status, body in answers))
    return egress, provider(egress, name="sharkai")


def pointers(given: Mapping[str, object], operation: str = "generate") -> dict[str, str]:
    return {error.pointer: error.detail for error in sharkai()[1].validate(operation, given)}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"n": 1},
        {"n": 4},
        *({"size": size} for size in ("1024x1024", "1536x1024", "1024x1536", "2048x2048", "auto")),
        *({"quality": quality} for quality in ("low", "medium", "high", "auto")),
        *({"background": background} for background in ("opaque", "auto")),
        *({"output_format": output} for output in ("png", "jpeg", "webp")),
        {"image": ["https://a.example/1.png", "http://a.example/2.webp"]},
        {"mask": "https://a.example/mask.png"},
    ],
)
def test_every_documented_value_of_gpt_image_2_is_taken(operation: str, given: dict[str, object]) -> None:
    """The model's table of parameters, value by value."""
    assert pointers(GPT | given, operation) == {}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("given", "pointer", "detail"),
    [
        ({"n": 0}, "/input/n", "must be from 1 to 4"),
        ({"n": 5}, "/input/n", "must be from 1 to 4"),
        ({"n": 1.5}, "/input/n", "must be a whole number"),
        ({"n": True}, "/input/n", "must be a whole number"),
        (
            {"size": "512x512"},
            "/input/size",
            "must be one of 1024x1024, 1536x1024, 1024x1536, 2048x2048, auto",
        ),
        ({"quality": "hd"}, "/input/quality", "must be one of low, medium, high, auto"),
        ({"background": "transparent"}, "/input/background", "must be one of opaque, auto"),
        ({"output_format": "gif"}, "/input/output_format", "must be one of png, jpeg, webp"),
        ({"image": "https://a.example/1.png"}, "/input/image", "must be a list"),
        ({"mask": ["https://a.example/1.png"]}, "/input/mask", "must be a text"),
        (
            {"image": ["https://a.example/1.png", "cat.png"]},
            "/input/image/1",
            "must be an http(s) URL or a data URL (data:image/…;base64,…)",
        ),
        ({"mask": "data:image/png;base64,AAAA"}, "/input/mask", "is no PNG image"),
    ],
)
def test_every_limit_of_gpt_image_2_is_told(
    operation: str, given: dict[str, object], pointer: str, detail: str
) -> None:
    """The field, and what would be right."""
    assert pointers(GPT | given, operation) == {pointer: detail}


def test_unknown_field_of_a_known_model_is_refused_and_of_an_unknown_one_passed_on() -> None:
    """Each model has its own parameters: a page that we have is held to, one that we have not is the provider's to judge."""
    (detail,) = pointers(GPT | {"style": "vivid"}).values()

    assert detail == (
        "there is no such field; known are async, background, image, mask, model, n, output_format, prompt, quality, size, timeout"
    )
    assert pointers({"model": "black-forest/flux", "prompt": "x", "style": "vivid", "n": 9}) == {}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_model_and_prompt_are_required(operation: str) -> None:
    """The two that every model has."""
    assert pointers({}, operation) == {
        "/input/model": "is required (a text of 1 to 200 characters)",
        "/input/prompt": "is required (a text)",
    }


@pytest.mark.parametrize(
    ("timeout", "right"), [(29, False), (30, True), (300, True), (1800, True), (1801, False), ("300", False)]
)
def test_timeout_is_from_30_to_1800(timeout: object, right: bool) -> None:
    """Asynchronous only, so the synchronous operation has none."""
    assert (pointers(GPT | {"timeout": timeout}) == {}) == right
    assert pointers(GPT | {"timeout": timeout}, "generate-sync") == {
        "/input/timeout": "is for asynchronous generation only: use the operation generate"
    }


@pytest.mark.parametrize(
    ("operation", "given", "sent"),
    [
        ("generate", GPT, GPT | {"async": True}),
        ("generate", GPT | {"async": True, "timeout": 60}, GPT | {"async": True, "timeout": 60}),
        ("generate-sync", GPT, GPT),
        ("generate-sync", GPT | {"async": False}, GPT | {"async": False}),
    ],
)
async def test_only_what_was_given_is_sent(operation: str, given: dict[str, object], sent: dict[str, object]) -> None:
    """`async: true` where the operation is asynchronous; no default is invented, and no callback field."""
    egress, shark = sharkai((202, TASK | {"status": "pending"}))

    await shark.submit(operation, given, CALLBACK_URL)

    (call,) = egress.calls
    assert (call.method, call.url) == ("POST", "https://shark.ai/api/v1/images/generations")
    assert json.loads(call.body or b"") == sent
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert not shark.wants_callback(operation)


def test_operation_does_not_contradict_itself() -> None:
    """Synchronous is another operation, and says so by its name."""
    assert pointers(GPT | {"async": False}) == {"/input/async": "must be true"}
    assert pointers(GPT | {"async": True}, "generate-sync") == {"/input/async": "must be false"}


@pytest.mark.parametrize(
    ("word", "seen"),
    [
        ("pending", Seen.QUEUED),
        ("running", Seen.RUNNING),
        ("completed", Seen.COMPLETED),
        ("failed", Seen.FAILED),
        ("cancelled", Seen.CANCELLED),
    ],
)
async def test_every_documented_state_is_known(word: str, seen: Seen) -> None:
    """The five words of "Poll Task Status"."""
    outcome = await sharkai((200, TASK | {"status": word}))[1].poll("generate", "task_abc123", None)

    assert outcome.observation.seen is seen
    assert outcome.observation.word_known


@pytest.mark.parametrize(
    ("credit", "money"),
    [
        (400, Money(40_000, "provider", "400")),
        (90, Money(9_000, "provider", "90")),
        (1, Money(100, "provider", "1")),
        (0.5, Money(50, "provider", "0.5")),
        (0, Money(0, "provider", "0")),
        (None, None),
        ("many", None),
        (-1, None),
    ],
)
async def test_credits_are_dollars(credit: object, money: Money | None) -> None:
    """1 USD is 10,000 credits, so 400 credits are 0.040000 USD; the figure is kept as it came."""
    done = TASK | {"status": "completed", "result": RESULT | {"credit": credit}}
    polled = await sharkai((200, done))[1].poll("generate", "task_abc123", None)
    answered = await sharkai((200, RESULT | {"credit": credit}))[1].submit("generate-sync", GPT, None)

    assert polled.observation.cost == money
    assert answered.observation.cost == money


async def test_several_images_come_in_their_order() -> None:
    """The page: "Some models return multiple images per request (check the data array length)"."""
    result = RESULT | {"data": [{"url": "https://a.example/1"}, {"b64_json": "AAAA"}, {"url": "https://a.example/2"}]}

    outcome = await sharkai((200, result))[1].submit("generate-sync", GPT, None)

    assert outcome.observation.seen is Seen.COMPLETED
    assert outcome.observation.urls == ("https://a.example/1", "https://a.example/2")
    assert outcome.observation.created_at_ms == 1_700_000_000_000


async def test_synchronous_answer_without_images_is_a_completion_without_files() -> None:
    """It was answered and will not be answered again: no lasting doubt about whether it was taken."""
    outcome = await sharkai((200, RESULT | {"data": []}))[1].submit("generate-sync", GPT, None)

    assert (outcome.verdict, outcome.observation.seen, outcome.observation.urls) == (
        Verdict.ACCEPTED,
        Seen.COMPLETED,
        (),
    )


async def test_images_in_the_answer_to_an_asynchronous_submit_are_taken() -> None:
    """Should the provider not heed `async`, what was paid for is not lost."""
    outcome = await sharkai((200, RESULT))[1].submit("generate", GPT, None)

    assert (outcome.verdict, outcome.observation.seen) == (Verdict.ACCEPTED, Seen.COMPLETED)
    assert (outcome.observation.urls, outcome.observation.cost) == ((URL,), Money(40_000, "provider", "400"))


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (400, "invalid_request_error", (Verdict.REJECTED, ErrorCode.INVALID_INPUT)),
        (400, "content_moderation", (Verdict.REJECTED, ErrorCode.CONTENT_MODERATED)),
        (400, "input_too_large", (Verdict.REJECTED, ErrorCode.INVALID_INPUT)),
        (401, "auth_error", (Verdict.REJECTED, ErrorCode.PROVIDER_AUTH)),
        (402, "insufficient_credits", (Verdict.REJECTED, ErrorCode.PROVIDER_FUNDS)),
        (429, "rate_limit_error", (Verdict.REFUSED, ErrorCode.RATE_LIMITED)),
        (502, "provider_error", (Verdict.REFUSED, ErrorCode.PROVIDER_UNAVAILABLE)),
        (504, "timeout_error", (Verdict.UNKNOWN, ErrorCode.SUBMIT_UNKNOWN)),
        (500, "server_error", (Verdict.UNKNOWN, ErrorCode.SUBMIT_UNKNOWN)),
        (503, "server_error", (Verdict.UNKNOWN, ErrorCode.SUBMIT_UNKNOWN)),
    ],
)
@pytest.mark.parametrize("place", ["error", None])
async def test_every_documented_error_is_understood(
    operation: str, status: int, kind: str, expected: tuple[Verdict, ErrorCode], place: str | None
) -> None:
    """The eight rows of "Error Codes", wherever the words stand, and 5xx that the page does not list."""
    words = {"type": kind, "message": "no luck"}

    outcome = await sharkai((status, {place: words} if place else words))[1].submit(operation, GPT, None)

    assert (outcome.verdict, outcome.error_code) == expected
    assert outcome.message == f"sharkai answered {status}: no luck"


async def test_bare_502_is_a_gateways_and_may_have_been_taken() -> None:
    """Only the provider's own word makes a second submission safe."""
    egress = ScriptedEgress(answer(502, b"<html>502 Bad Gateway</html>"))

    outcome = await provider(egress, name="sharkai").submit("generate", GPT, None)

    assert outcome.verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("kind", "message", "code"),
    [
        ("generation_error", "Image generation failed: provider timeout", ErrorCode.PROVIDER_FAILED),
        ("content_moderation", "no", ErrorCode.CONTENT_MODERATED),
        ("generation_error", "Content blocked by safety system", ErrorCode.CONTENT_MODERATED),
        ("insufficient_credits", "no", ErrorCode.PROVIDER_FUNDS),
        ("input_too_large", "no", ErrorCode.INVALID_INPUT),
        ("timeout_error", "no", ErrorCode.PROVIDER_TIMEOUT),
        ("rate_limit_error", "no", ErrorCode.RATE_LIMITED),
        (None, None, ErrorCode.PROVIDER_FAILED),
    ],
)
async def test_failed_task_says_why(kind: str | None, message: str | None, code: ErrorCode) -> None:
    """By its type, then by its words; free, though nobody says so."""
    failed = TASK | {"status": "failed", "error": {"message": message, "type": kind}}

    outcome = await sharkai((200, failed))[1].poll("generate", "task_abc123", None)

    assert (outcome.observation.error_code, outcome.observation.error_message) == (code, message)
    assert outcome.observation.cost == Money(0, "assumed")


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (401, PollVerdict.DENIED),
        (402, PollVerdict.DENIED),
        (404, PollVerdict.NOT_FOUND),
        (429, PollVerdict.RETRY),
        (500, PollVerdict.RETRY),
        (502, PollVerdict.RETRY),
        (504, PollVerdict.RETRY),
    ],
)
async def test_poll_errors_decide_nothing(status: int, verdict: PollVerdict) -> None:
    """A poll that fails is not a task that failed."""
    outcome = await sharkai((status, {"error": {"message": "x"}}))[1].poll("generate", "task_abc123", None)

    assert (outcome.verdict, outcome.observation) == (verdict, None)


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("https://shark.ai/api/v1/images/generations/task_abc123?x=1", "?x=1"),
        ("https://forged.example/api/v1/images/generations/task_abc123", ""),
        (None, ""),
    ],
)
async def test_polling_url_is_asked_on_the_own_origin_only(given: str | None, asked: str) -> None:
    """Else the documented path is."""
    egress, shark = sharkai((200, TASK | {"status": "running"}))

    await shark.poll("generate", "task_abc123", given)

    assert egress.calls[0].url == f"https://shark.ai/api/v1/images/generations/task_abc123{asked}"


def test_cadence_and_operations_are_the_documented_ones() -> None:
    """Polls every 2–5 s; 10–180 s a task; no callback anywhere."""
    shark = sharkai()[1]

    assert 2.0 <= shark.timing("generate").poll_every_s <= 5.0
    assert 10.0 <= shark.timing("generate").typical_s <= 180.0
    assert shark.timing("generate-sync").submit_timeout_s > 180.0
    assert [shark.can_poll(operation) for operation in OPERATIONS] == [True, False]
    assert shark.estimate("generate", GPT) is None
    assert shark.validate("generate", {"prompt": "x"}) == [
        FieldError("/input/model", "is required (a text of 1 to 200 characters)")
    ]
