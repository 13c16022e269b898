"""The synchronous operations of apimodels against apimodels-sparkpix.txt; read from it by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from service.egress import Answer
from service.errors import EgressCut
from service.providers.client import SubmitOutcome, Verdict
from service.providers.mapping import Money, Seen
from service.states import ErrorCode
from tests.providers.scripted import CALLBACK_URL, KEY, ScriptedEgress, answer, provider, quoted

PROMPT = {"prompt": "A cute cat"}
URL = "https://r2.apimodels.app/images/xxx.jpeg"
RATIOS = ("1:1", "16:9", "9:16", "4:3", "3:4", "3:2", "2:3")
OPERATIONS = ["sparkpix", "sparkpix-edit"]


def result(**fields: object) -> bytes:
    return json.dumps(
        {"code": 200, "data": {"url": URL, "model": "sparkpix", "credits": 1, "duration": 800} | fields}
    ).encode()


def pointers(given: Mapping[str, object], operation: str = "sparkpix") -> dict[str, str]:
    return {error.pointer: error.detail for error in provider(ScriptedEgress()).validate(operation, given)}


async def submitted(given: Answer | EgressCut, operation: str = "sparkpix") -> SubmitOutcome:
    return await provider(ScriptedEgress(given)).submit(operation, PROMPT, CALLBACK_URL)


@pytest.mark.parametrize(
    "given",
    [
        {},
        *({"aspect_ratio": ratio} for ratio in ("custom", *RATIOS)),
        {"width": 256, "height": 1440},
        {"aspect_ratio": "custom", "width": 1024},
        {"prompt_upsampling": True},
        {"seed": 42},
        {"seed": 0},
        {"lora_weights": "huggingface.co/owner/model"},
        {"lora_weights": "huggingface.co/owner/model/dir/file.safetensors"},
        {"lora_weights": "https://huggingface.co/owner/model"},
        {"lora_scale": -1},
        {"lora_scale": 0.5},
        {"lora_scale": 3},
    ],
)
def test_every_documented_value_of_sparkpix_is_taken(given: dict[str, object]) -> None:
    """The table "SparkPix Image params", value by value."""
    assert pointers(PROMPT | given) == {}


SIZE_ONLY = "goes only with aspect_ratio custom, or without aspect_ratio"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"aspect_ratio": "5:4"}, {"/input/aspect_ratio": "must be one of custom, 1:1, 16:9, 9:16, 4:3, 3:4, 3:2, 2:3"}),
        ({"aspect_ratio": "match_input_image"}, {"/input/aspect_ratio": "must be one of custom, 1:1, 16:9, 9:16, 4:3, 3:4, 3:2, 2:3"}),
        ({"width": 240}, {"/input/width": "must be from 256 to 1440"}),
        ({"height": 1456}, {"/input/height": "must be from 256 to 1440"}),
        ({"width": 300}, {"/input/width": "must be a multiple of 16"}),
        ({"width": "512"}, {"/input/width": "must be a whole number"}),
        ({"aspect_ratio": "16:9", "width": 512}, {"/input/width": SIZE_ONLY}),
        ({"aspect_ratio": "1:1", "width": 512, "height": 512}, {"/input/width": SIZE_ONLY, "/input/height": SIZE_ONLY}),
        ({"prompt_upsampling": "yes"}, {"/input/prompt_upsampling": "must be true or false"}),
        ({"seed": 1.5}, {"/input/seed": "must be a whole number"}),
        ({"lora_weights": "my-lora"}, {"/input/lora_weights": "does not fit: huggingface.co/<owner>/<model>[/<file.safetensors>]"}),
        ({"lora_weights": "huggingface.co/owner"}, {"/input/lora_weights": "does not fit: huggingface.co/<owner>/<model>[/<file.safetensors>]"}),
        ({"lora_scale": -1.1}, {"/input/lora_scale": "must be from -1 to 3"}),
        ({"lora_scale": 3.1}, {"/input/lora_scale": "must be from -1 to 3"}),
    ],
)  # fmt: skip
def test_every_limit_of_sparkpix_is_told(given: dict[str, object], expected: dict[str, str]) -> None:
    """The field, and what would be right."""
    assert pointers(PROMPT | given) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"images": ["https://a.example/1.jpg"], "aspect_ratio": "match_input_image", "turbo": False, "seed": 7}, {}),
        *(({"aspect_ratio": ratio}, {}) for ratio in RATIOS),
        ({"images": "https://a.example/1.jpg"}, {"/input/images": "must be a list"}),
        ({"images": ["cat.jpg"]}, {"/input/images/0": "must be an http(s) URL"}),
        ({"aspect_ratio": "custom"}, {"/input/aspect_ratio": "must be one of match_input_image, 1:1, 16:9, 9:16, 4:3, 3:4, 3:2, 2:3"}),
        ({"turbo": 1}, {"/input/turbo": "must be true or false"}),
        ({"width": 512}, {"/input/width": "there is no such field; known are aspect_ratio, callBackUrl, images, prompt, seed, turbo"}),
    ],
)  # fmt: skip
def test_every_field_of_the_edit_is_checked(given: dict[str, object], expected: dict[str, str]) -> None:
    """The table "SparkPix Image Edit params"; `images` is not marked as required."""
    assert pointers(PROMPT | given, "sparkpix-edit") == expected


@pytest.mark.parametrize("operation", ["generate", *OPERATIONS])
def test_callback_field_is_ours(operation: str) -> None:
    """One line, which says what to write instead."""
    given = PROMPT | {"model": "m", "callBackUrl": "https://a.example"}
    found = pointers(given if operation == "generate" else {k: v for k, v in given.items() if k != "model"}, operation)

    assert found == {"/input/callBackUrl": "is set by Remora itself; write the job's callback_url instead"}


@pytest.mark.parametrize(
    ("operation", "path"), [("sparkpix", "/api/v1/images/generations-sync"), ("sparkpix-edit", "/api/v1/images/edit")]
)
@pytest.mark.parametrize("callback_url", [None, CALLBACK_URL])
async def test_request_holds_the_input_and_the_callback(operation: str, path: str, callback_url: str | None) -> None:
    """The two endpoints; synchronous operations take the callback field too, and no default is invented."""
    egress = ScriptedEgress(answer(200, result()))

    await provider(egress).submit(operation, PROMPT, callback_url)

    (call,) = egress.calls
    assert (call.method, call.url) == ("POST", f"https://apimodels.app{path}")
    assert json.loads(call.body or b"") == PROMPT | ({"callBackUrl": callback_url} if callback_url else {})
    assert call.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(("operation", "micro_usd"), [("sparkpix", 10_000), ("sparkpix-edit", 13_000)])
@pytest.mark.parametrize(("credit", "raw"), [(1, "1"), (0.25, "0.25"), ("12", "12")])
async def test_answer_is_the_end_and_costs_the_documented_price(
    operation: str, micro_usd: int, credit: object, raw: str
) -> None:
    """$0.0100 and $0.0130; what a credit is nobody says, so the figure is only kept."""
    outcome = await submitted(answer(200, result(credits=credit)), operation)

    assert outcome.verdict is Verdict.ACCEPTED
    assert outcome.observation is not None
    assert (outcome.observation.seen, outcome.observation.task_id) == (Seen.COMPLETED, None)
    assert outcome.observation.urls == (URL,)
    assert outcome.observation.cost == Money(micro_usd, "price_list", raw)
    assert provider(ScriptedEgress()).estimate(operation, PROMPT) == Money(micro_usd, "price_list")


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("in_body", [False, True])
@pytest.mark.parametrize(
    ("status", "verdict", "code"),
    [
        (400, Verdict.REJECTED, ErrorCode.INVALID_INPUT),
        (401, Verdict.REJECTED, ErrorCode.PROVIDER_AUTH),
        (402, Verdict.REJECTED, ErrorCode.PROVIDER_FUNDS),
        (404, Verdict.REJECTED, ErrorCode.PROVIDER_REJECTED),
        (500, Verdict.UNKNOWN, ErrorCode.SUBMIT_UNKNOWN),
    ],
)
async def test_every_documented_error_is_understood(
    operation: str, status: int, verdict: Verdict, code: ErrorCode, *, in_body: bool
) -> None:
    """The five rows of "Error Codes", as HTTP statuses and as the body's code."""
    body = json.dumps({"code": status, "msg": "no luck"}).encode()

    outcome = await submitted(answer(200 if in_body else status, body), operation)

    assert (outcome.verdict, outcome.error_code) == (verdict, code)


async def test_cut_answer_is_healed_by_the_callback() -> None:
    """There is nothing to poll: the callback at its unguessable address brings the result, in either envelope."""
    apimodels: Any = provider(ScriptedEgress())
    outcome = await submitted(EgressCut("cut", "connection lost"))
    heard = [apimodels.read_callback("sparkpix", body, {}) for body in (result(), quoted("success-response"))]

    assert outcome.verdict is Verdict.UNKNOWN
    assert not apimodels.can_poll("sparkpix")
    assert [(said.seen, said.urls) for said in heard] == [(Seen.COMPLETED, (URL,))] * 2
    assert apimodels.read_callback("sparkpix", quoted("failed-response"), {}).error_code is ErrorCode.CONTENT_MODERATED


async def test_answer_without_an_image_is_not_the_end() -> None:
    """A 200 that names neither an image nor a task may still be worked on."""
    nothing = await submitted(answer(200, b'{"code": 200, "data": {}}'))
    task = await submitted(answer(200, quoted("create-task-response")))

    assert nothing.verdict is Verdict.UNKNOWN
    assert task.verdict is Verdict.ACCEPTED
    assert task.observation is not None
    assert (task.observation.seen, task.observation.task_id) == (Seen.QUEUED, "clxxx...")


def test_price_of_generate_counts_images() -> None:
    """$0.0100 an image."""
    apimodels = provider(ScriptedEgress())

    assert apimodels.estimate("generate", PROMPT | {"model": "sparkpix"}) == Money(10_000, "price_list")
    assert apimodels.estimate("generate", PROMPT | {"model": "sparkpix", "n": 3}) == Money(30_000, "price_list")
