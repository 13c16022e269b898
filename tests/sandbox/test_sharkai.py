"""The sharkai dialect, held against sharkai-images.txt and sharkai-gpt-image-2.txt; expectations are written out from them."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from PIL import Image

from tests.sandbox.conftest import Open, WatchedClock

URL = "/api/v1/images/generations"
GPT = {"model": "openai/gpt-image-2", "prompt": "A cute baby sea otter floating on calm water"}
START_S = 1_795_000_000  # where a virtual clock begins
USAGE = {"input_tokens": 14, "output_tokens": 1542, "total_tokens": 1556}


def png() -> str:
    """A small picture as data URL."""
    out = io.BytesIO()
    Image.new("RGBA", (4, 4)).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


async def test_async_submit_answers_202_as_documented(start: Open) -> None:
    """As in "Async Response (202)": the task, and absolute URLs to poll and to cancel at."""
    place = await start(speed=1.0, clock=WatchedClock())
    shark = place.to("sharkai")

    status, body = await shark.post({**GPT, "async": True}, URL)

    [task] = place.server.tasks
    assert task.id.startswith("task_")
    assert (status, body) == (
        202,
        {
            "id": task.id,
            "object": "image.generation.task",
            "status": "pending",
            "created": START_S,
            "timeout": 300,
            "polling_url": f"{shark.url}{URL}/{task.id}",
            "cancel_url": f"{shark.url}{URL}/{task.id}/cancel",
        },
    )


async def test_poll_walks_through_the_documented_states(start: Open) -> None:
    """Pending, running, completed, where the result has pictures, usage and credit."""
    clock = WatchedClock()
    place = await start(speed=1.0, clock=clock)
    shark = place.to("sharkai")
    _, made = await shark.post({**GPT, "async": True, "timeout": 1800, "quality": "high"}, URL)
    path, [task] = f"{URL}/{made['id']}", place.server.tasks
    base = {"id": made["id"], "object": "image.generation.task", "created": START_S, "timeout": 1800}

    assert await shark.get(path) == (200, {**base, "status": "pending"})
    await clock.pass_by(task.queue_s + 0.001)
    await place.server.until(lambda: place.server.tasks[0].state == "processing")
    assert await shark.get(path) == (200, {**base, "status": "running"})
    await clock.pass_by(task.work_s + 0.001)
    await place.ended()
    status, body = await shark.get(path)

    result = body.pop("result")
    [picture] = result.pop("data")
    assert (status, body) == (200, {**base, "status": "completed"})
    assert result == {"created": START_S, "usage": USAGE, "credit": 400}
    assert picture["url"].startswith(f"{shark.url}/files/{made['id']}.png?expires=")


@pytest.mark.parametrize("flag", [{}, {"async": False}])
async def test_sync_submit_waits_for_the_result(start: Open, flag: dict[str, bool]) -> None:
    """As in "Sync Response (200)", which names no task; the model's page has credit 90."""
    place = await start()

    status, body = await place.to("sharkai").post({**GPT, "n": 1, "size": "auto", **flag}, URL)

    [picture] = body.pop("data")
    assert status == 200
    assert picture["url"].startswith(f"{place.server.base_urls['sharkai']}/files/task_")
    assert body == {"created": place.server.tasks[0].created_ms // 1000, "usage": USAGE, "credit": 90}


async def test_every_picture_of_a_request_is_a_file_of_its_own(start: Open) -> None:
    """`n` pictures, each in the size and the format that was asked for."""
    place = await start()
    wish = {**GPT, "n": 3, "size": "1536x1024", "output_format": "webp", "quality": "high"}
    _, body = await place.to("sharkai").post(wish, URL)

    seen = []
    for each in body["data"]:
        async with place.caller.session.get(each["url"]) as answer:
            data = await answer.read()
            picture = Image.open(io.BytesIO(data))
            seen.append((answer.content_type, picture.format, picture.size, data))

    assert [part[:3] for part in seen] == [("image/webp", "WEBP", (1536, 1024))] * 3
    assert len({part[3] for part in seen}) == 3
    assert body["credit"] == 1200


async def test_file_urls_are_signed_and_short_lived(start: Open) -> None:
    """A URL dies, a changed one never lived, and another poll gives a fresh one."""
    clock = WatchedClock()
    place = await start("instant", clock=clock)
    shark = place.to("sharkai")
    _, made = await shark.post({**GPT, "async": True}, URL)
    url = made["result"]["data"][0]["url"]

    async def status(url: str) -> int:
        async with place.caller.session.get(url) as answer:
            return int(answer.status)

    assert await status(url) == 200
    assert [await status(bad) for bad in (url[:-1], url.partition("?")[0], url.replace("=1", "=9"))] == [403] * 3
    clock.advance(600)
    assert await status(url) == 403
    _, body = await shark.get(f"{URL}/{made['id']}")
    assert await status(body["result"]["data"][0]["url"]) == 200


async def test_failed_task_has_the_documented_error(start: Open) -> None:
    """As in "Failed Response"; moderation has the type of "Error Codes"."""
    place = await start("instant,failed")
    shark = place.to("sharkai")

    _, failed = await shark.post({**GPT, "async": True}, URL)
    _, moderated = await shark.post({**GPT, "async": True, "prompt": "x [fault:moderated]"}, URL)

    assert failed["status"] == moderated["status"] == "failed"
    assert failed["error"] == {"message": "Image generation failed: provider timeout", "type": "generation_error"}
    assert moderated["error"]["type"] == "content_moderation"
    assert "result" not in failed


@pytest.mark.parametrize(
    ("faults", "status", "kind"),
    [
        ("failed", 502, "provider_error"),
        ("moderated", 400, "content_moderation"),
        ("refused-submit:400", 400, "invalid_request_error"),
        ("refused-submit:moderation", 400, "content_moderation"),
        ("refused-submit:too-large", 400, "input_too_large"),
        ("refused-submit:401", 401, "auth_error"),
        ("refused-submit:402", 402, "insufficient_credits"),
        ("refused-submit:429", 429, "rate_limit_error"),
        ("bad-gateway", 502, "provider_error"),
        ("gateway-timeout", 504, "timeout_error"),
    ],
)
async def test_errors_have_the_documented_types(start: Open, faults: str, status: int, kind: str) -> None:
    """Each line of "Error Codes", for a sync request."""
    place = await start(faults)

    got, body = await place.to("sharkai").post(GPT, URL)

    assert (got, body["error"]["type"], set(body)) == (status, kind, {"error"})
    assert body["error"]["message"]


async def test_pending_task_can_be_cancelled_once(start: Open) -> None:
    """Cancelled while pending; after that, as after the start, it is a 409; a foreign id is a 404."""
    clock = WatchedClock()
    place = await start(speed=1.0, clock=clock)
    shark = place.to("sharkai")
    _, made = await shark.post({**GPT, "async": True}, URL)
    path = f"{URL}/{made['id']}"

    status, body = await shark.post(b"", f"{path}/cancel")

    assert (status, body["id"], body["status"]) == (200, made["id"], "cancelled")
    assert (await shark.get(path))[1]["status"] == "cancelled"
    assert (await shark.post(b"", f"{path}/cancel"))[0] == 409
    assert (await shark.post(b"", f"{URL}/task_abc123/cancel"))[0] == 404
    await clock.pass_by(31)  # what would have been its queue
    assert (await shark.get(path))[1]["status"] == "cancelled"


async def test_started_task_cannot_be_cancelled(start: Open) -> None:
    """It "returns 409 if already started"; the task goes on."""
    clock = WatchedClock()
    place = await start(speed=1.0, clock=clock)
    shark = place.to("sharkai")
    _, made = await shark.post({**GPT, "async": True}, URL)
    await clock.pass_by(place.server.tasks[0].queue_s + 0.001)
    await place.server.until(lambda: place.server.tasks[0].state == "processing")

    status, body = await shark.post(b"", f"{URL}/{made['id']}/cancel")

    assert (status, set(body["error"])) == (409, {"message", "type"})
    await clock.pass_by(31)
    await place.ended()
    assert place.server.tasks[0].state == "completed"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"model": None}, "model"),
        ({"model": " "}, "model"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["a"]}, "prompt"),
        ({"async": "true"}, "async"),
        ({"timeout": 29}, "timeout"),
        ({"timeout": 1801}, "timeout"),
        ({"timeout": 60.5}, "timeout"),
        ({"n": 0}, "n must"),
        ({"n": 5}, "n must"),
        ({"n": True}, "n must"),
        ({"size": "512x512"}, "size"),
        ({"quality": "best"}, "quality"),
        ({"background": "transparent"}, "background"),
        ({"output_format": "gif"}, "output_format"),
        ({"image": "https://example.com/a.png"}, "image"),
        ({"image": ["https://example.com/a.png", "ftp://x/y"]}, "image[1]"),
        ({"image": ["data:image/png;base64,AAAA"]}, "image[0]"),
        ({"mask": "nowhere"}, "mask"),
    ],
)
async def test_bad_field_is_an_invalid_request_error(start: Open, fields: dict[str, Any], named: str) -> None:
    """Everything that the pages limit is held to its limit, and nothing is created."""
    place = await start()

    status, body = await place.to("sharkai").post({**GPT, **fields}, URL)

    assert (status, body["error"]["type"]) == (400, "invalid_request_error")
    assert named in body["error"]["message"]
    assert place.server.tasks == ()


async def test_everything_documented_is_taken(start: Open) -> None:
    """Every field of "Request Parameters" at once."""
    place = await start("instant")
    wish = {
        **GPT,
        "n": 4,
        "size": "2048x2048",
        "quality": "low",
        "background": "opaque",
        "output_format": "jpeg",
        "image": ["https://example.com/a.png", png()],
        "mask": "https://example.com/mask.png",
        "timeout": 30,
    }

    status, body = await place.to("sharkai").post(wish, URL)

    assert (status, len(body["data"])) == (200, 4)


async def test_other_models_have_parameters_of_their_own(start: Open) -> None:
    """As "each image model defines its own parameter schema", what this page does not know is not refused."""
    place = await start("instant")

    wish = {"model": "other/model", "prompt": "a", "n": 40, "size": "big", "quality": 7, "steps": 30}
    status, body = await place.to("sharkai").post(wish, URL)

    assert (status, len(body["data"])) == (200, 1)


async def test_foreign_links_lead_away(start: Open) -> None:
    """The URLs of the answer are of a host that nobody should ask; the documented path works."""
    place = await start("foreign-links")
    shark = place.to("sharkai")

    _, body = await shark.post({**GPT, "async": True}, URL)

    assert body["polling_url"] == f"https://forged.example{URL}/{body['id']}"
    assert body["cancel_url"] == f"https://forged.example{URL}/{body['id']}/cancel"
    assert (await shark.get(f"{URL}/{body['id']}"))[0] == 200


@pytest.mark.parametrize(("key", "kind"), [("bad", "auth_error"), ("poor", "insufficient_credits")])
async def test_keys_are_judged(start: Open, key: str, kind: str) -> None:
    """A bad key is refused everywhere, a poor one where money is asked for."""
    place = await start()
    shark = place.to("sharkai")
    shark.headers["Authorization"] = f"Bearer sk-{key}"

    submit, body = await shark.post(GPT, URL)
    poll, _ = await shark.get(f"{URL}/task_abc123")

    assert (submit, body["error"]["type"]) == ({"bad": 401, "poor": 402}[key], kind)
    assert poll == {"bad": 401, "poor": 404}[key]
