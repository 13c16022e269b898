"""A provider asked through the real way out, over a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network

from pydantic import SecretStr

from service.clock import SystemClock
from service.egress.door import Door
from service.providers.client import PollVerdict, Verdict
from service.providers.mapping import Seen
from service.providers.registry import Provider, Registry
from service.settings import ProviderSettings
from tests.providers.scripted import CALLBACK_URL, KEY, quoted


class Upstream:
    """Answers each connection's request with the next body, and keeps the requests."""

    def __init__(self, *bodies: bytes) -> None:
        self.bodies = list(bodies)
        self.requests: list[bytes] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        self.requests.append(head + await reader.readexactly(int(length[0].split(b":")[1]) if length else 0))
        if self.bodies:  # else the connection is cut after the request was read
            body = self.bodies.pop(0)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
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
