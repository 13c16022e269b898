"""What a server may say around its answer: bounded for deliveries, provider calls and downloads alike."""

from __future__ import annotations

import asyncio

import pytest

from service.egress.door import Door
from service.errors import EgressCut
from tests.egress.raw import OK, Peer, Script, opened, saying, serving
from tests.egress.test_door import WAYS, send

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS = {
    "100": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "103": (b"", b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n" * 1000),
    "100 without CR": (b"", b"HTTP/1.1 100 Continue\n\n" * 1000),
    "blank lines": (b"", b"\r\n" * 10_000),
    "bare line feeds": (b"", b"\n" * 10_000),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 1000),
    "chunk extension": (CHUNKED + b"1;", b"a=b;" * 10_000),
    "trailers": (CHUNKED + b"0\r\n", b"a: b\r\n" * 1000),
    "tiny chunks": (CHUNKED, b"1\r\na\r\n" * 1000),
}


def flooding(head: bytes, more: bytes, said: list[int]) -> Script:
    """Say `head`, then `more` without end; `said` counts the bytes that were taken."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(head)
        while True:
            await peer.say(more)
            said[0] += len(more)

    return script


async def read(door: Door, way: str, url: str) -> bytes:
    """The body, in one of the four ways."""
    if way != "fetch":
        return (await send(door, way, url, timeout_s=30, read_bytes=4_000_000)).body
    got = await door.fetch(url, timeout_s=30, stall_s=30)
    whole = b""
    try:
        while piece := await got.read():
            whole += piece
    finally:
        got.close()
    return whole


@pytest.mark.parametrize("way", [*WAYS, "fetch"])
@pytest.mark.parametrize("flood", ENDLESS)
async def test_flood_is_cut_at_once(way: str, flood: str) -> None:
    """What is no answer is no reason to wait, and costs no more than the sockets hold."""
    said = [0]
    async with serving(flooding(*ENDLESS[flood], said)) as server, opened() as door:
        with pytest.raises(EgressCut) as caught:
            await read(door, way, server.url)

    assert caught.value.reason == "bad_answer"
    assert said[0] < 16_000_000


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("interim", "heard"), [(8, True), (9, False)])
async def test_some_interim_answers_are_skipped(way: str, interim: int, heard: bool) -> None:
    """Eight are patience enough; the answer behind them is heard, in one packet or in many."""
    answers = [b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n"] * interim + [OK]
    async with serving(saying(b"".join(answers))) as at_once, serving(saying(*answers)) as slowly, opened() as door:
        for url in (at_once.url, slowly.url):
            if heard:
                assert (await send(door, way, url)).body == b"ok"
                continue
            with pytest.raises(EgressCut) as caught:
                await send(door, way, url)
            assert caught.value.reason == "bad_answer"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [4_000, 9_000, 60_000])
async def test_large_head_is_heard(way: str, size: int) -> None:
    """A head may be large, as long as its lines are not."""
    lines = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 990) for number in range(size // 1000))
    answer = b"HTTP/1.1 200 OK\r\n" + lines + b"Content-Length: 2\r\n\r\nok"
    async with serving(saying(answer)) as server, opened() as door:
        got = await send(door, way, server.url)

    assert (got.body, got.headers["x-0"]) == (b"ok", "a" * 990)


@pytest.mark.parametrize("way", WAYS)
async def test_head_above_the_bound_is_no_answer(way: str) -> None:
    """64 KiB are enough for a head, however short its lines."""
    lines = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 990) for number in range(70))
    async with serving(saying(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n")) as server, opened() as door:
        with pytest.raises(EgressCut) as caught:
            await send(door, way, server.url)

    assert caught.value.reason == "bad_answer"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("status", ["000", "101", "199", "600", "999"])
async def test_status_that_means_nothing_is_no_answer(way: str, status: str) -> None:
    """An answer is 200 to 599; 199 is skipped, and nothing follows it."""
    answer = f"HTTP/1.1 {status} X\r\nUpgrade: x\r\nConnection: upgrade\r\nContent-Length: 0\r\n\r\n"
    async with serving(saying(answer.encode())) as server, opened() as door:
        with pytest.raises(EgressCut) as caught:
            await send(door, way, server.url)

    assert caught.value.reason == ("connection_cut" if status == "199" else "bad_answer")


SURPLUS = {
    "204 with a body": (204, b"", [b"HTTP/1.1 204 No Content\r\n\r\nhello"]),
    "204 with a length": (204, b"", [b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello"]),
    "longer than said": (200, b"ok", [OK + b"ay, and more"]),
    "nothing was said": (200, b"", [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nsurplus"]),
    "behind the last chunk": (200, b"ok", [CHUNKED + b"2\r\nok\r\n0\r\n\r\nsurplus"]),
    "said to close": (200, b"ok", [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok?"]),
    "a second answer": (200, b"ok", [OK + b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"]),
    "many answers": (200, b"ok", [OK + b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n" * 2000]),
    "head in two": (200, b"ok", [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r", b"\nok, and more"]),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("surplus", SURPLUS)
async def test_answer_counts_whatever_follows_it(way: str, surplus: str) -> None:
    """A receiver that says too much took the event all the same; its connection is not used again."""
    status, body, answer = SURPLUS[surplus]

    async def sloppy(peer: Peer) -> None:
        while True:
            await peer.request()
            for part in answer:
                await peer.say(part)

    async with serving(sloppy) as server, opened() as door:
        got = [await send(door, way, server.url) for _ in range(3)]

    assert [(answer.status, answer.body) for answer in got] == [(status, body)] * 3
    assert server.connections == 3


@pytest.mark.parametrize("way", ["deliver", "call"])
async def test_surplus_on_an_idle_connection_ends_it(way: str) -> None:
    """What comes without being asked for is not taken for the answer to the next request."""
    gone = asyncio.Event()

    async def late(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        if peer.number == 0:
            await peer.say(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
            try:
                await peer.reader.read()
            finally:
                gone.set()

    async with serving(late) as server, opened() as door:
        first = await send(door, way, server.url)
        async with asyncio.timeout(5):
            await gone.wait()
        second = await send(door, way, server.url)

    assert (first.status, second.status, server.connections) == (200, 200, 2)


@pytest.mark.parametrize("way", [*WAYS, "fetch"])
async def test_chunks_of_a_fair_size_are_read_without_end(way: str) -> None:
    """The bound on framing is none on files: three megabytes in chunks of 64 bytes, read late, are whole."""
    body = bytes(range(256)) * 12_000
    chunks = b"".join(b"40\r\n" + body[at : at + 64] + b"\r\n" for at in range(0, len(body), 64))
    async with serving(saying(CHUNKED + chunks + b"0\r\n\r\n")) as server, opened() as door:
        got = await read(door, way, server.url)

    assert got == body


@pytest.mark.parametrize("way", [*WAYS, "fetch"])
async def test_broken_chunk_is_told_at_once(way: str) -> None:
    """A reader whose body cannot be parsed does not wait for the deadline."""
    async with serving(saying(CHUNKED + b"2\r\nok\r\n", b"zz\r\n")) as server, opened() as door:
        with pytest.raises(EgressCut) as caught:
            await read(door, way, server.url)

    assert caught.value.reason == "bad_answer"


@pytest.mark.parametrize("way", ["deliver", "call"])
async def test_bounds_begin_anew_with_each_request(way: str) -> None:
    """What was said before the last answer is not held against this one."""
    early = b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n" * 5

    async def chatty(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.say(early + OK)

    async with serving(chatty) as server, opened() as door:
        got = [await send(door, way, server.url) for _ in range(4)]

    assert [answer.body for answer in got] == [b"ok"] * 4
    assert server.connections == 1


@pytest.mark.parametrize("way", ["deliver", "call"])
@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        OK,
    ],
)
async def test_connection_is_kept_after_every_usual_answer(way: str, said: bytes) -> None:
    """A bare 204 is what most receivers say: a new connection for each delivery would double what it costs."""

    async def usual(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.say(said)

    async with serving(usual) as server, opened() as door:
        for _ in range(4):
            await send(door, way, server.url)

    assert server.connections == 1
