"""Large and broken answers to calls: what came is handed on, and memory for large ones is given out in turn."""

from __future__ import annotations

import asyncio

import pytest

from service.egress import AnswerCut, Call
from service.egress.room import AnswerRoom
from tests.egress.raw import Peer, opened, saying, serving
from tests.egress.test_door import send

MIB = 1 << 20
HEAD = b"HTTP/1.1 200 OK\r\nX-Request-Id: 7\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"Content-Length: 9\r\n\r\nhalf",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ],
)
@pytest.mark.parametrize("way", ["call", "call fresh"])
async def test_part_of_an_answer_comes_with_the_fault(way: str, answer: bytes) -> None:
    """A call that broke off hands on its status, headers and what came of the body."""
    async with serving(saying(answer)) as server, opened() as door:
        with pytest.raises(AnswerCut) as caught:
            await send(door, way, server.url)

    got = caught.value.answer
    assert (caught.value.reason, got.status, got.body) == ("connection_cut", 200, b"half")
    assert got.headers["x-request-id"] == "7"
    assert got.cut == str(caught.value)
    assert got.head.startswith(HEAD)


async def test_body_that_never_ends_is_handed_on_at_the_deadline() -> None:
    """A server that forgets to close is no reason to lose what it said."""

    async def open_end(peer: Peer) -> None:
        await peer.request()
        await peer.say(HEAD + b"\r\nall")
        await peer.reader.read()

    async with serving(open_end) as server, opened() as door:
        with pytest.raises(AnswerCut) as caught:
            await send(door, "call", server.url, timeout_s=0.3)

    assert (caught.value.reason, caught.value.answer.body) == ("timeout", b"all")


async def test_large_answers_wait_for_room_and_lose_no_time_by_it() -> None:
    """Beyond 4 MiB an answer waits until others were read, without its own deadline running on."""
    body = b"x" * (40 * MIB)
    begun = asyncio.Semaphore(0)

    async def large(peer: Peer) -> None:
        await peer.request()
        begun.release()
        await peer.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(40):
            await peer.say(b"%x\r\n" % MIB + body[:MIB] + b"\r\n")
        await peer.say(b"0\r\n\r\n")

    async with serving(large) as server, opened() as door:
        asked = Call("GET", server.url, {})
        first = [await door.call(asked, timeout_s=30, read_bytes=64 * MIB) for _ in range(4)]
        fifth = asyncio.create_task(door.call(asked, timeout_s=1, read_bytes=64 * MIB))
        small = await door.call(Call("GET", server.url, {}), timeout_s=30, read_bytes=MIB)
        _, waits = await asyncio.wait([fifth], timeout=1.5)
        assert waits
        first[0].close()
        first[0].close()  # gives no more room than it had
        assert len((await fifth).body) == 40 * MIB
        for answer in [*first, await fifth]:
            answer.close()

    assert (small.truncated, len(small.body)) == (True, MIB)


async def test_cancelled_calls_leave_their_room() -> None:
    """A service that stops while large answers come, or a job that is taken away, holds no memory for nobody."""
    stalled = asyncio.Semaphore(0)

    async def large(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(6):
            await peer.say(b"%x\r\n" % MIB + bytes(MIB) + b"\r\n")
        if peer.number < 5:
            stalled.release()
            await peer.reader.read()
        await peer.say(b"0\r\n\r\n")

    async with serving(large) as server, opened() as door:
        asked = Call("GET", server.url, {})
        for _ in range(5):
            call = asyncio.create_task(door.call(asked, timeout_s=30, read_bytes=64 * MIB))
            await stalled.acquire()
            while door._room._free == door._room._size:  # noqa: ASYNC110 - nothing tells that the room was taken
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        got = await door.call(asked, timeout_s=5, read_bytes=64 * MIB)

    assert len(got.body) == 6 * MIB


async def test_room_is_given_in_turn_and_never_twice() -> None:
    """Who asks first is served first; who goes away while waiting, or as its turn comes, leaves nothing behind."""
    room, order = AnswerRoom(10), list[str]()

    async def take(name: str, size: int) -> int:
        taken = await room.take(size)
        order.append(name)
        return taken

    held = await take("first", 7)
    large, gone = asyncio.create_task(take("large", 99)), asyncio.create_task(take("gone", 1))
    small = asyncio.create_task(take("small", 3))
    await asyncio.sleep(0)
    gone.cancel()
    room.leave(held)
    room.leave(await large)
    small.cancel()  # it has its turn, and does not know yet
    await asyncio.gather(gone, small, return_exceptions=True)

    assert order == ["first", "large"]
    assert await take("all", 10) == 10
