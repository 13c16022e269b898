"""The server around the dialects: its log, its control paths, its start and stop, and that garbage does not hurt it."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from service.sandbox.server import SandboxOptions, SandboxServer
from tests.sandbox.conftest import Open


async def test_log_shows_requests_without_keys(start: Open) -> None:
    """Every request with headers and body, so that "submitted once" can be proven; never a key."""
    place = await start()
    await place.caller.create("a cat")
    await place.caller.get("/nowhere?x=1")

    _, log = await place.caller.get("/_sandbox/log")

    assert [(seen["method"], seen["path"]) for seen in log["requests"]] == [
        ("POST", "/api/v1/images/generations"),
        ("GET", "/nowhere"),
    ]
    assert '"prompt": "a cat"' in log["requests"][0]["body"]
    assert log["requests"][1]["query"] == {"x": "1"}
    assert log["requests"][0]["headers"]["authorization"] == "***"
    assert "sk-test" not in str(log)


async def test_faults_can_be_changed_while_it_runs(start: Open) -> None:
    """The control path replaces the whole server's faults; a bad wish changes nothing."""
    place = await start("failed")

    assert await place.caller.post({"faults": "instant,late-callback:2=3"}, "/_sandbox/faults") == (
        200,
        {"faults": "instant,late-callback:2=3"},
    )
    status, body = await place.caller.post({"faults": "lost"}, "/_sandbox/faults")
    assert (status, "unknown fault 'lost'" in body["msg"]) == (400, True)
    assert (await place.caller.post({"faults": 3}, "/_sandbox/faults"))[0] == 400
    assert (await place.caller.get("/_sandbox/faults"))[1] == {"faults": "instant,late-callback:2=3"}


async def test_tasks_are_listed(start: Open) -> None:
    """What a test wants to know of a task: its state, its faults, its polls."""
    place = await start()
    task_id = await place.caller.create("a cat [fault:moderated]")
    await place.caller.poll(task_id)
    await place.server.until(lambda: place.server.tasks[0].state == "failed")

    _, body = await place.caller.get("/_sandbox/tasks")

    [task] = body["tasks"]
    assert (task["id"], task["state"], task["faults"], task["polls"]) == (task_id, "failed", ["moderated"], 1)


async def test_welcome_names_every_fault(start: Open) -> None:
    """Who opens the sandbox in a browser learns what it can do."""
    place = await start()

    async with place.caller.session.get(place.server.base_url + "/") as answer:
        text = await answer.text()

    assert "cut-submit-lost: " in text


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /nope HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"DELETE /api/v1/images/generations HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET /files/..%2f..%2fetc%2fpasswd.jpeg HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /api/v1/images/generations?task_id=%ff%00&&=&task_id HTTP/1.1\r\nHost: x\r\n\r\n", 401),
        (b"POST /_sandbox/faults HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n\xff\xfe", 400),
        (b"GET / HTTP/1.1\r\nHost: \xff\xff\r\nX: \xfe\r\n\r\n", 200),
        (b"\x16\x03\x01\x02garbage\r\n\r\n", 400),
    ],
)
async def test_garbage_is_answered_4xx(start: Open, request_bytes: bytes, status: int) -> None:
    """No input brings it down or makes it answer 500."""
    place = await start()
    host, port = place.server.base_url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request_bytes)

    line = await asyncio.wait_for(reader.readline(), 5)
    writer.close()

    assert int(line.split(b" ")[1]) == status
    await place.caller.create()


async def test_body_above_the_limit_is_a_413(start: Open) -> None:
    """Sixteen MiB are enough for a few images."""
    place = await start()

    status, body = await place.caller.post(b"x" * (16 * 2**20 + 1))

    assert (status, body["code"]) == (413, 413)


async def test_result_urls_use_the_name_the_caller_used(start: Open) -> None:
    """In a container network the address listened on is of no use; the one that was called is."""
    place = await start("instant")
    place.caller.headers["Host"] = "sandbox.test:9090"
    _, good = await place.caller.post({"prompt": "a"})
    place.caller.headers["Host"] = "a/b"
    _, bad = await place.caller.post({"prompt": "a"})

    assert good["data"]["resultUrls"][0].startswith("http://sandbox.test:9090/files/")
    assert bad["data"]["resultUrls"][0].startswith(place.server.base_url + "/files/")


async def test_start_says_that_the_port_is_taken() -> None:
    """An OSError for the caller, not the end of the process."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = SandboxServer(SandboxOptions(port=taken.getsockname()[1]))
        with pytest.raises(OSError):
            await server.start()
        await server.stop()


async def test_stop_frees_the_port_and_ends_everything() -> None:
    """After stop the port is free and no task of the sandbox runs on."""
    before = asyncio.all_tasks()
    server = SandboxServer(SandboxOptions(speed=0.01))
    await server.start()
    port = int(server.base_url.rpartition(":")[2])
    await server.stop()

    assert asyncio.all_tasks() == before
    socket.create_server(("127.0.0.1", port)).close()


async def test_same_seed_same_run(start: Open) -> None:
    """Two sandboxes with one seed give their tasks the same durations."""
    one, other = await start(speed=1.0), await start(speed=1.0)
    for place in (one, other):
        for _ in range(3):
            await place.caller.create()

    durations = [[task.work_s for task in place.server.tasks] for place in (one, other)]
    assert durations[0] == durations[1]
    assert len(set(durations[0])) == 3


async def test_every_card_has_its_address(start: Open) -> None:
    """Two vendors share a path, so that one of them has a port of its own; the request's card is in the log."""
    place = await start("instant")

    urls = place.server.base_urls
    assert set(urls) == {"apimodels", "sharkai", "sharkapi", "sharkapi-v1"}
    assert place.server.base_url == urls["apimodels"] == urls["sharkapi"] == urls["sharkapi-v1"] != urls["sharkai"]
    await place.to("sharkai").post({"model": "m", "prompt": "a"}, "/api/v1/images/generations")
    await place.to("apimodels").post({"prompt": "a"}, "/api/v1/images/generations")
    await place.to("sharkapi").post({"prompt": "a"}, "/api/v1/image")
    await place.to("sharkapi-v1").post({"prompt": "a"}, "/v1/generate")
    await place.to("sharkai").post({"prompt": "a"}, "/v1/generate")
    assert [seen.card for seen in place.server.requests] == ["sharkai", "apimodels", "sharkapi", "sharkapi-v1", ""]
    assert [task.dialect for task in place.server.tasks] == ["sharkai", "apimodels", "sharkapi", "sharkapi-v1"]


def port_before_a_taken_one() -> tuple[int, socket.socket]:
    """A free port, and who has the next one."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
            with contextlib.suppress(OSError):  # somebody else has it: look elsewhere
                return port, socket.create_server(("127.0.0.1", port + 1))


async def test_start_needs_the_next_port_too() -> None:
    """Where only the second port is taken, it is named, and the first is left free."""
    port, taken = port_before_a_taken_one()
    with taken, pytest.raises(OSError) as caught:
        await SandboxServer(SandboxOptions(port=port)).start()

    assert caught.value.filename == f"127.0.0.1 port {port + 1}"
    socket.create_server(("127.0.0.1", port)).close()


def test_options_leave_room_for_the_second_port() -> None:
    """The last port of all has no next one."""
    with pytest.raises(ValueError, match="65534"):
        SandboxServer(SandboxOptions(port=65535))
