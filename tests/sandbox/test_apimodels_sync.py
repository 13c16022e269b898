"""The two synchronous endpoints of apimodels, held against apimodels-sparkpix.txt; expectations are written out from it."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import aiohttp
import pytest
from PIL import Image

from tests.sandbox.conftest import Endpoint, Open, WatchedClock

IMAGE, EDIT = "/api/v1/images/generations-sync", "/api/v1/images/edit"
CAT = {"prompt": "A cute cat wearing a space helmet, digital art", "aspect_ratio": "16:9", "seed": 42}
BEACH = {
    "prompt": "Make the background a sunset beach",
    "images": ["https://example.com/photo.jpg"],
    "aspect_ratio": "16:9",
}


@pytest.mark.parametrize(("path", "wish", "model"), [(IMAGE, CAT, "sparkpix"), (EDIT, BEACH, "sparkpix-edit")])
async def test_answer_is_the_result(start: Open, path: str, wish: dict[str, Any], model: str) -> None:
    """As in "Notes": { code: 200, data: { url, model, credits, duration } }, with the page's own examples."""
    place = await start()

    status, body = await place.caller.post(wish, path)
    async with place.caller.session.get(body["data"]["url"]) as answer:
        picture = Image.open(io.BytesIO(await answer.read()))

    assert (status, body["code"], set(body)) == (200, 200, {"code", "data"})
    assert set(body["data"]) == {"url", "model", "credits", "duration"}
    assert body["data"]["model"] == model
    assert (picture.format, picture.size) == ("JPEG", (1024, 576))


async def test_answer_takes_less_than_a_second(start: Open) -> None:
    """It is "sync, <1s": the duration is that of the work."""
    clock = WatchedClock()
    place = await start(speed=1.0, clock=clock)
    answering = asyncio.ensure_future(place.caller.post(CAT, IMAGE))
    await clock.pass_by(0.2)  # the queue
    await clock.pass_by(0.79)  # the work
    _, body = await asyncio.wait_for(answering, 5)

    assert 0.3 <= body["data"]["duration"] <= 1


async def test_callback_echoes_the_result(start: Open, endpoint: Endpoint) -> None:
    """Once, in the words of the asynchronous endpoint; its task can be polled nowhere."""
    place = await start()
    _, body = await place.caller.post({**CAT, "callBackUrl": endpoint.url}, IMAGE)

    [echo] = await endpoint.wait_for(1)

    task_id = echo["data"]["taskId"]
    assert (echo["code"], echo["data"]["state"], echo["data"]["model"]) == (200, "completed", "sparkpix")
    assert echo["data"]["resultUrls"] == [body["data"]["url"]]
    await place.server.until(lambda: [sent.status for sent in place.server.callbacks] == [200])
    assert (await place.caller.poll(task_id))[0] == 404


async def test_cut_answer_is_followed_by_the_callback(start: Open, endpoint: Endpoint) -> None:
    """The echo heals what the connection lost."""
    place = await start("cut-submit")

    with pytest.raises(aiohttp.ServerDisconnectedError):
        await place.caller.post({**CAT, "callBackUrl": endpoint.url}, IMAGE)

    [echo] = await endpoint.wait_for(1)
    assert echo["data"]["state"] == "completed"


@pytest.mark.parametrize(
    ("path", "fields", "named"),
    [
        (IMAGE, {"prompt": None}, "prompt"),
        (IMAGE, {"aspect_ratio": "match_input_image"}, "aspect_ratio"),
        (IMAGE, {"width": 512}, "width is possible only"),
        (IMAGE, {"aspect_ratio": "custom", "width": 240}, "width"),
        (IMAGE, {"aspect_ratio": "custom", "height": 1456}, "height"),
        (IMAGE, {"aspect_ratio": "custom", "height": 257}, "steps of 16"),
        (IMAGE, {"prompt_upsampling": "yes"}, "prompt_upsampling"),
        (IMAGE, {"seed": 1.5}, "seed"),
        (IMAGE, {"lora_weights": "example.com/a/b"}, "lora_weights"),
        (IMAGE, {"lora_weights": "huggingface.co/owner"}, "lora_weights"),
        (IMAGE, {"lora_scale": -1.1}, "lora_scale"),
        (IMAGE, {"lora_scale": 3.1}, "lora_scale"),
        (IMAGE, {"callBackUrl": "nowhere"}, "callBackUrl"),
        (EDIT, {"prompt": " "}, "prompt"),
        (EDIT, {"aspect_ratio": "custom"}, "aspect_ratio"),
        (EDIT, {"images": "https://example.com/photo.jpg"}, "images"),
        (EDIT, {"images": ["data:image/png;base64,AAAA"]}, "images[0]"),
        (EDIT, {"turbo": 1}, "turbo"),
        (EDIT, {"seed": "7"}, "seed"),
    ],
)
async def test_bad_field_is_a_400_that_names_it(start: Open, path: str, fields: dict[str, Any], named: str) -> None:
    """Everything that the page limits is held to its limit."""
    place = await start()

    status, body = await place.caller.post({**(CAT if path == IMAGE else BEACH), **fields}, path)

    assert (status, body["code"]) == (400, 400)
    assert named in body["msg"]
    assert place.server.tasks == ()


@pytest.mark.parametrize(
    ("path", "wish"),
    [
        (IMAGE, {"prompt": "a", "width": 256, "height": 1440, "prompt_upsampling": True, "lora_scale": -1}),
        (IMAGE, {"prompt": "a", "lora_weights": "huggingface.co/owner/model/file.safetensors", "lora_scale": 3}),
        (EDIT, {"prompt": "a", "turbo": False, "seed": 0, "aspect_ratio": "match_input_image"}),
    ],
)
async def test_everything_documented_is_taken(start: Open, path: str, wish: dict[str, Any]) -> None:
    """Each field at the edge of its range; images are not marked as required."""
    place = await start()

    assert (await place.caller.post(wish, path))[0] == 200


@pytest.mark.parametrize(("fault", "status"), [("failed", 500), ("moderated", 400)])
async def test_failure_is_an_error_and_is_called_back(start: Open, endpoint: Endpoint, fault: str, status: int) -> None:
    """There is no task to fail in the answer, but there is one in the callback."""
    place = await start(fault)

    got, body = await place.caller.post({**CAT, "callBackUrl": endpoint.url}, IMAGE)

    assert (got, body["code"]) == (status, status)
    assert (await endpoint.wait_for(1))[0]["data"]["state"] == "failed"


async def test_completed_without_file_has_no_url(start: Open) -> None:
    """A success with nothing to show."""
    place = await start("completed-without-file")

    status, body = await place.caller.post(CAT, IMAGE)

    assert (status, body["data"]["url"]) == (200, None)
