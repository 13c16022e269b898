"""The service at its edges: methods, repeated headers, names of the machine, odd clients, and memory for large bodies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from litestar import HttpMethod
from litestar.handlers import HTTPRouteHandler

from service.api.listening.buffers import Bodies
from service.api.requests.hosts import is_asked_here
from service.api.server import ROUTES
from service.errors import Forbidden, Unavailable
from tests.api.conftest import ADMIN_KEY, STUCK, Served, serve
from tests.api.test_callbacks import TOKEN
from tests.api.test_callbacks import _submission as holding
from tests.receiver import PATIENCE_S

JAVA = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
JOB = json.dumps(STUCK).encode()
LARGE = 15_000_000  # bytes of one body
IDS = {"job_id": "job_01990000-0000-7000-8000-000000000000", "index": "0", "name": "apimodels"}


async def _connect(served: Served) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    where = urlsplit(served.service.url)
    return await asyncio.open_connection(where.hostname, where.port)


async def _raw(served: Served, request: bytes) -> bytes:
    reader, writer = await _connect(served)
    writer.write(request)
    async with asyncio.timeout(PATIENCE_S):
        answer = await reader.read()
    writer.close()
    return answer


def _post(path: bytes, length: int, more: bytes = b"") -> bytes:
    return (
        b"POST %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer %b\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n%b\r\n"
    ) % (path, ADMIN_KEY.encode(), length, more)


async def _token(served: Served) -> str:
    """The callback token of a job that the provider holds."""
    await holding(served)
    return TOKEN


# -- clients that ask for another protocol -------------------------------------------------------------------------------


async def test_java_client_takes_a_job_and_calls_back(served: Served) -> None:
    """Its POSTs ask for h2c: the body counts, for jobs and for callbacks."""
    taken = await _raw(served, _post(b"/v1/jobs", len(JOB), JAVA).replace(b"Connection: close\r\n", b"") + JOB
                       + b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")  # fmt: skip
    token = await _token(served)
    body = b'{"status":"succeeded"}'
    await _raw(served, _post(b"/callbacks/" + token.encode(), len(body), JAVA) + body
               + b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")  # fmt: skip
    [stored] = await served.rows("SELECT body FROM callbacks")

    assert taken.startswith(b"HTTP/1.1 202 ")
    assert bytes(stored["body"]) == body


# -- methods -------------------------------------------------------------------------------------------------------------


def _paths(method: HttpMethod) -> list[str]:
    routes = [each for each in ROUTES if isinstance(each, HTTPRouteHandler) and method in each.http_methods]
    return sorted(path for each in routes for path in each.paths)


async def test_head_works_where_get_does(served: Served) -> None:
    """The same status and headers, and no body; also for what never ends, and for what is long."""
    job = await served.completed()
    names = IDS | {"job_id": job["id"], "token": job["results"][0]["url"].rpartition("/")[2]}
    paths = _paths(HttpMethod.GET)
    differ = []
    for template in paths:
        path = template
        for part in [each for each in template.split("/") if each.startswith("{")]:
            name = part.strip("{}").partition(":")[0]
            path = path.replace(part, names.get(name, "start.js" if "static" in path else "x_1"))
        if template == "/v1/events/stream":
            async with served.client.stream("GET", path) as got:
                pass
        else:
            got = await served.client.get(path)
        head = await served.client.head(path)
        same = ["content-type", "etag", "cache-control"]  # a link is signed anew each time
        if (
            head.status_code != got.status_code
            or head.content
            or any(head.headers.get(n) != got.headers.get(n) for n in same)
        ):
            differ.append(
                (path, head.status_code, got.status_code, [(head.headers.get(n), got.headers.get(n)) for n in same])
            )

    assert len(paths) > 25
    assert differ == []


async def test_options_and_405_name_every_method(served: Served) -> None:
    """Of each path, callbacks included."""
    asked = [("/v1/jobs", {"GET", "HEAD", "POST", "OPTIONS"}), ("/healthz", {"GET", "HEAD", "OPTIONS"}),
             ("/callbacks/x", {"POST", "OPTIONS"}), ("/v1/subscriptions/x", {"GET", "HEAD", "PATCH", "DELETE", "OPTIONS"}),
             ("/v1/jobs/x/cancel", {"POST", "OPTIONS"}), ("/metrics", {"GET", "HEAD", "OPTIONS"})]  # fmt: skip
    found = []
    for path, _ in asked:
        for method, status in (("OPTIONS", 204), ("PUT", 405)):
            answer = await served.stranger.request(method, path)
            assert answer.status_code == status, (method, path)
            found.append((path, {each.strip() for each in answer.headers["allow"].split(",")}))

    assert found == [each for each in asked for _ in range(2)]


# -- repeated headers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [b"Idempotency-Key: a", b"Authorization: Bearer x", b"Content-Type: text/plain", b"Host: y", b"Range: bytes=0-1"],
)
async def test_header_that_there_can_only_be_one_of_is_refused_twice(served: Served, line: bytes) -> None:
    """400 names it, and nothing is stored: a proxy in front may have read the other one."""
    both = line + b"\r\n" + line + b"\r\n"
    answer = await _raw(served, _post(b"/v1/jobs", len(JOB), both) + JOB)
    told = json.loads(answer.partition(b"\r\n\r\n")[2])

    assert (told["status"], told["code"]) == (400, "header_repeated")
    assert line.partition(b":")[0].decode() in told["detail"]
    assert await served.count() == 0


async def test_repeated_headers_of_other_kinds_are_taken(served: Served) -> None:
    """Lists may come in several lines, and providers may send what they like."""
    listed = b"Prefer: wait=0\r\nPrefer: respond-async\r\nX-Forwarded-For: a\r\nX-Forwarded-For: b\r\n"
    answer = await _raw(served, _post(b"/v1/jobs", len(JOB), listed) + JOB)
    token = await _token(served)
    twice = b"Content-Type: application/json\r\nIdempotency-Key: a\r\nIdempotency-Key: a\r\n"
    called = await _raw(served, _post(b"/callbacks/" + token.encode(), 2, twice) + b"{}")

    assert answer.startswith(b"HTTP/1.1 202 ")
    assert called.startswith(b"HTTP/1.1 200 ")


# -- names of the machine ------------------------------------------------------------------------------------------------


async def test_metrics_are_open_only_to_who_names_this_machine(tmp_path: Path) -> None:
    """A page whose name was rebound to loopback reads nothing; a key opens it under any name."""
    async with serve(tmp_path, REMORA_PUBLIC_URL="https://images.example/remora") as served:
        status = {}
        for host in ("localhost", "localhost:1", "LOCALHOST.", "127.0.0.1:8090", "127.1.2.3", "[::1]:8090", "images.example",
                     "images.example:443", "evil.example", "evil.example:8090", "127.0.0.1.evil.example", "", "]", "[", "a@localhost",
                     "localhost.evil.example", "10.0.0.1", "\x7f"):  # fmt: skip
            status[host] = (await served.stranger.get("/metrics", headers={"Host": host})).status_code
        keyed = await served.client.get("/metrics", headers={"Host": "evil.example"})
        wrong = await served.stranger.get("/metrics", headers={"Host": "evil.example", "Authorization": "Bearer x"})
        health = await served.stranger.get("/healthz", headers={"Host": "evil.example"})

    here = [host for host, found in status.items() if found == 200]
    assert here == list(status)[:8]
    assert set(status.values()) <= {200, 400, 403}
    assert (keyed.status_code, wrong.status_code, health.status_code) == (200, 401, 200)


def test_request_without_a_host_is_no_browser() -> None:
    """HTTP/1.0 has none; what has one that is foreign needs a key."""
    foreign = {"headers": [(b"host", b"evil.example")]}

    assert is_asked_here({"headers": []}, None)  # type: ignore[arg-type]
    with pytest.raises(Forbidden):
        is_asked_here(foreign, None)  # type: ignore[arg-type]


# -- memory for bodies ---------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def small(tmp_path: Path) -> AsyncIterator[Served]:
    """A service with memory for two large bodies, one for each account."""
    async with serve(tmp_path, REMORA_BODY_MEMORY="32MiB") as served:
        yield served


async def test_unfinished_bodies_have_one_bound(small: Served) -> None:
    """Six of 15 MB, with room for one: each is read in its turn, to its unknown field; small ones pass meanwhile; all memory comes back."""
    bodies = small.service._app.state.context.memory.bodies
    callers = [await _connect(small) for _ in range(6)]
    body = b'{"nowhere":"' + b"x" * (LARGE - 14) + b'"}'
    most = 0

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        nonlocal most
        writer.write(_post(b"/v1/jobs", LARGE) + body)
        await writer.drain()
        most = max(most, bodies.held)
        return await reader.readuntil(b"\r\n\r\n")

    async with asyncio.timeout(PATIENCE_S):
        sending = [asyncio.create_task(send(*caller)) for caller in callers]
        taken = await small.client.post("/v1/jobs", json=STUCK)
        answers = await asyncio.gather(*sending)
    for _, writer in callers:
        writer.transport.abort()

    assert {answer.split(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 422 Unprocessable Entity"}
    assert 0 < most <= 16 * 2**20
    assert taken.status_code == 202
    assert bodies.held == 0


def _scopes(count: int) -> list[Any]:
    """Of requests that hold nothing."""
    return [{"state": {}} for _ in range(count)]


async def test_body_that_finds_no_room_in_time_is_told_to_come_again() -> None:
    """Its turn is over then, and nobody stands behind it."""
    bodies = Bodies(100, wait_s=0.02)
    filler, first, small = _scopes(3)
    bodies.hold(filler, "a", 40)
    with pytest.raises(Unavailable, match="send this one again"):
        await bodies.wait_for(first, "a", 20)
    await bodies.wait_for(small, "a", 10)

    assert bodies.held == 40 + 10


async def test_bodies_of_an_account_are_let_in_in_order_and_those_of_others_past_them() -> None:
    """A large body does not wait for ever while small ones pass; but an account at its own bound is in nobody else's way."""
    bodies = Bodies(100)
    filler, first, behind, other = _scopes(4)
    bodies.hold(filler, "a", 40)
    waits = asyncio.create_task(bodies.wait_for(first, "a", 20))
    await asyncio.sleep(0)
    also = asyncio.create_task(bodies.wait_for(behind, "a", 10))
    await bodies.wait_for(other, "b", 50)
    assert not also.done()
    waits.cancel()
    await also

    assert bodies.held == 40 + 50 + 10


async def test_accounts_take_turns_for_the_room_for_bodies() -> None:
    """However many bodies wait of those that were there first."""
    bodies = Bodies(100)
    first, second, *waiting = _scopes(8)
    bodies.hold(first, "a", 50)
    bodies.hold(second, "b", 50)
    done: list[str] = []
    holders = [first, second]

    async def wait(scope: Any, owner: str) -> None:
        await bodies.wait_for(scope, owner, 50)
        done.append(owner)
        holders.append(scope)

    tasks = [asyncio.create_task(wait(scope, owner)) for scope, owner in zip(waiting, "aabbca", strict=True)]
    await asyncio.sleep(0)
    for holder in holders:  # which grows meanwhile
        bodies.give_back(holder)
        for _ in range(3):
            await asyncio.sleep(0)
    await asyncio.gather(*tasks)

    assert done == ["a", "b", "c", "a", "b", "a"]
    assert bodies.held == 0


async def test_bodies_whose_time_is_over_together_are_all_told() -> None:
    """Whoever gives up makes room for nobody who has given up in the same moment."""
    bodies = Bodies(100, wait_s=0.02)
    filler, *others = _scopes(30)
    bodies.hold(filler, "a", 40)
    waits = [bodies.wait_for(scope, "a", 20 if place == 0 else 1 + place % 9) for place, scope in enumerate(others)]
    answers = await asyncio.gather(*waits, return_exceptions=True)
    for scope in (filler, *others):
        bodies.give_back(scope)

    assert {type(answer) for answer in answers} <= {Unavailable, type(None)}
    assert bodies.held == 0


async def test_refusal_of_a_body_that_was_not_asked_for_ends_the_connection(served: Served) -> None:
    """Whoever waits for a 100 and gets an answer may leave the body out, and nobody could tell it from a next request."""
    asked = _post(b"/v1/jobs", 20_000, b"Expect: 100-continue\r\n").replace(b"Connection: close\r\n", b"")
    answer = await _raw(served, asked.replace(ADMIN_KEY.encode(), b"rmk_nobody"))

    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close\r\n" in answer


@pytest.mark.parametrize("granted", [True, False])
async def test_request_that_is_cut_off_leaves_its_turn(granted: bool) -> None:
    """Also where its turn came at the same moment: what it was given comes back with the request."""
    bodies = Bodies(100)
    filler, cut = _scopes(2)
    bodies.hold(filler, "a", 50)
    waits = asyncio.create_task(bodies.wait_for(cut, "a", 20))
    await asyncio.sleep(0)
    if granted:
        bodies.give_back(filler)
    waits.cancel()
    await asyncio.gather(waits, return_exceptions=True)
    bodies.give_back(cut)
    bodies.give_back(filler)

    assert bodies.held == 0


async def test_body_that_breaks_off_gives_its_memory_back(small: Served) -> None:
    """Whatever ends the request."""
    bodies = small.service._app.state.context.memory.bodies
    _, writer = await _connect(small)
    writer.write(_post(b"/v1/jobs", LARGE) + b" " * 3_000_000)
    await writer.drain()
    async with asyncio.timeout(PATIENCE_S):
        while not bodies.held:  # noqa: ASYNC110 - of a server's inside that tells nobody
            await asyncio.sleep(0.01)
        writer.transport.abort()
        while bodies.held:  # noqa: ASYNC110 - the same
            await asyncio.sleep(0.01)


async def test_stranger_has_no_body_read(small: Served) -> None:
    """401 and 404 come before the body: an unknown key and an unknown token take up no memory."""
    bodies = small.service._app.state.context.memory.bodies
    for head in (_post(b"/v1/jobs", LARGE).replace(ADMIN_KEY.encode(), b"rmk_x"), _post(b"/callbacks/x", LARGE)):
        reader, writer = await _connect(small)
        writer.write(head + b" " * 200_000)
        async with asyncio.timeout(PATIENCE_S):
            answer = await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

        assert answer.split()[1] in {b"401", b"404"}
        assert bodies.held == 0


async def test_large_callback_is_kept_or_told_to_come_again(small: Served) -> None:
    """A token that is known: 256 KiB are kept where there is room, else 503; a small one always passes."""
    bodies = small.service._app.state.context.memory.bodies
    token = (await _token(small)).encode()
    large = b'{"a":"' + b"x" * 200_000 + b'"}'
    head = b"POST /callbacks/%b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    kept = await _raw(small, head % (token, len(large)) + large)
    filler: Any = {"state": {}}
    bodies.hold(filler, "", 16 * 2**20)
    refused = await _raw(small, head % (token, len(large)) + large)
    passed = await _raw(small, head % (token, 2) + b"{}")
    bodies.give_back(filler)
    stored = await small.rows("SELECT length(body) AS n FROM callbacks ORDER BY n")

    assert kept.startswith(b"HTTP/1.1 200 ")
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"busy" in refused
    assert passed.startswith(b"HTTP/1.1 200 ")
    assert [row["n"] for row in stored] == [2, len(large)]
    assert bodies.held == 0
