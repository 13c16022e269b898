"""The real door: every outbound request of the service goes through it, and nothing else opens a connection.

Deliveries, the hot path, use aiohttp's session itself; provider calls use httpx's API on the same kind of connector.
Knows nothing of events, jobs or providers.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from io import BytesIO
from typing import cast

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from multidict import CIMultiDictProxy

from service.clock import Clock
from service.egress import Answer, AnswerCut, Call, Download
from service.egress.connections import PROGRESS, GatedConnector, Progress
from service.egress.gate import Gate, Network
from service.egress.http_errors import FAULTS, fault
from service.egress.names import NOT_FOUND, Lookup, Names, system_lookup
from service.egress.room import AnswerRoom
from service.egress.target import Target, is_documentation, read_link, read_target
from service.errors import EgressCut, EgressError, EgressNotSent, EgressRefused

CONNECT_S = 10.0  # for TCP and TLS with one address; the next address is tried after that, if there is time left
LARGE_BYTES = 1 << 20  # above it aiohttp warns of bodies in one piece, which hold up the event loop
CHUNK_BYTES = 64 << 10  # the pieces in which such a body is sent
SMALL_BYTES = 4 << 20  # of an answer that needs no room; what lies beyond waits in the network until there is some
#: For all large answers of the process together; one that is being read takes up to five times its size.
ROOM_BYTES = 256 << 20

_NOTHING = httpx.ByteStream(b"")
_HEADERS = {"User-Agent": "remora", "Accept": "*/*", "Accept-Encoding": "identity"}


@dataclass(frozen=True, slots=True)
class _Clients:
    """Both clients over one connector."""

    session: aiohttp.ClientSession
    httpx: httpx.AsyncClient


class Door:
    """See `Egress`. Between `start` and `close`, inside one running event loop.

    Args:
        allow: Networks that may be reached although they are private (`REMORA_EGRESS_ALLOW`).
        lookup: How names are looked up; blocks, and runs in threads of our own.
        tls: Whom to trust instead of the certificate authorities of the web.
    """

    def __init__(
        self,
        *,
        allow: tuple[Network, ...],
        clock: Clock,
        lookup: Lookup = system_lookup,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._gate = Gate(allow)
        self._clock = clock
        self._names = Names(lookup, clock)
        self._tls = tls
        self._kept: _Clients | None = None
        self._fresh: _Clients | None = None
        self._room = AnswerRoom(ROOM_BYTES)

    async def start(self) -> None:
        """Make the clients; no connection yet."""
        for name in ("httpx", "aiohttp"):
            logger = logging.getLogger(name)
            logger.setLevel(max(logger.level, logging.WARNING))  # httpx logs whole URLs, with their tokens, at INFO
        tls = self._tls
        if tls is None:
            tls = await asyncio.to_thread(_web_trust)  # reads files
        self._kept = self._clients(tls, reuse=True)
        self._fresh = self._clients(tls, reuse=False)

    async def close(self) -> None:
        """Close every connection; requests that are under way end as cut."""
        for clients in (self._kept, self._fresh):
            if clients is not None:
                await clients.httpx.aclose()  # closes the session too
        self._kept = self._fresh = None
        await self._names.close()

    async def deliver(
        self, url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float, read_bytes: int
    ) -> Answer:
        """See `Egress`."""
        target = read_target(url)
        progress = self._begin()
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._post(target, body, headers, progress)
                progress.answered_s = self._clock.monotonic()
                read, truncated = await _read(response, read_bytes)
        except EgressError as error:
            error.timing = progress.timing()
            raise
        except FAULTS as error:
            raise fault(error, target.host, headers, progress) from None
        duration_ms = self._since_ms(progress.began_s)
        return Answer(response.status, _lower(response.headers), read, truncated, duration_ms, progress.timing())

    async def call(self, call: Call, *, timeout_s: float, read_bytes: int, fresh: bool = False) -> Answer:
        """See `Egress`."""
        target = read_target(call.url)
        progress = self._begin(once=fresh)
        client = self._open(self._fresh if fresh else self._kept).httpx
        body = _Body(read_bytes, self._room)
        try:
            return await self._called(call, target, body, client=client, timeout_s=timeout_s, progress=progress)
        except AnswerCut:
            raise  # its answer has the room now
        except BaseException:
            body.release()
            raise

    async def _called(
        self,
        call: Call,
        target: Target,
        body: _Body,
        *,
        client: httpx.AsyncClient,
        timeout_s: float,
        progress: Progress,
    ) -> Answer:
        response: httpx.Response | None = None
        try:
            async with asyncio.timeout(timeout_s) as deadline:
                response = await client.send(_request(client, target, call), stream=True)
                progress.answered_s = self._clock.monotonic()
                try:
                    await body.read(response, deadline)
                finally:
                    await response.aclose()
                    # It and its stream refer to each other, and forty objects would stay until the collector comes by.
                    response.stream = _NOTHING
        except EgressError as error:
            error.timing = progress.timing()
            raise
        except FAULTS as error:
            made = fault(error, target.host, call.headers, progress)
            made.head = progress.head
            if isinstance(made, EgressCut) and response is not None:
                made = AnswerCut(made, await self._answer(response, body, progress, str(made)))
            raise made from None
        return await self._answer(response, body, progress)

    async def _answer(
        self, response: httpx.Response, body: _Body, progress: Progress, cut: str | None = None
    ) -> Answer:
        return Answer(
            response.status_code,
            dict(response.headers),
            await body.whole(),
            body.truncated,
            self._since_ms(progress.began_s),
            progress.timing(),
            progress.head,
            cut,
            body.release,
        )

    async def fetch(self, url: str, *, timeout_s: float, stall_s: float) -> Download:
        """See `Files`."""
        target = read_link(url)
        progress = self._begin()
        until_s = asyncio.get_running_loop().time() + timeout_s
        try:
            async with asyncio.timeout(min(timeout_s, stall_s + CONNECT_S)):
                session = self._open(self._kept).session
                response = await session.get(target.url, allow_redirects=False)
        except EgressError:
            raise
        except FAULTS as error:
            raise fault(error, target.host, {}, progress) from None
        return _Download(response, target.host, progress, until_s, stall_s)

    async def check(self, url: str, *, unresolved_ok: bool = False) -> None:
        """See `Egress`. A name that cannot be looked up now passes: it is judged again whenever it is dialled."""
        target = read_target(url)
        self._gate.admit(target.host, await self._addresses(target, unresolved_ok=unresolved_ok))

    def _begin(self, *, once: bool = False) -> Progress:
        progress = Progress(once=once, began_s=self._clock.monotonic())
        PROGRESS.set(progress)
        return progress

    async def _addresses(self, target: Target, *, unresolved_ok: bool) -> tuple[str, ...]:
        if target.address is not None:
            return (target.address,)
        try:
            return await self._names.addresses(target.host)
        except EgressNotSent as error:
            if error.reason != NOT_FOUND or unresolved_ok or is_documentation(target.host):
                return ()
            raise EgressRefused(error.reason, str(error)) from None

    async def _post(
        self, target: Target, body: bytes, headers: Mapping[str, str], progress: Progress
    ) -> aiohttp.ClientResponse:
        session = self._open(self._kept).session
        data = body if len(body) <= LARGE_BYTES else BytesIO(body)
        try:
            return await session.post(target.url, data=data, headers=headers, allow_redirects=False)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if progress.dialled or _began_to_answer(error):
                raise
        # The server closed a kept connection while it was idle. The receiver tells a repeat by the event's id, so the
        # chance that it did read the request costs nothing.
        session = self._open(self._fresh).session
        data = body if len(body) <= LARGE_BYTES else BytesIO(body)
        return await session.post(target.url, data=data, headers=headers, allow_redirects=False)

    def _clients(self, tls: ssl.SSLContext, *, reuse: bool) -> _Clients:
        session = aiohttp.ClientSession(
            connector=GatedConnector(self._gate, self._names, tls, self._clock, reuse=reuse),
            headers=_HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # 292 KB of gzip became 300 MB
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
        )
        client = httpx.AsyncClient(
            transport=AiohttpTransport(client=session, verify=tls, trust_env=False),
            headers=_HEADERS if reuse else {**_HEADERS, "Connection": "close"},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # httpx has no switch to keep none
            timeout=httpx.Timeout(None, connect=CONNECT_S),
            follow_redirects=False,
            trust_env=False,
        )
        return _Clients(session, client)

    def _open(self, clients: _Clients | None) -> _Clients:
        if clients is None:
            raise EgressNotSent("connect_failed", "the service is not started, or is shutting down")
        return clients

    def _since_ms(self, began: float) -> int:
        return round((self._clock.monotonic() - began) * 1000)


class _Download:
    """See `Download`."""

    def __init__(
        self, response: aiohttp.ClientResponse, host: str, progress: Progress, until_s: float, stall_s: float
    ) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = _lower(response.headers)
        self._response = response
        self._host = host
        self._progress = progress
        self._until_s = until_s
        self._stall_s = stall_s

    async def read(self) -> bytes:
        """See `Download`."""
        until_s = min(self._until_s, asyncio.get_running_loop().time() + self._stall_s)
        try:
            async with asyncio.timeout_at(until_s):
                return await self._response.content.readany()
        except FAULTS as error:
            raise fault(error, self._host, {}, self._progress) from None

    def close(self) -> None:
        """See `Download`."""
        # What was read to its end is free for the next request already; the rest is not worth waiting for.
        self._response.close()


def _web_trust() -> ssl.SSLContext:
    """The web's certificate authorities: `SSL_CERT_FILE` or `SSL_CERT_DIR` where they are set, else certifi's."""
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _began_to_answer(error: Exception) -> bool:
    # aiohttp hands on what it had parsed when the connection was closed, or a text where there was nothing.
    return isinstance(error, aiohttp.ServerDisconnectedError) and not isinstance(error.message, str)


def _lower(headers: CIMultiDictProxy[str]) -> dict[str, str]:
    lower: dict[str, str] = {}
    for name, value in headers.items():
        key = name.lower()
        lower[key] = f"{lower[key]}, {value}" if key in lower else value
    return lower


async def _read(response: aiohttp.ClientResponse, read_bytes: int) -> tuple[bytes, bool]:
    """The body up to the cap, and whether there was more; the connection is kept only if there was not."""
    chunks: list[bytes] = []
    size = 0
    try:
        while size <= read_bytes:
            chunk = await response.content.readany()
            if not chunk:
                return b"".join(chunks), False
            chunks.append(chunk)
            size += len(chunk)
    finally:
        # Releases what was read to its end and closes what was not.
        response.release()
    return b"".join(chunks)[:read_bytes], True


@dataclass(slots=True)
class _Body:
    """As `_read`; raw, since httpx would unpack what a server packed against our wish, and a large one only where there is room."""

    read_bytes: int
    room: AnswerRoom
    truncated: bool = False
    _taken: int = 0
    _size: int = 0
    _pieces: list[bytes] = field(default_factory=list)

    async def read(self, response: httpx.Response, deadline: asyncio.Timeout) -> None:
        """Read up to the cap, and know whether there was more."""
        async with aclosing(cast("AsyncGenerator[bytes]", response.aiter_raw())) as pieces:
            async for piece in pieces:
                self._pieces.append(piece)
                self._size += len(piece)
                if self._size > self.read_bytes:
                    self.truncated = True
                    return
                if self._size > SMALL_BYTES and not self._taken:
                    await self._take_room(response, deadline)

    async def whole(self) -> bytes:
        """What was read, in one piece."""
        joined = (
            b"".join(self._pieces) if self._size <= LARGE_BYTES else await asyncio.to_thread(b"".join, self._pieces)
        )
        self._pieces.clear()
        return joined[: self.read_bytes]

    async def _take_room(self, response: httpx.Response, deadline: asyncio.Timeout) -> None:
        """Wait for room, which is no fault of the server: its deadline is put off by as much."""
        length = response.headers.get("content-length", "")
        size = min(int(length), self.read_bytes) if length.isdigit() and len(length) < 12 else self.read_bytes
        loop, until = asyncio.get_running_loop(), deadline.when()
        began = loop.time()
        deadline.reschedule(None)
        self._taken = await self.room.take(size)
        deadline.reschedule(None if until is None else until + loop.time() - began)

    def release(self) -> None:
        """Give the room back; once, however often it is called."""
        taken, self._taken = self._taken, 0
        if taken:
            self.room.leave(taken)


def _request(client: httpx.AsyncClient, target: Target, call: Call) -> httpx.Request:
    headers = dict(call.headers)
    content: bytes | AsyncIterator[bytes] | None = call.body
    if call.body is not None and len(call.body) > LARGE_BYTES:
        content = _pieces(call.body)
        headers["Content-Length"] = str(len(call.body))
    return client.build_request(call.method, str(target.url), headers=headers, content=content)


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), CHUNK_BYTES):
        yield body[start : start + CHUNK_BYTES]
