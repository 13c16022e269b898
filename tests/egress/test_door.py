"""Whole answers: what reaches the server and what comes back, for deliveries and for provider calls."""

from __future__ import annotations

import asyncio
import gzip
import logging
from collections.abc import Mapping

import pytest

from service.egress import Answer, Call
from service.egress.door import Door
from tests.egress.raw import OK, Peer, opened, polite, saying, serving

WAYS = ["deliver", "call", "call fresh"]


async def send(
    door: Door,
    way: str,
    url: str,
    *,
    body: bytes = b"{}",
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 5,
    read_bytes: int = 1000,
) -> Answer:
    """POST in one of the three ways."""
    given = headers or {}
    if way == "deliver":
        return await door.deliver(url, body, given, timeout_s=timeout_s, read_bytes=read_bytes)
    call = Call("POST", url, given, body)
    return await door.call(call, timeout_s=timeout_s, read_bytes=read_bytes, fresh=way == "call fresh")


@pytest.mark.parametrize("way", WAYS)
async def test_door_sends_and_answers(way: str) -> None:
    """Body and headers arrive as given; status, headers in lower case and body come back."""
    answer = b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 4\r\n\r\nbusy"
    async with serving(saying(answer)) as server, opened() as door:
        got = await send(door, way, server.url + "?q=%26", body=b"hello", headers={"webhook-id": "evt_1"})

    head, body = server.heard[0]
    assert head.startswith("POST /hook?q=%26 HTTP/1.1\r\n")
    assert "webhook-id: evt_1" in head
    assert body == b"hello"
    assert (got.status, got.body, got.truncated) == (503, b"busy", False)
    assert (got.headers["retry-after"], got.headers["x-a"]) == ("7", "1, 2")
    assert got.duration_ms >= 0


@pytest.mark.parametrize("way", WAYS)
async def test_door_asks_for_nothing_packed(way: str) -> None:
    """The only encoding that is asked for is none, and the client says who it is."""
    async with serving(polite) as server, opened() as door:
        await send(door, way, server.url)

    head = server.heard[0][0].lower()
    assert head.count("accept-encoding:") == 1
    assert "accept-encoding: identity\r\n" in head
    assert "user-agent: remora\r\n" in head


@pytest.mark.parametrize("way", WAYS)
async def test_door_does_not_unpack(way: str) -> None:
    """A body that is packed against our wish stays packed: a bomb is as large as it was sent."""
    bomb = gzip.compress(b"\0" * 10_000_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    async with serving(saying(head, bomb)) as server, opened() as door:
        got = await send(door, way, server.url, read_bytes=100_000)

    assert got.body == bomb
    assert not got.truncated


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("size", "truncated"), [(999, False), (1000, False), (1001, True), (300_000, True)])
async def test_door_reads_up_to_the_cap(way: str, size: int, truncated: bool) -> None:
    """At most the cap is handed on, and a body that fits it exactly is whole."""
    body = b"x" * size
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + body
    async with serving(saying(answer)) as server, opened() as door:
        got = await send(door, way, server.url, read_bytes=1000)

    assert got.body == body[:1000]
    assert got.truncated is truncated


@pytest.mark.parametrize("way", WAYS)
async def test_door_stops_reading_an_endless_body(way: str) -> None:
    """A body without an end is cut at the cap at once, and its connection is given up."""

    async def endless(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await peer.say(b"y" * 10_000)

    async with serving(endless) as server, opened() as door:
        got = await send(door, way, server.url)
        await send(door, way, server.url)

    assert got.body == b"y" * 1000
    assert got.truncated
    assert server.connections == 2


@pytest.mark.parametrize("way", WAYS)
async def test_door_follows_no_redirect(way: str) -> None:
    """A redirect is an answer like any other: what it points to was never judged."""
    async with serving(polite) as other, opened() as door:
        answer = f"HTTP/1.1 307 Moved\r\nLocation: {other.url}\r\nContent-Length: 0\r\n\r\n"
        async with serving(saying(answer.encode())) as server:
            got = await send(door, way, server.url)

    assert got.status == 307
    assert got.headers["location"] == other.url
    assert other.connections == 0


@pytest.mark.parametrize("way", WAYS)
async def test_door_keeps_no_cookies(way: str) -> None:
    """What a server sets is not sent back: accounts share the door."""

    async def setting(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.say(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 0\r\n\r\n")

    async with serving(setting) as server, opened() as door:
        await send(door, way, server.url)
        await send(door, way, server.url)

    assert len(server.heard) == 2
    assert "cookie" not in server.heard[1][0].lower()


@pytest.mark.parametrize("way", WAYS)
async def test_door_ignores_the_proxies_of_the_environment(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would dial addresses that nobody judged."""
    async with serving(polite) as proxy, serving(polite) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        async with opened() as door:
            await send(door, way, server.url)

    assert proxy.connections == 0
    assert len(server.heard) == 1


@pytest.mark.parametrize("way", WAYS)
async def test_door_sends_large_bodies_whole(way: str) -> None:
    """An input of several megabytes arrives with its length, unchanged."""
    body = bytes(range(256)) * 12_000
    async with serving(polite) as server, opened() as door:
        await send(door, way, server.url, body=body)

    head, heard = server.heard[0]
    assert heard == body
    assert "transfer-encoding" not in head.lower()


@pytest.mark.parametrize("way", WAYS)
async def test_door_takes_an_answer_that_comes_early(way: str) -> None:
    """A server that refuses a large body without reading it is heard at once."""

    async def refuse(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await asyncio.Event().wait()

    async with serving(refuse) as server, opened() as door:
        got = await send(door, way, server.url, body=bytes(30_000_000))

    assert (got.status, got.body) == (413, b"no")


async def test_call_without_a_body_sends_none() -> None:
    """A poll is a plain GET."""
    async with serving(polite) as server, opened() as door:
        got = await door.call(Call("GET", server.url, {"Authorization": "Bearer k"}), timeout_s=5, read_bytes=1000)

    assert got.body == b"ok"
    assert server.heard[0][0].startswith("GET /hook HTTP/1.1\r\n")
    assert "bearer k" in server.heard[0][0].lower()
    assert "content-length" not in server.heard[0][0].lower()


@pytest.mark.parametrize("way", ["deliver", "call"])
async def test_door_keeps_connections(way: str) -> None:
    """Further requests travel on the connection that is there."""
    async with serving(polite) as server, opened() as door:
        for _ in range(5):
            await send(door, way, server.url)

    assert server.connections == 1


async def test_fresh_call_dials_each_time() -> None:
    """A submission never travels on a connection that the server may be closing."""
    async with serving(polite) as server, opened() as door:
        await send(door, "call", server.url)
        for _ in range(3):
            await send(door, "call fresh", server.url)

    assert server.connections == 4
    assert "connection: close" in server.heard[-1][0].lower()


async def test_http_clients_do_not_log_urls(caplog: pytest.LogCaptureFixture) -> None:
    """URLs hold tokens; httpx would log each of them."""
    caplog.set_level(logging.INFO)
    async with serving(saying(OK)) as server, opened() as door:
        await send(door, "call", server.url + "/token_abc")

    assert "token_abc" not in caplog.text
