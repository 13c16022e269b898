"""What stands on the wire: odd requests that are read, broken ones that are told what is wrong, and callers that dawdle or flood.

Everything is written to the socket by hand. The deadlines are short here, and what is waited for is their effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import re
import socket
import sys
import termios
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from service.api.listening.admission import Admission, ConnectionLimits, peer_of
from service.api.listening.buffers import AnswerBuffers, Bodies
from service.api.listening.listener import NOTSENT_BYTES, Listener
from service.api.listening.refusals import RequestRefused, check_size
from service.errors import Unavailable
from tests.receiver import PATIENCE_S

QUICK = ConnectionLimits(
    head_s=0.2, body_window_s=0.2, body_window_bytes=100, body_s=0.8, keep_alive_s=0.3, write_s=0.3, stop_s=0.2, linger_s=0.2, every_s=0.05
)  # fmt: skip
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
LARGE = 8_000_000  # bytes: more than the kernel takes for a client that does not read
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"


@dataclass(slots=True)
class Echo:
    """An application that answers with what it read, or with a large body, and notes what it was asked."""

    asked: list[tuple[str, str, bytes]] = field(default_factory=list)
    headers: list[list[bytes]] = field(default_factory=list)  # the names of each request's
    gone: int = 0  # requests whose caller left before the body was there
    hold: asyncio.Event = field(default_factory=asyncio.Event)  # `/wait` answers then
    answers: AnswerBuffers = field(default_factory=lambda: AnswerBuffers(64_000_000))
    ended: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See ASGI."""
        body = b""
        if scope["path"] == "/later":
            await self.hold.wait()
        more = scope["path"] != "/at-once"
        while more:
            message = await receive()
            if message["type"] != "http.request":
                self.gone += 1
                return
            body += message["body"]
            more = message["more_body"]
        self.asked.append((scope["method"], scope["path"], body))
        self.headers.append([name for name, _ in scope["headers"]])
        if scope["path"] == "/wait":
            await self.hold.wait()
        if scope["path"] == "/until-gone":
            while (await receive())["type"] != "http.disconnect":
                pass
            self.gone += 1
        text = b"x" * LARGE if scope["path"] == "/large" else scope["path"].encode() + b":" + body + b";"
        headers = [(b"content-length", b"%d" % len(text)), (b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await self.answers.send(scope, send, {"type": "http.response.body", "body": text, "more_body": False})
        await self.ended.put(scope["path"])


@dataclass(slots=True)
class Stand:
    """A listening server and its application."""

    listener: Listener
    app: Echo
    port: int

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def say(self, *parts: bytes) -> bytes:
        """Send the parts, each as a read of its own, and read until the server closes."""
        reader, writer = await self.open()
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.01)  # the kernel would put two parts into one read
            async with asyncio.timeout(PATIENCE_S):
                return await reader.read()
        finally:
            writer.close()

    @property
    def open_connections(self) -> int:
        """How many there are."""
        return len(self.listener.server_state.connections)


@contextlib.asynccontextmanager
async def stand(limits: ConnectionLimits = QUICK, given: socket.socket | None = None) -> AsyncIterator[Stand]:
    """A server with such limits, on a socket of its own or on a given one."""
    app = Echo()
    listener = Listener(app, "127.0.0.1", 0, limits)
    with contextlib.closing(given or listener.bind()) as listening:
        await listener.start_on(listening)
        try:
            yield Stand(listener, app, listening.getsockname()[1])
        finally:
            app.hold.set()
            listener.begin_drain()
            await asyncio.wait_for(listener.stopped(), PATIENCE_S)


async def until(done: Any) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(PATIENCE_S):
        while not done():  # noqa: ASYNC110 - of a server's inside that tells nobody
            await asyncio.sleep(0.01)


def problem(answer: bytes) -> dict[str, Any]:
    """The last answer of a connection, which has to be a whole problem."""
    head, _, body = answer[[each.start() for each in STATUS.finditer(answer)][-1] :].partition(b"\r\n\r\n")
    told: dict[str, Any] = json.loads(body)
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head
    assert head.startswith(b"HTTP/1.1 %d " % told["status"])
    return told


# -- upgrades that nobody serves -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"TLS/1.0", b"foo/2, bar"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_upgrade_is_ignored_and_the_body_is_read(protocol: bytes, chunked: bool) -> None:
    """Java's default HttpClient asks for h2c with every POST. Wherever the bytes are split, all of them arrive, and the next request too."""
    framing, body = (
        (b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")
        if chunked
        else (b"Content-Length: 7\r\n", b"abcdefg")
    )
    first = b"POST /one HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: %b\r\n%b\r\n" % (protocol, framing)
    last = b"POST /two HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"
    whole = first + body + last
    places = range(1, len(whole), 7)
    async with stand(ConnectionLimits()) as served:
        answers = [await served.say(whole[:at], whole[at:]) for at in places]

    assert len(served.app.asked) == 2 * len(places)
    assert set(served.app.asked) == {("POST", "/one", b"abcdefg"), ("POST", "/two", b"hi")}
    assert all(b"/one:abcdefg;" in each and b"/two:hi;" in each for each in answers)


IN_CHUNKS = b"POST /one HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "flood",
    [b"0\r\n" + b"X-T: y\r\n" * 40_000, b"0\r\nX-T: " + b"y" * 300_000, b"1\r\nx\r\n" * 60_000],
    ids=["trailers", "one-trailer", "tiny-chunks"],
)
async def test_more_framing_than_content_is_refused(flood: bytes) -> None:
    """What stands around a body is bounded like a body: nobody needs it, and it would be held."""
    async with stand(ConnectionLimits()) as served:
        reader, writer = await served.open()
        writer.write(IN_CHUNKS + b"3\r\nabc\r\n")
        writer.write(flood)
        async with asyncio.timeout(PATIENCE_S):
            answer = await reader.read()
        writer.close()

    assert problem(answer)["code"] == "framing_too_large"
    assert served.app.asked == []


async def test_trailers_are_no_headers() -> None:
    """They are dropped, also where they repeat what must be there once; the next request is read."""
    one = IN_CHUNKS + b"3\r\nabc\r\n0\r\nHost: y\r\nIdempotency-Key: k\r\nUpgrade: h2c\r\n\r\n"
    last = b"POST /two HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"
    async with stand(ConnectionLimits()) as served:
        answers = await served.say(one + last)

    assert [(path, body) for _, path, body in served.app.asked] == [("/one", b"abc"), ("/two", b"hi")]
    assert served.app.headers == [[b"host", b"transfer-encoding"], [b"host", b"connection", b"content-length"]]
    assert answers.count(b"HTTP/1.1 200 OK") == 2


@pytest.mark.parametrize("path", [b"/one", b"/wait"])
async def test_caller_that_closes_its_side_gets_its_answer(path: bytes) -> None:
    """The request was whole; the connection ends behind the answer."""
    async with stand(ConnectionLimits()) as served:
        reader, writer = await served.open()
        writer.write(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi" % path)
        writer.write_eof()
        await until(lambda: served.app.asked)
        served.app.hold.set()
        async with asyncio.timeout(PATIENCE_S):
            answer = await reader.read()
        writer.close()

    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(path + b":hi;")


async def test_request_that_is_cut_off_by_an_end_is_none() -> None:
    """Nobody answers half a body."""
    async with stand(ConnectionLimits()) as served:
        reader, writer = await served.open()
        writer.write(b"POST /one HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhi")
        writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            answer = await reader.read()
        writer.close()
        await until(lambda: served.app.gone)

    assert answer == b""
    assert served.app.asked == []


async def test_drain_stops_accepting_at_once() -> None:
    """Whoever comes back while a restart ends its stream waits in the kernel for the successor, and is not refused."""
    async with stand(ConnectionLimits()) as served:
        before = [each.is_serving() for each in served.listener.servers]
        served.listener.begin_drain()
        after = [each.is_serving() for each in served.listener.servers]

    assert (before, after) == ([True], [False])


async def test_head_that_comes_within_one_read_is_bounded_too() -> None:
    """Whatever a read takes."""
    with pytest.raises(RequestRefused) as refused:
        check_size(b"/", [(b"x", b"y" * 70_000)])
    check_size(b"/", [(b"x", b"y" * 60_000)])

    assert refused.value.refusal.status == 431


async def test_upgrades_in_a_row_are_all_ignored() -> None:
    """Also in pipelined requests, without a body, and byte by byte."""
    one = b"GET /a HTTP/1.1\r\nHost: x\r\n" + UPGRADE + b"\r\n"
    two = b"POST /b HTTP/1.1\r\nHost: x\r\n" + UPGRADE + b"Content-Length: 3\r\n\r\nxyz"
    last = b"POST /c HTTP/1.1\r\nHost: x\r\nConnection: close, Upgrade\r\nUpgrade: h2c\r\nContent-Length: 1\r\n\r\nz"
    async with stand(ConnectionLimits()) as served:
        together = await served.say(one + two + one + last)
        reader, writer = await served.open()
        for at in range(len(two + last)):
            writer.write((two + last)[at : at + 1])
            await writer.drain()
        slowly = await reader.read()
        writer.close()

    assert [path for _, path, _ in served.app.asked] == ["/a", "/b", "/a", "/c", "/b", "/c"]
    assert together.count(b"HTTP/1.1 200 OK") == 4
    assert slowly.count(b"HTTP/1.1 200 OK") == 2


async def test_upgrade_with_expect_is_told_to_go_on() -> None:
    """100 comes before the body is sent, and the body arrives."""
    async with stand(ConnectionLimits()) as served:
        reader, writer = await served.open()
        writer.write(
            b"POST /x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n" + UPGRADE + b"Content-Length: 3\r\n\r\n"
        )
        told = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"abc")
        answer = await reader.readuntil(b";")
        writer.close()

    assert told.startswith(b"HTTP/1.1 100 ")
    assert answer.endswith(b"/x:abc;")


async def test_body_that_was_refused_meanwhile_is_not_asked_for() -> None:
    """The application that comes to it late hears that the caller is gone; a 100 behind the last answer would be an error."""
    async with stand() as served:
        reader, writer = await served.open()
        writer.write(b"POST /later HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        refused = await reader.readuntil(b"\r\n\r\n")
        served.app.hold.set()
        await until(lambda: served.app.gone == 1)
        rest = await reader.read()
        writer.close()

    assert refused.startswith(b"HTTP/1.1 408 ")
    assert b"HTTP/1.1" not in rest


# -- what is refused, each in its own words ------------------------------------------------------------------------------

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
REFUSED = [
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "tls"),
    (b"SSH-2.0-OpenSSH_9.2\r\n", 400, "not_http"),
    (b"\x00\x01\x02\x03", 400, "not_http"),
    (b"FOO / HTTP/1.1\r\nHost: x\r\n\r\n", 501, "method_unknown"),
    (b"get / HTTP/1.1\r\nHost: x\r\n\r\n", 501, "method_unknown"),
    (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501, "connect"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "http_version"),
    (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505, "http_version"),
    (b"GET / HTTP/1.2\r\nHost: x\r\n\r\n", 505, "http_version"),
    (b"GET /\r\n\r\n", 505, "http_version"),
    (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400, "malformed_target"),
    (b"GET /\x7f HTTP/1.1\r\nHost: x\r\n\r\n", 400, "malformed_target"),
    (b"GET nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 400, "malformed_target"),
    (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "target_too_long"),
    (b"GET /" + b"a" * 400_000, 414, "target_too_long"),
    (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 400_000, 431, "headers_too_large"),
    (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: 1\r\n" * 40_000, 431, "headers_too_large"),
    (HEAD + b"Bad Header: 1\r\n\r\n", 400, "malformed_header"),
    (HEAD + b"A: b\x00c\r\n\r\n", 400, "malformed_header"),
    (HEAD + b"A: b\r\n folded\r\n\r\n", 400, "malformed_header"),
    (b"GET / HTTP/1.1\nHost: x\n\n", 400, "malformed_line"),
    (HEAD + b"A: b\rX: c\r\n\r\n", 400, "malformed_line"),
    (HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400, "content_length"),
    (HEAD + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400, "content_length"),
    (HEAD + b"Content-Length: 3, 3\r\n\r\nabc", 400, "content_length"),
    (HEAD + b"Content-Length: -1\r\n\r\n", 400, "content_length"),
    (HEAD + b"Content-Length: x\r\n\r\n", 400, "content_length"),
    (HEAD + b"Content-Length: \r\n\r\n", 400, "content_length"),
    (HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n", 400, "content_length"),
    (HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "framing"),
    (HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", 400, "framing"),
    (HEAD + b"Transfer-Encoding: gzip\r\n\r\n", 501, "transfer_coding"),
    (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 501, "transfer_coding"),
    (HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 501, "transfer_coding"),
    (HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501, "transfer_coding"),
    (CHUNKED + b"zz\r\n", 400, "malformed_chunk"),
    (CHUNKED + b"ffffffffffffffffffffffff\r\n", 400, "malformed_chunk"),
    (CHUNKED + b"3\r\nabcde\r\n0\r\n\r\n", 400, "malformed_chunk"),
]


@pytest.mark.parametrize(("sent", "status", "code"), REFUSED, ids=[f"{n}-{row[2]}" for n, row in enumerate(REFUSED)])
async def test_request_that_cannot_be_read_is_told_why(sent: bytes, status: int, code: str) -> None:
    """A status and a code of its own, as a problem, also where the caller is still sending; the application never answers it."""
    async with stand() as served:
        answer = await served.say(sent)

    told = problem(answer)
    assert (told["status"], told["code"]) == (status, code)
    assert len(STATUS.findall(answer)) == 1
    assert len(told["detail"]) > 20


async def test_refusal_comes_behind_the_answers_before_it() -> None:
    """What was asked in order is answered first; the words never land within another answer."""
    good = b"GET /one HTTP/1.1\r\nHost: x\r\n\r\n"
    for bad, code in ((b"\x00\x01", "not_http"), (CHUNKED + b"zz\r\n", "malformed_chunk")):
        async with stand(ConnectionLimits(every_s=0.05, linger_s=0.2)) as served:
            answer = await served.say(good * 2 + bad + good)

        assert STATUS.findall(answer) == [b"200", b"200", b"400"]
        assert problem(answer)["code"] == code


async def test_requests_far_ahead_of_their_answers_are_refused() -> None:
    """One is answered, eight wait, the next is told to come again; and nothing behind it is looked at."""
    async with stand(ConnectionLimits(every_s=0.05, linger_s=0.2)) as served:
        reader, writer = await served.open()
        writer.write(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n" + b"GET /n HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        await until(lambda: served.app.asked)
        served.app.hold.set()
        async with asyncio.timeout(PATIENCE_S):
            answer = await reader.read()
        writer.close()

    assert answer.count(b"HTTP/1.1 200") == 9
    assert problem(answer)["code"] == "too_many_ahead"
    assert b"retry-after: 1" in answer


# -- callers who dawdle --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"GET / HT", "head_too_slow"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc", "body_too_slow"),
        (CHUNKED + b"5\r\nab", "body_too_slow"),
        (b"POST / HTTP/1.1\r\nHost: x\r\n" + UPGRADE + b"Content-Length: 10\r\n\r\nabc", "body_too_slow"),
    ],
)
async def test_half_request_is_told_that_it_was_too_slow(sent: bytes, code: str) -> None:
    """408, and the connection is free."""
    async with stand() as served:
        answer = await served.say(sent)
        await until(lambda: served.open_connections == 0)

    assert (problem(answer)["status"], problem(answer)["code"]) == (408, code)
    assert served.app.asked == []


async def test_dripping_body_is_cut_however_long_it_is() -> None:
    """A byte now and then keeps no connection: each window needs its share of bytes."""
    async with stand() as served:
        reader, writer = await served.open()
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        reading = asyncio.create_task(reader.read())
        with contextlib.suppress(ConnectionError):
            while not reading.done():
                writer.write(b"x")
                await asyncio.sleep(0.02)
        answer = await reading
        writer.close()

    assert problem(answer)["code"] == "body_too_slow"


async def test_silent_connection_is_closed() -> None:
    """Without a word: before the first request, and after one."""
    async with stand() as served:
        nothing = await served.say(b"")
        after_one = await served.say(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
        line_ends = await served.say(b"\r\n\r\n")

    assert nothing == line_ends == b""
    assert after_one.endswith(b"/a:;")


@pytest.mark.parametrize("count", [1, 200])
async def test_client_that_does_not_read_is_cut(count: int) -> None:
    """It holds its connection for the write deadline, and no more memory than a few pieces, however much it asked for."""
    async with stand() as served:
        _, writer = await served.open()
        peer = writer.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's can
        writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n" * count)
        await until(lambda: served.app.asked)
        unsent = [each.transport.get_write_buffer_size() for each in served.listener.server_state.connections]
        await until(lambda: served.open_connections == 0)
        writer.transport.abort()

    assert max(unsent) <= 128 * 1024
    assert len(served.app.asked) == 1


@pytest.mark.skipif(
    not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="this system bounds what its kernel holds by itself"
)
@pytest.mark.parametrize("handed", [False, True])
async def test_kernel_takes_little_for_a_client_that_does_not_read(*, handed: bool) -> None:
    """Megabytes without that; also on a socket that the machine opened for us."""
    given = socket.create_server(("127.0.0.1", 0)) if handed else None
    async with stand(given=given) as served:
        _, writer = await served.open()
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's can
        writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: served.app.asked)
        [connection] = served.listener.server_state.connections
        descriptor = connection.transport.get_extra_info("socket").fileno()
        held = int.from_bytes(fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        writer.transport.abort()

    assert 0 < held <= 8 * NOTSENT_BYTES  # and what is on its way, which is little on this machine


async def test_client_that_reads_slowly_gets_everything() -> None:
    """Slower than the deadline in all, but never without a byte for so long."""
    async with stand() as served:
        reader, writer = await served.open()
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        got = 0
        async with asyncio.timeout(PATIENCE_S):
            while part := await reader.read(100_000):
                got += len(part)
                await asyncio.sleep(0.01)  # slower than the network, which is what this is about
        writer.close()

    assert got > LARGE


async def test_client_that_leaves_ends_what_it_asked_for() -> None:
    """Also the earlier of several requests on a connection: uvicorn tells only the newest."""
    async with stand(ConnectionLimits(every_s=0.05)) as served:
        _, writer = await served.open()
        writer.write(b"GET /until-gone HTTP/1.1\r\nHost: x\r\n\r\nGET /n HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: served.app.asked)
        writer.transport.abort()
        # Reading is paused while a request waits, so that the end is seen when bytes are written, or when the service cuts.
        for each in list(served.listener.server_state.connections):
            each.transport.abort()
        await until(lambda: served.app.gone == 1)


# -- who may be connected ------------------------------------------------------------------------------------------------


async def test_full_house_lets_the_idle_go() -> None:
    """A newcomer takes the place of the connection that was idle for longest; a request that is being answered stays."""
    async with stand(ConnectionLimits(connections=16, per_peer=16)) as served:
        busy_reader, busy = await served.open()
        busy.write(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: served.app.asked)
        idle = [await served.open() for _ in range(15)]
        await until(lambda: served.open_connections == 16)
        fresh = await served.say(b"GET /new HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionError):
                await idle[0][0].read()
        served.app.hold.set()
        answered = await busy_reader.readuntil(b";")
        for _, writer in (*idle, (busy_reader, busy)):
            writer.close()

    assert fresh.endswith(b"/new:;")
    assert answered.endswith(b"/wait:;")


async def test_one_address_has_its_share() -> None:
    """More connections than that are cut at once, whatever they are about; when one leaves, there is room again."""
    async with stand(ConnectionLimits(connections=16, per_peer=2)) as served:
        held = [await served.open() for _ in range(2)]
        await until(lambda: served.open_connections == 2)
        with contextlib.suppress(ConnectionError):
            assert await served.say(b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") == b""
        held[0][1].close()
        await until(lambda: served.open_connections == 1)
        answer = await served.say(b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        held[1][1].close()

    assert answer.endswith(b"/a:;")
    assert [path for _, path, _ in served.app.asked] == ["/a"]


@pytest.mark.parametrize(
    ("host", "peer"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("::1", "::"),
    ],
)
def test_address_counts_as_its_network(host: str, peer: str) -> None:
    """Whoever has one IPv6 address has a /64 of them."""
    assert peer_of(host) == peer


def test_admission_forgets_who_left() -> None:
    """No address and no connection is remembered when it is gone."""

    class One:
        def cut(self) -> None:
            """Nothing to cut."""

    admission = Admission(ConnectionLimits(connections=4, per_peer=3))
    ones = [One() for _ in range(3)]
    entered = [admission.enter(one, "a") for one in ones]
    beyond = admission.enter(One(), "a")
    for one in ones:
        admission.leave(one, "a")

    assert (entered, beyond) == ([True] * 3, False)
    assert not admission._peers
    assert not admission._idle
    assert admission._open == 0


# -- stopping ------------------------------------------------------------------------------------------------------------


async def test_stop_waits_for_nobody_who_does_nothing() -> None:
    """Half heads, half bodies and unread answers end soon after the drain begins; what was asked is answered."""
    limits = ConnectionLimits(stop_s=0.2, every_s=0.05)
    async with stand(limits) as served:
        lines = [
            b"GET / HT",
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc",
            b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n",
        ]
        callers = [await served.open() for _ in lines]
        for line, (_, writer) in zip(lines, callers, strict=True):
            if b"large" in line:
                writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's can
            writer.write(line)
        await until(lambda: len(served.app.asked) == 2)
        served.listener.begin_drain()
        await until(lambda: served.open_connections == 1)
        served.app.hold.set()
        answer = await callers[3][0].read()
        await asyncio.wait_for(served.listener.stopped(), PATIENCE_S)
        for _, writer in callers:
            writer.transport.abort()

    assert answer.endswith(b"/wait:;")
    assert b"connection: close" in answer


# -- memory --------------------------------------------------------------------------------------------------------------


def _scope() -> Any:
    return {"state": {}, "extensions": {}}


def test_bodies_have_one_bound_and_shares_of_it() -> None:
    """Nobody has more than half; what is given back is free again, and giving back twice is no gift."""
    bodies = Bodies(100)
    one, two, three = _scope(), _scope(), _scope()
    bodies.hold(one, "a", 30)
    bodies.hold(two, "a", 20)
    with pytest.raises(Unavailable) as refused:
        bodies.hold(three, "a", 1)
    bodies.hold(three, "b", 50)
    with pytest.raises(Unavailable):
        bodies.hold(_scope(), "c", 1)
    bodies.give_back(one)
    bodies.give_back(one)
    left = bodies.held
    for each in (two, three):
        bodies.give_back(each)

    assert refused.value.code == "busy"
    assert refused.value.retry_after_s
    assert (left, bodies.held, bodies._by_owner) == (70, 0, {})


async def test_answers_beyond_their_bound_end_the_stalest() -> None:
    """Of many clients that do not read, those stay that took something last; one that reads is not disturbed."""
    cut: list[int] = []
    answers = AnswerBuffers(250_000)

    def caller(number: int) -> tuple[Any, Any]:
        async def send(_: Any) -> None:
            await asyncio.Event().wait()

        return {"extensions": {"remora.abort": lambda: cut.append(number)}}, send

    stuck = [asyncio.create_task(answers.send(*caller(n), {"type": "b", "body": bytes(100_000)})) for n in range(4)]
    await asyncio.sleep(0)
    got: list[int] = []

    async def read(message: Any) -> None:
        got.append(len(message["body"]))

    await answers.send(_scope(), read, {"type": "b", "body": bytes(100_000)})
    for each in stuck:
        each.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)

    assert cut == [0, 1, 2]
    assert sum(got) == 100_000
    assert answers._held == 0
