"""A provider asked through the real way out, over a socket."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network

import pytest
from pydantic import SecretStr

from service.clock import SystemClock
from service.egress.door import Door
from service.providers.client import PollVerdict, Verdict
from service.providers.mapping import Seen
from service.providers.registry import Provider, Registry
from service.settings import ProviderSettings
from tests.providers.scripted import CALLBACK_URL, KEY, quoted


class Upstream:
    """Answers each connection's request with the next body, or with an answer that has a head, and keeps the requests."""

    def __init__(self, *bodies: bytes) -> None:
        self.bodies = list(bodies)
        self.requests: list[bytes] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        self.requests.append(head + await reader.readexactly(int(length[0].split(b":")[1]) if length else 0))
        if self.bodies:  # else the connection is cut after the request was read
            body = self.bodies.pop(0)
            plain = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body
            writer.write(body if body.startswith(b"HTTP/") else plain)
            await writer.drain()
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def asked(upstream: Upstream) -> AsyncIterator[Provider]:
    """apimodels, at a server on this machine."""
    server = await asyncio.start_server(upstream.handle, "127.0.0.1", 0)
    door = Door(allow=(ip_network("127.0.0.0/8"),), clock=SystemClock())
    await door.start()
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    settings = ProviderSettings(api_key=SecretStr(KEY), base_url=url)
    try:
        provider = Registry.load({"apimodels": settings}, None, door, SystemClock()).get("apimodels")
        assert provider is not None
        yield provider
    finally:
        await door.close()
        server.close()
        await server.wait_closed()


async def test_task_is_handed_in_and_asked_for() -> None:
    """From an input to bytes on the wire, and from the documented answers to observations."""
    upstream = Upstream(quoted("create-task-response"), quoted("success-response"))

    async with asked(upstream) as provider:
        taken = await provider.submit(
            "generate", {"model": "sparkpix", "prompt": "Katze im Weltraum, süß"}, CALLBACK_URL
        )
        assert taken.observation is not None
        done = await provider.poll("generate", taken.observation.task_id or "", None)

    assert taken.verdict is Verdict.ACCEPTED
    assert done.verdict is PollVerdict.OBSERVED
    assert done.observation is not None
    assert done.observation.seen is Seen.COMPLETED
    submit, poll = upstream.requests
    assert submit.startswith(b"POST /api/v1/images/generations HTTP/1.1\r\n")
    assert "süß".encode() in submit
    assert f"authorization: bearer {KEY}".lower().encode() in submit.lower()
    assert poll.startswith(b"GET /api/v1/images/generations?task_id=clxxx... HTTP/1.1\r\n")


async def test_cut_submit_is_unknown_and_was_sent_once() -> None:
    """The request arrived, the answer did not: nobody may send it again."""
    upstream = Upstream()

    async with asked(upstream) as provider:
        outcome = await provider.submit("generate", {"model": "sparkpix", "prompt": "x"}, CALLBACK_URL)

    assert outcome.verdict is Verdict.UNKNOWN
    assert len(upstream.requests) == 1


TASK = b'{"code":200,"data":{"taskId":"t1","state":"completed","resultUrls":["https://a.example/1.png"]%b}}'
PLAIN = TASK % b""


def said(body: bytes, *lines: bytes) -> bytes:
    """An answer with these header lines, and a length unless one of them says where the body ends."""
    ends = any(line.lower().startswith((b"content-length", b"transfer-encoding")) for line in lines)
    length = () if ends else (b"Content-Length: %d" % len(body),)
    return b"\r\n".join([b"HTTP/1.1 200 OK", *lines, *length, b"", body])


SPOILT = {
    "a byte order mark": b"\xef\xbb\xbf" + PLAIN,
    "NaN": TASK % b',"x":NaN',
    "Infinity": TASK % b',"x":[-Infinity]',
    "a number beyond all bounds": TASK % b',"x":1e400',
    "a lone surrogate": TASK % b',"x":"\\ud83d"',
    "a Latin-1 byte": TASK % b',"x":"caf\xe9"',
    "a control character": TASK % b',"x":"a\nb\x07"',
    "gzip": said(gzip.compress(PLAIN), b"Content-Encoding: gzip"),
    "deflate": said(zlib.compress(PLAIN), b"Content-Encoding: deflate"),
    "a long header line": said(PLAIN, b"X-Policy: " + b"a" * 20_000),
    "a length twice": said(PLAIN, *[b"Content-Length: %d" % len(PLAIN)] * 2),
    "eight megabytes": TASK % (b',"x":"' + b"QUJD" * (2 << 20) + b'"'),
    "less than its length": said(PLAIN, b"Content-Length: 100000"),
    "no last chunk": said(b"%x\r\n%b\r\n" % (len(PLAIN), PLAIN), b"Transfer-Encoding: chunked"),
}


@pytest.mark.parametrize("spoilt", SPOILT)
async def test_paid_task_is_not_lost_by_a_spoilt_answer(spoilt: str) -> None:
    """What has one meaning is read, in the answer to a submission as in the one to a poll."""
    async with asked(Upstream(SPOILT[spoilt], SPOILT[spoilt])) as provider:
        taken = await provider.submit("generate", {"model": "sparkpix", "prompt": "x"}, CALLBACK_URL)
        done = await provider.poll("generate", "t1", None)

    assert (taken.verdict, done.verdict) == (Verdict.ACCEPTED, PollVerdict.OBSERVED)
    assert taken.observation is not None
    assert taken.observation.seen is Seen.COMPLETED
    assert taken.observation.urls == ("https://a.example/1.png",)
    assert (done.head, taken.head) == (None, None)


async def test_picture_of_30_mebibytes_arrives_whole() -> None:
    """A picture in the answer itself is a paid result, whatever its size, and reading it leaves room for the next."""
    url = b"data:image/png;base64," + b"QUJD" * (10 << 20)
    answer = PLAIN.replace(b"https://a.example/1.png", url)
    async with asked(Upstream(*[answer] * 7)) as provider:
        outcomes = [await provider.poll("generate", "t1", None) for _ in range(7)]

    assert {outcome.observation and len(outcome.observation.urls[0]) for outcome in outcomes} == {len(url)}


@pytest.mark.parametrize(
    ("answer", "words", "named"),
    [
        (said(PLAIN[:-30], b"Set-Cookie: s=1"), "apimodels answered 200, but its body is broken JSON", True),
        (said(PLAIN[:-30], b"Content-Length: 500"), "cut the connection before its answer was whole", True),
        (said(b"\x0b", b"Content-Encoding: br"), "its body is packed with br, which cannot be unpacked here", False),
        (said(b"<html>"), "apimodels answered 200, but its body is no JSON", False),
        (said(b""), "apimodels answered 200, but its body is empty", False),
        (said(b"[" * 100_000), "apimodels answered 200, but its body is nested too deeply", False),
        (
            said(b"[" + b"1," * 200_000 + b"1]"),
            "apimodels answered 200, but its body holds more than 100000 values",
            False,
        ),
        (said(b'"' + b"x" * (70 << 20) + b'"'), "apimodels answered 200, but its body is larger than 64 MiB", False),
        (said(gzip.compress(b'"' + b"x" * (70 << 20) + b'"'), b"Content-Encoding: gzip"), "its body", False),
        (said(PLAIN + b"x"), "apimodels answered 200, but its body has something behind its JSON", True),
        (said(b'{"url":"https://a.example/1"}'), "apimodels answered 200 without a task that can be followed", False),
        (said(b"{}", b"X-A: " + b"a" * 70_000), "answered with a head of more than 64 KiB", False),
        (said(b"{}", b"Content-Length: 2", b"Content-Length: 3"), "answered with two different lengths", False),
    ],
)
async def test_answer_that_tells_nothing_is_told_itself(answer: bytes, words: str, named: bool) -> None:
    """Why it could not be read, how its head began, without cookies, and the id of the task where it stood before that."""
    async with asked(Upstream(answer)) as provider:
        outcome = await provider.submit("generate", {"model": "sparkpix", "prompt": "x"}, CALLBACK_URL)

    assert outcome.verdict is Verdict.UNKNOWN
    assert words in (outcome.message or "")
    assert (outcome.observation.task_id if outcome.observation else None) == ("t1" if named else None)
    assert outcome.head is not None
    assert outcome.head.startswith("HTTP/1.1 200 OK\n")
    assert "s=1" not in outcome.head
    assert len(outcome.head) <= 2048


async def test_id_is_kept_as_the_number_that_was_written() -> None:
    """An id of 1e3 is asked for as 1e3."""
    upstream = Upstream(PLAIN.replace(b'"t1"', b"1.50e3").replace(b"completed", b"pending"), PLAIN)
    async with asked(upstream) as provider:
        taken = await provider.submit("generate", {"model": "sparkpix", "prompt": "x"}, CALLBACK_URL)
        assert taken.observation is not None
        await provider.poll("generate", taken.observation.task_id or "", None)

    assert b"task_id=1.50e3 " in upstream.requests[1]
