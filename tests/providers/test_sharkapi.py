"""SharkAPI.dev, both generations, against sharkapi-image.txt and sharkapi-generate.txt; read from them by hand."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from service.providers.client import PollVerdict, Verdict
from service.providers.mapping import Money, Seen
from service.states import ErrorCode
from tests.providers.scripted import CALLBACK_URL, KEY, ScriptedEgress, answer, provider

CARDS = Path(__file__).parents[2] / "service" / "providers" / "cards"
JOB = "3a8f2c1d-7b4e-4f9a-b2d6-1c5e8f3a9b7d"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
PRESENT = {"prompt": "A shark surfing a neon wave"}
OLDER = {"prompt": "Deep ocean shark", "mode": "2k"}
BOTH = ["sharkapi", "sharkapi-v1"]


def shark(name: str, *answers: tuple[int, object]) -> tuple[ScriptedEgress, Any]:
    egress = ScriptedEgress(*(answer(status, json.dumps(body).encode()) for status, body in answers))
    return egress, provider(egress, name=name)


def pointers(given: Mapping[str, object], name: str = "sharkapi") -> dict[str, str]:
    return {error.pointer: error.detail for error in shark(name)[1].validate("generate", given)}


async def polled(name: str, **fields: object) -> Any:
    outcome = await shark(name, (200, {"job_id": JOB, **fields}))[1].poll("generate", JOB, None)
    assert outcome.verdict is PollVerdict.OBSERVED
    return outcome.observation


@pytest.mark.parametrize(
    "given",
    [{}, {"variant": "1k"}, {"image": PNG}, {"image": f"data:image/png;base64,{PNG}"}, {"image_url": "https://your-cdn.com/r.jpg"}],
)  # fmt: skip
async def test_request_holds_the_input_and_nothing_else(given: dict[str, object]) -> None:
    """No variant where none was given, no callback, the image as it was written."""
    egress, sharkapi = shark("sharkapi", (202, {"job_id": JOB, "status": "queued"}))

    assert sharkapi.validate("generate", PRESENT | given) == []
    await sharkapi.submit("generate", PRESENT | given, CALLBACK_URL)

    (call,) = egress.calls
    assert (call.method, call.url) == ("POST", "https://www.sharkapi.dev/api/v1/image")
    assert json.loads(call.body or b"") == PRESENT | given
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert call.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("given", "pointer", "detail"),
    [
        ({"prompt": None}, "/input/prompt", "must be a text"),
        ({"prompt": ""}, "/input/prompt", "must have from 1 to 2000 characters"),
        ({"prompt": "x" * 2001}, "/input/prompt", "must have from 1 to 2000 characters"),
        ({"variant": "2k"}, "/input/variant", "must be one of 1k"),
        ({"image": PNG, "image_url": "https://a.example"}, "/input/image_url", "cannot be combined with image: send one or the other"),
        ({"image_url": "your-cdn.com/reference.jpg"}, "/input/image_url", "must be an http(s) URL"),
        ({"image": base64.b64encode(b"GIF89a" + bytes(40)).decode()}, "/input/image", "is no JPEG, PNG or WebP image"),
        ({"image": "A" * 14_400_000}, "/input/image", "must have at most 10 MB (10485760 bytes) when decoded"),
        ({"mode": "1k"}, "/input/mode", "there is no such field; known are image, image_url, prompt, variant"),
    ],
)  # fmt: skip
def test_every_limit_is_told(given: dict[str, object], pointer: str, detail: str) -> None:
    """The field, and what would be right."""
    assert pointers(PRESENT | given) == {pointer: detail}


def test_prompt_is_counted_in_characters() -> None:
    """2,000 of them, whatever their bytes are."""
    assert pointers({"prompt": "ü" * 2000}) == {}


@pytest.mark.parametrize("status", [200, 202])
@pytest.mark.parametrize("name", BOTH)
async def test_both_success_codes_are_taken_by_both(name: str, status: int) -> None:
    """One page says 202, the other 200."""
    outcome = await shark(name, (status, {"job_id": JOB, "status": "queued"}))[1].submit("generate", OLDER, None)

    assert (outcome.verdict, outcome.observation.task_id) == (Verdict.ACCEPTED, JOB)


async def test_quotes_are_estimates() -> None:
    """`price_usd` is a number, `estimated_cost` a text; both name an amount that is charged on success only."""
    present = await shark("sharkapi", (202, {"job_id": JOB, "status": "queued", "price_usd": 0.03}))[1].submit(
        "generate", PRESENT, None
    )
    older = await shark(
        "sharkapi-v1", (200, {"job_id": "job_8f2a9d3c", "status": "queued", "estimated_cost": "$0.02"})
    )[1].submit("generate", OLDER, None)

    assert present.observation.cost == Money(30_000, "estimate", "0.03")
    assert older.observation.cost == Money(20_000, "estimate", "$0.02")


@pytest.mark.parametrize(
    ("cost", "micro_usd"),
    [("$0.03", 30_000), ("$0.02", 20_000), (0.03, 30_000), ("0.01", 10_000), ("$ 1.005", 1_005_000)],
)
@pytest.mark.parametrize("name", BOTH)
async def test_cost_at_completion_is_the_truth(name: str, cost: object, micro_usd: int) -> None:
    """As a number or as a text with a dollar."""
    observation = await polled(name, status="completed", image_url="https://a.example/1.png", cost=cost)

    assert observation.cost == Money(micro_usd, "provider", str(cost))


@pytest.mark.parametrize(
    "cost", [None, "free", "$", "NaN", "Infinity", -1, True, {}, "1e999999999", "1_000", "٣", "1.2.3", "$1e"]
)
async def test_cost_that_is_no_amount_is_none(cost: object) -> None:
    """Then the price list counts."""
    observation = await polled("sharkapi", status="completed", image_url="https://a.example/1.png", cost=cost)

    assert observation.cost is None


def test_prices_are_the_documented_ones() -> None:
    """$0.03 for the one variant; $0.01 and $0.02 for the two modes."""
    assert shark("sharkapi")[1].estimate("generate", PRESENT) == Money(30_000, "price_list")
    assert shark("sharkapi-v1")[1].estimate("generate", OLDER | {"mode": "1k"}) == Money(10_000, "price_list")
    assert shark("sharkapi-v1")[1].estimate("generate", OLDER) == Money(20_000, "price_list")


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    ("word", "seen", "code"),
    [
        ("queued", Seen.QUEUED, None),
        ("processing", Seen.RUNNING, None),
        ("complete", Seen.COMPLETED, None),
        ("completed", Seen.COMPLETED, None),
        ("failed", Seen.FAILED, ErrorCode.PROVIDER_FAILED),
        ("moderated", Seen.FAILED, ErrorCode.CONTENT_MODERATED),
    ],
)
async def test_every_state_of_both_generations_is_known(
    name: str, word: str, seen: Seen, code: ErrorCode | None
) -> None:
    """Both spellings of the end; moderated is a failure that is free, whatever quote is still in the answer."""
    observation = await polled(name, status=word, image_url="https://a.example/1.png", cost="$0.03")

    assert (observation.seen, observation.error_code, observation.word_known) == (seen, code, True)
    assert observation.urls == (("https://a.example/1.png",) if seen is Seen.COMPLETED else ())
    if seen is Seen.FAILED:
        assert observation.cost == Money(0, "price_list")


async def test_times_are_iso() -> None:
    """`created_at` at the submit, `queued_at` and `completed_at` at the poll."""
    taken = await shark("sharkapi", (202, {"job_id": JOB, "status": "queued", "created_at": "2025-01-15T10:23:44Z"}))[
        1
    ].submit("generate", PRESENT, None)
    done = await polled(
        "sharkapi", status="completed", queued_at="2025-01-15T10:23:44Z", completed_at="2025-01-15T12:24:31.5+02:00"
    )

    assert taken.observation.created_at_ms == 1_736_936_624_000
    assert (done.created_at_ms, done.finished_at_ms) == (1_736_936_624_000, 1_736_936_671_500)


@pytest.mark.parametrize(
    ("status", "verdict", "code"),
    [
        (400, Verdict.REJECTED, ErrorCode.INVALID_INPUT),
        (401, Verdict.REJECTED, ErrorCode.PROVIDER_AUTH),
        (402, Verdict.REJECTED, ErrorCode.PROVIDER_FUNDS),
        (403, Verdict.REJECTED, ErrorCode.PROVIDER_AUTH),
        (422, Verdict.REJECTED, ErrorCode.PROVIDER_REJECTED),
        (429, Verdict.REFUSED, ErrorCode.RATE_LIMITED),
        (500, Verdict.REFUSED, ErrorCode.PROVIDER_UNAVAILABLE),
        (502, Verdict.UNKNOWN, ErrorCode.SUBMIT_UNKNOWN),
        (504, Verdict.UNKNOWN, ErrorCode.SUBMIT_UNKNOWN),
    ],
)
@pytest.mark.parametrize("body", [{"error": "no luck"}, {"error": {"message": "no luck"}}])
async def test_every_documented_error_is_understood(
    status: int, verdict: Verdict, code: ErrorCode, body: dict[str, object]
) -> None:
    """The six rows of "Errors", of which only the 500 is worth another try; and what the page does not list."""
    outcome = await shark("sharkapi", (status, body))[1].submit("generate", PRESENT, None)

    assert (outcome.verdict, outcome.error_code) == (verdict, code)
    assert outcome.message == f"sharkapi answered {status}: no luck"


async def test_500_of_the_older_api_may_have_been_taken() -> None:
    """Its page does not call it retryable."""
    outcome = await shark("sharkapi-v1", (500, {"error": "x"}))[1].submit("generate", OLDER, None)

    assert (outcome.verdict, outcome.error_code) == (Verdict.UNKNOWN, ErrorCode.SUBMIT_UNKNOWN)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("sharkapi", f"https://www.sharkapi.dev/api/v1/jobs/{JOB}"),
        ("sharkapi-v1", f"https://api.sharkapi.dev/v1/jobs/{JOB}"),
    ],
)
async def test_poll_asks_the_documented_address(name: str, url: str) -> None:
    """By its path, or by the relative URL that the submit gave."""
    egress, provider = shark(name, *[(200, {"job_id": JOB, "status": "queued"})] * 2)

    await provider.poll("generate", JOB, None)
    await provider.poll("generate", JOB, url)

    assert [(call.method, call.url) for call in egress.calls] == [("GET", url)] * 2
    assert provider.timing("generate").poll_every_s == 2.0
    assert 30.0 <= provider.timing("generate").typical_s <= 120.0


def test_older_api_needs_its_mode_and_passes_other_fields_on() -> None:
    """The page: "POST to /v1/generate with your prompt, mode, and optional image", whose field has no name there."""
    assert pointers({}, "sharkapi-v1") == {
        "/input/prompt": "is required (a text)",
        "/input/mode": "is required (one of 1k, 2k)",
    }
    assert pointers(OLDER | {"mode": "4k"}, "sharkapi-v1") == {"/input/mode": "must be one of 1k, 2k"}
    assert pointers(OLDER | {"reference": "https://a.example/1.png"}, "sharkapi-v1") == {}


async def test_key_may_travel_in_another_header(tmp_path: Path) -> None:
    """One page of the vendor says X-API-Key: a copy of the card with two words changed does it."""
    text = (CARDS / "sharkapi.yaml").read_text("utf-8")
    changed = text.replace(
        'header: Authorization\n  value: "Bearer {secret}"', 'header: X-API-Key\n  value: "{secret}"'
    )
    (tmp_path / "sharkapi.yaml").write_text(changed, "utf-8")
    egress = ScriptedEgress(answer(202, b'{"job_id": "a"}'))

    await provider(egress, name="sharkapi", cards_dir=tmp_path).submit("generate", PRESENT, None)

    assert egress.calls[0].headers["x-api-key"] == KEY
    assert "authorization" not in egress.calls[0].headers
