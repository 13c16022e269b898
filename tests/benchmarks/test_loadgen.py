from __future__ import annotations

import asyncio
import time

import pytest

from benchmarks.loadgen import (
    BadHTTPError,
    Client,
    Tally,
    answer,
    closed_loop,
    length_of,
    open_loop,
    percentile,
    port_of,
    request,
    serve,
)

WAIT_S = 10.0


def arrives_and_is_answered(tally: Tally, number: int) -> None:
    tally.arrived(number)
    tally.answered(number, 200)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([7.0], 0.99, 7.0),
        ([4.0, 1.0, 3.0, 2.0], 0.5, 2.0),
        ([float(value) for value in range(1, 101)], 0.95, 95.0),
        ([float(value) for value in range(1, 101)], 0.99, 99.0),
        ([float(value) for value in range(1, 11)], 0.99, 10.0),
    ],
)
def test_percentile_is_the_nearest_rank(values: list[float], share: float, expected: float) -> None:
    """A percentile is a value that was measured, and the share of values up to it is at least the one asked for."""
    assert percentile(values, share) == expected


def test_tally_tells_refused_missing_and_doubled_messages_apart() -> None:
    """What does not add up is counted as what it is."""
    tally = Tally(4)
    arrives_and_is_answered(tally, 0)
    tally.answered(1, 503)
    arrives_and_is_answered(tally, 2)
    tally.arrived(2)
    tally.answered(3, 200)

    assert (tally.refused(), tally.once(), tally.more(), tally.settled) == (1, 1, 1, 3)
    assert not tally.complete.is_set()


async def test_open_loop_charges_a_stall_to_the_messages_that_it_delayed() -> None:
    """Latency counts from the moment at which a message was due, not from when it could be sent at last."""
    tally = Tally(10)

    def send(number: int) -> None:
        stall_until = time.perf_counter() + (0.05 if number == 0 else 0.0)
        while time.perf_counter() < stall_until:
            pass
        arrives_and_is_answered(tally, number)

    await open_loop(tally, send, 1000, WAIT_S)

    assert all(tally.arrived_s[number] >= 0.05 - number * 0.001 for number in range(10))


async def test_open_loop_keeps_its_rate_when_nothing_comes_back() -> None:
    """Messages go out at their time, whether or not earlier ones were answered; what is missing is not waited for long."""
    tally = Tally(20)
    sent: list[int] = []

    await open_loop(tally, sent.append, 400, 0.01)

    gaps = [later - earlier for earlier, later in zip(tally.scheduled, tally.scheduled[1:], strict=False)]
    assert sent == list(range(20))
    assert all(gap == pytest.approx(1 / 400) for gap in gaps)
    assert tally.once() == 0


async def test_closed_loop_keeps_so_many_under_way() -> None:
    """A message follows only when an earlier one has both its answer and its event."""
    tally = Tally(6)
    sent: list[int] = []
    under_way: list[int] = []

    def send(number: int) -> None:
        sent.append(number)
        under_way.append(len(sent) - tally.settled)
        tally.answered(number, 200)
        asyncio.get_running_loop().call_soon(tally.arrived, number)

    await closed_loop(tally, send, 2, WAIT_S)

    assert sent == [0, 1, 2, 3, 4, 5]
    assert max(under_way) == 2
    assert tally.once() == 6


async def test_client_and_server_carry_every_body_over_few_connections() -> None:
    """Requests wait for a free connection, and each gets the answer to its own body."""
    got: dict[int, tuple[int, bytes]] = {}
    everything = asyncio.Event()

    def done(number: int, status: int, body: bytes) -> None:
        got[number] = (status, body)
        if len(got) == 50:
            everything.set()

    server = await serve(lambda _, body: answer("200 OK", body * 2))
    async with server, Client("127.0.0.1", port_of(server), connections=3) as client:
        for number in range(50):
            message = request("POST", "/echo", "127.0.0.1", b"%d" % number)
            client.send(message, lambda status, body, number=number: done(number, status, body))  # type: ignore[misc]
        async with asyncio.timeout(WAIT_S):
            await everything.wait()

    assert got == {number: (200, f"{number}{number}".encode()) for number in range(50)}


async def test_client_tells_a_lost_connection_from_an_answer() -> None:
    """A connection that is cut answers with status 0, as does every request that still waited for it."""
    got: list[int] = []
    both = asyncio.Event()

    def done(status: int, _: bytes) -> None:
        got.append(status)
        if len(got) == 2:
            both.set()

    async def cut(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    async with server, Client("127.0.0.1", port_of(server), connections=1) as client:
        client.send(request("GET", "/", "127.0.0.1", b""), done)
        client.send(request("GET", "/", "127.0.0.1", b""), done)
        async with asyncio.timeout(WAIT_S):
            await both.wait()

    assert got == [0, 0]


async def test_server_reads_a_request_that_comes_in_pieces() -> None:
    """Head and body may be split anywhere, and the next request may follow at once."""
    bodies: list[bytes] = []

    def keep(_: bytes, body: bytes) -> bytes:
        bodies.append(body)
        return answer("204 No Content")

    server = await serve(keep)
    async with server, asyncio.timeout(WAIT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        for piece in (
            b"POST / HTTP/1.1\r\ncontent-le",
            b"ngth: 5\r\n\r\nhel",
            b"loPOST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi",
        ):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        answers = await reader.readexactly(2 * len(b"HTTP/1.1 204 No Content\r\n\r\n"))
        writer.close()
        await writer.wait_closed()

    assert bodies == [b"hello", b"hi"]
    assert answers == b"HTTP/1.1 204 No Content\r\n\r\n" * 2


def test_chunks_are_refused_rather_than_misread() -> None:
    """A body whose length the bare reader cannot know would be counted as empty."""
    with pytest.raises(BadHTTPError, match="chunks"):
        length_of(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked")
