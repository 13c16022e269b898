"""The apimodels dialect, held against apimodels-sparkpix.txt; the expectations are written out from it."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from tests.sandbox.conftest import Caller, Endpoint, Open, WatchedClock

START_MS = 1_795_000_000_000  # where a virtual clock begins


async def test_submit_answers_as_documented(start: Open) -> None:
    """As in "Create Task Response": code, msg, and data with taskId and state, nothing else."""
    place = await start(speed=1.0)

    status, body = await place.caller.post({"model": "sparkpix", "prompt": "A cute cat wearing a space helmet"})

    assert status == 200
    task_id = body["data"]["taskId"]
    assert task_id.startswith("cl")
    assert len(task_id) == 25
    assert body == {"code": 200, "msg": "success", "data": {"taskId": task_id, "state": "pending"}}


async def test_poll_walks_through_the_documented_states(start: Open) -> None:
    """Pending, processing, completed; times in milliseconds come with the completion only."""
    clock = WatchedClock()
    place = await start(speed=1.0, clock=clock)
    task_id = await place.caller.create()
    [task] = place.server.tasks

    assert (await place.caller.poll(task_id))[1]["data"] == {"taskId": task_id, "state": "pending"}
    assert 10 <= task.queue_s + task.work_s <= 30

    await clock.pass_by(task.queue_s + 0.001)
    await place.server.until(lambda: place.server.tasks[0].state == "processing")
    assert (await place.caller.poll(task_id))[1]["data"] == {"taskId": task_id, "state": "processing"}

    await clock.pass_by(task.work_s + 0.001)
    await place.server.until(lambda: place.server.tasks[0].state == "completed")
    status, body = await place.caller.poll(task_id)
    assert status == 200
    assert body["data"] == {
        "taskId": task_id,
        "state": "completed",
        "resultUrls": [f"{place.server.base_url}/files/{task_id}.jpeg"],
        "createTime": START_MS,
        "completeTime": clock.now_ms(),
    }


@pytest.mark.parametrize(("ratio", "size"), [("1:1", (1024, 1024)), ("16:9", (1024, 576)), ("2:3", (672, 1008))])
async def test_file_is_a_jpeg_of_the_ratio(start: Open, ratio: str, size: tuple[int, int]) -> None:
    """The result is a real file of the documented kind, in the shape that was asked for."""
    place = await start()
    task_id = await place.caller.create(aspect_ratio=ratio)
    await place.ended()
    [url] = (await place.caller.poll(task_id))[1]["data"]["resultUrls"]

    async with place.caller.session.get(url) as answer:
        picture = Image.open(io.BytesIO(await answer.read()))

    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/jpeg")
    assert (picture.format, picture.size) == ("JPEG", size)


async def test_callback_is_the_query_envelope_with_the_model(start: Open, endpoint: Endpoint) -> None:
    """One POST on completion; its body is the answer to a poll plus `data.model`."""
    place = await start()
    task_id = await place.caller.create(callBackUrl=endpoint.url)

    [body] = await endpoint.wait_for(1)

    _, polled = await place.caller.poll(task_id)
    assert body.pop("data") == {**polled.pop("data"), "model": "sparkpix"}
    assert body == polled == {"code": 200, "msg": "success"}


async def test_failed_task_has_a_message_and_no_times(start: Open, endpoint: Endpoint) -> None:
    """As in "Failed Response": taskId, state and failMsg; the callback says the same."""
    place = await start("moderated")
    task_id = await place.caller.create(callback_url=endpoint.url)

    [body] = await endpoint.wait_for(1)

    failed = {"taskId": task_id, "state": "failed", "failMsg": "Content policy violation"}
    assert (await place.caller.poll(task_id)) == (200, {"code": 200, "msg": "success", "data": failed})
    assert body["data"] == {**failed, "model": "sparkpix"}


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("sk-test", 401),
        ("Bearer ", 401),
        ("Bearer sk-bad", 401),
        ("Basic eDp5", 401),
        ("Bearer sk-poor", 402),
    ],
)
async def test_keys_are_judged(start: Open, header: str | None, status: int) -> None:
    """401 for no key or a bad one, 402 for a poor one; the body repeats the code."""
    place = await start()
    place.caller.headers = {} if header is None else {"Authorization": header}

    got, body = await place.caller.post({"prompt": "a cat"})

    assert (got, body["code"], set(body)) == (status, status, {"code", "msg"})
    assert place.server.tasks == ()


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "prompt"),
        ({"prompt": "  "}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": "a", "model": []}, "model"),
        ({"prompt": "a", "aspect_ratio": "5:4"}, "aspect_ratio"),
        ({"prompt": "a", "aspect_ratio": ["1:1"]}, "aspect_ratio"),
        ({"prompt": "a", "width": 250}, "width"),
        ({"prompt": "a", "height": True}, "height"),
        ({"prompt": "a", "callBackUrl": "ftp://x/y"}, "callBackUrl"),
        ({"prompt": "a", "callBackUrl": "http://[::1"}, "callBackUrl"),
        ({"prompt": "a [fault:lost-calback]"}, "lost-callback"),
        ([], "JSON object"),
        (b"{", "JSON object"),
        (b'{"prompt": "\xff"}', "JSON object"),
        (b"[" * 100_000, "JSON object"),
        (b'{"prompt": ' + b"9" * 5000 + b"}", "JSON object"),
        (b"", "JSON object"),
    ],
)
async def test_bad_input_is_a_400_that_names_the_field(start: Open, body: Any, named: str) -> None:
    """Whatever comes is answered in the documented form, and nothing is created."""
    place = await start()

    status, answer = await place.caller.post(body)

    assert (status, answer["code"]) == (400, 400)
    assert named in answer["msg"]
    assert place.server.tasks == ()


async def test_poll_of_an_unknown_task_is_a_404(start: Open) -> None:
    """As in "404 Not Found -- task ID not found"; without an id it is a 400."""
    place = await start()

    assert (await place.caller.poll("clnever"))[0] == 404
    assert (await place.caller.get("/api/v1/images/generations"))[0] == 400


async def test_lone_surrogates_survive_the_whole_way(start: Open, endpoint: Endpoint) -> None:
    """A prompt that no UTF-8 can hold still gives a task, a file and readable lists."""
    place: Any = await start()
    caller: Caller = place.caller
    _, body = await caller.post(b'{"prompt": "half \\ud83d", "callBackUrl": "%s"}' % endpoint.url.encode())
    await endpoint.wait_for(1)

    async with caller.session.get(f"{place.server.base_url}/files/{body['data']['taskId']}.jpeg") as answer:
        assert answer.status == 200
    assert (await caller.get("/_sandbox/tasks"))[1]["tasks"][0]["prompt"] == "half \ud83d"
