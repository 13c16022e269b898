"""Each fault, seen from outside: what the client and the callback's receiver get to see."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from tests.sandbox.conftest import Endpoint, Open, WatchedClock

URL = "/api/v1/images/generations"


async def test_lost_callback_never_comes(start: Open, endpoint: Endpoint) -> None:
    """The task completes, the poll says so, and nobody is called."""
    place = await start()
    task_id = await place.caller.create("a cat [fault:lost-callback]", callBackUrl=endpoint.url)
    other = await place.caller.create("a dog", callBackUrl=endpoint.url)
    await place.server.until(lambda: {task.state for task in place.server.tasks} == {"completed"})

    bodies = await endpoint.wait_for(1)

    assert [body["data"]["taskId"] for body in bodies] == [other]
    assert (await place.caller.poll(task_id))[1]["data"]["state"] == "completed"


async def test_double_callback_comes_twice(start: Open, endpoint: Endpoint) -> None:
    """The same body, two requests."""
    place = await start("double-callback")
    await place.caller.create(callBackUrl=endpoint.url)

    first, second = await endpoint.wait_for(2)

    assert first == second


async def test_late_callback_waits(start: Open, endpoint: Endpoint) -> None:
    """The end is there for polls long before the callback comes."""
    clock = WatchedClock()
    place = await start("late-callback:60", speed=1.0, clock=clock)
    task_id = await place.caller.create(callBackUrl=endpoint.url)
    await clock.pass_by(30)  # the queue
    await clock.pass_by(30)  # the work
    await place.server.until(lambda: place.server.tasks[0].state == "completed")
    assert (await place.caller.poll(task_id))[1]["data"]["state"] == "completed"
    assert endpoint.bodies == []

    await clock.pass_by(60)

    assert (await endpoint.wait_for(1))[0]["data"]["taskId"] == task_id


async def test_early_callback_is_answered_before_the_submit(start: Open, endpoint: Endpoint) -> None:
    """When the submit is answered (pending), the completion was already called and taken."""
    place = await start("early-callback", speed=0.001)

    status, body = await place.caller.post({"prompt": "a cat", "callBackUrl": endpoint.url})

    assert (status, body["data"]["state"]) == (200, "pending")
    [called] = [json.loads(body) for body in endpoint.bodies]
    assert (called["data"]["taskId"], called["data"]["state"]) == (body["data"]["taskId"], "completed")


async def test_forged_callbacks_come_while_the_task_is_at_work(start: Open, endpoint: Endpoint) -> None:
    """Two lies first (a false file, a foreign id), then the truth."""
    place = await start("forged-callback")
    task_id = await place.caller.create(callBackUrl=endpoint.url)

    false_file, foreign, true = [body["data"] for body in await endpoint.wait_for(3)]

    assert (false_file["taskId"], false_file["state"]) == (task_id, "completed")
    assert false_file["resultUrls"] == [f"https://forged.example/files/{task_id}.jpeg"]
    assert foreign["taskId"] != task_id
    assert true["resultUrls"] == [f"{place.server.base_url}/files/{task_id}.jpeg"]


async def test_conflicting_callback_says_failed_after_completed(start: Open, endpoint: Endpoint) -> None:
    """Two ends for one task; the poll stays with the first."""
    place = await start("conflicting-callback")
    task_id = await place.caller.create(callBackUrl=endpoint.url)

    bodies = await endpoint.wait_for(2)

    assert [(body["data"]["taskId"], body["data"]["state"]) for body in bodies] == [
        (task_id, "completed"),
        (task_id, "failed"),
    ]
    assert (await place.caller.poll(task_id))[1]["data"]["state"] == "completed"


@pytest.mark.parametrize(("how", "size"), [("json", 10), ("utf8", 10), ("huge", 1_000_000)])
async def test_garbled_callback_cannot_be_read(start: Open, endpoint: Endpoint, how: str, size: int) -> None:
    """Cut JSON, bytes that are no UTF-8, or far too many of them."""
    place = await start(f"garbled-callback:{how}")
    await place.caller.create(callBackUrl=endpoint.url)
    await place.server.until(lambda: len(place.server.callbacks) == 1)

    [body] = endpoint.bodies

    assert len(body) > size
    if how != "huge":
        with pytest.raises(ValueError):
            json.loads(body.decode("utf-8"))


async def test_callback_is_tried_again_until_2xx(start: Open, endpoint: Endpoint) -> None:
    """A redirect and errors are no success; after the first 2xx there is silence."""
    place = await start()
    endpoint.answers = [503, 302, 404, 500, 201]

    await place.caller.create(callBackUrl=endpoint.url)
    await place.server.until(lambda: len(place.server.callbacks) == 5)

    assert [sent.status for sent in place.server.callbacks] == [503, 302, 404, 500, 201]
    assert [sent.attempt for sent in place.server.callbacks] == [1, 2, 3, 4, 5]
    assert len(endpoint.bodies) == 5


@pytest.mark.parametrize("status", [429, 400, 401, 402])
async def test_refused_submit_creates_nothing(start: Open, status: int) -> None:
    """The refusal is in the documented form; a 429 says when to come back."""
    place = await start(f"refused-submit:{status}=1")

    async with place.caller.session.post(
        place.server.base_url + URL, json={"prompt": "a"}, headers=place.caller.headers
    ) as answer:
        body = await answer.json()

    assert (answer.status, body["code"]) == (status, status)
    assert answer.headers.get("Retry-After") == ("1" if status == 429 else None)
    assert place.server.tasks == ()
    await place.caller.create()  # the count is used up


@pytest.mark.parametrize(("fault", "created"), [("cut-submit", 1), ("cut-submit-lost", 0)])
async def test_cut_submit_closes_the_connection_without_a_byte(start: Open, fault: str, created: int) -> None:
    """A raw client reads the end of the stream, or a reset, where an answer should be."""
    place = await start(fault)
    host, port = place.server.base_url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = b'{"prompt": "a cat"}'
    head = f"POST {URL} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)

    try:
        got = await asyncio.wait_for(reader.read(), 5)
    except ConnectionResetError:
        got = b""
    writer.close()

    assert got == b""
    assert (len(place.server.tasks), len(place.server.requests)) == (created, 1)


async def test_cut_submit_still_calls_back(start: Open, endpoint: Endpoint) -> None:
    """The client sees a cut connection, and its callback comes all the same: the way a lost answer heals."""
    place = await start("cut-submit")

    with pytest.raises(aiohttp.ServerDisconnectedError):
        await place.caller.create(callBackUrl=endpoint.url)

    [body] = await endpoint.wait_for(1)
    assert body["data"]["state"] == "completed"


async def test_slow_submit_answers_later(start: Open, endpoint: Endpoint) -> None:
    """The task lives while its submit waits: the callback comes first."""
    clock = WatchedClock()
    place = await start("slow-submit:90", speed=1.0, clock=clock)
    submitting = asyncio.ensure_future(place.caller.create(callBackUrl=endpoint.url))
    await place.server.until(lambda: len(place.server.tasks) == 1)
    await clock.pass_by(30, sleepers=2)  # the submit's answer and the queue
    await clock.pass_by(30, sleepers=2)  # the submit's answer and the work
    await endpoint.wait_for(1)
    assert not submitting.done()

    clock.advance(30)

    assert await asyncio.wait_for(submitting, 5) == place.server.tasks[0].id


async def test_stop_does_not_wait_for_a_slow_submit(start: Open) -> None:
    """A sandbox that is told to stop breaks off what is still going on."""
    place = await start("slow-submit:3600")
    submitting = asyncio.ensure_future(place.caller.create())
    await place.server.until(lambda: len(place.server.tasks) == 1)

    async with asyncio.timeout(3):
        await place.server.stop()
        with pytest.raises(aiohttp.ClientError):
            await submitting


@pytest.mark.parametrize(
    ("fault", "statuses"), [("failing-polls:3", [500, 429, 500, 200]), ("not-found-lag:2", [404, 404, 200, 200])]
)
async def test_polls_fail_as_often_as_wished(start: Open, fault: str, statuses: list[int]) -> None:
    """The first k polls of a task fail, then they tell the truth."""
    place = await start(fault)
    task_id = await place.caller.create()

    assert [(await place.caller.poll(task_id))[0] for _ in statuses] == statuses


async def test_completed_without_file_has_no_urls(start: Open) -> None:
    """A completion without anything to show."""
    place = await start("completed-without-file,instant")
    _, body = await place.caller.post({"prompt": "a cat"})

    assert (body["data"]["state"], body["data"]["resultUrls"]) == ("completed", [])


async def test_instant_answers_completed_and_echoes(start: Open, endpoint: Endpoint) -> None:
    """The submit's own answer is final; the callback follows all the same."""
    place = await start("instant", speed=0.001)
    status, body = await place.caller.post({"prompt": "a cat", "callBackUrl": endpoint.url})

    assert (status, body["data"]["state"], len(body["data"]["resultUrls"])) == (200, "completed", 1)
    assert (await endpoint.wait_for(1))[0]["data"]["taskId"] == body["data"]["taskId"]


async def test_failed_task_says_why(start: Open) -> None:
    """A failure that is not the content's."""
    place = await start("failed,instant")
    _, body = await place.caller.post({"prompt": "a cat"})

    assert body["data"]["state"] == "failed"
    assert "policy" not in body["data"]["failMsg"]


async def test_unknown_state_word_is_said_until_the_end(start: Open) -> None:
    """A word that no document names."""
    place = await start("unknown-state-word", speed=0.001)
    _, body = await place.caller.post({"prompt": "a cat"})

    assert body["data"]["state"] == "rendering"


@pytest.mark.parametrize("where", ["submit", "poll"])
async def test_html_error_is_a_gateways(start: Open, where: str) -> None:
    """502 and HTML where JSON was expected; the task exists."""
    place = await start(f"html-error:{where}")
    session, headers = place.caller.session, place.caller.headers

    async with session.post(place.server.base_url + URL, json={"prompt": "a"}, headers=headers) as answer:
        submit = answer.status, answer.content_type
    async with session.get(
        f"{place.server.base_url}{URL}?task_id={place.server.tasks[0].id}", headers=headers
    ) as answer:
        poll = answer.status, answer.content_type

    bad, good = (502, "text/html"), (200, "application/json")
    assert (submit, poll) == ((bad, good) if where == "submit" else (good, bad))


async def test_giant_answer_is_giant(start: Open) -> None:
    """Five megabytes of valid JSON for a poll, once."""
    place = await start("giant-answer:poll")
    task_id = await place.caller.create()

    status, body = await place.caller.poll(task_id)

    assert (status, len(body["padding"])) == (200, 5 * 2**20)
    assert "padding" not in (await place.caller.poll(task_id))[1]
