"""A server on loopback that says exactly what a test tells it to, byte by byte."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Network

from service.clock import Clock, SystemClock
from service.egress.door import Door
from service.egress.names import Lookup

LOOPBACK = (IPv4Network("127.0.0.0/8"),)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Peer:
    """One connection, as the script sees it."""

    number: int  # from 0, over the server's life
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    heard: list[tuple[str, bytes]]

    async def request(self) -> bytes:
        """Read one whole request; its body."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:-2])
        body = await self.reader.readexactly(int(fields.get("content-length", "0")))
        self.heard.append((head, body))
        return body

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


Script = Callable[[Peer], Awaitable[None]]


@dataclass
class Server:
    port: int = 0
    scheme: str = "http"
    connections: int = 0
    heard: list[tuple[str, bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/hook"


@asynccontextmanager
async def serving(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Run `script` for each connection; the connection is closed at its end."""
    server = Server(scheme="https" if tls else "http")
    tasks: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(server.connections, reader, writer, server.heard)
        server.connections += 1
        try:
            await script(peer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client went away
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(run(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        running = list(tasks)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def polite(peer: Peer) -> None:
    """Answer every request and keep the connection."""
    while True:
        await peer.request()
        await peer.say(OK)


def saying(*parts: bytes) -> Script:
    """Read a request, say the parts, close."""

    async def script(peer: Peer) -> None:
        await peer.request()
        for part in parts:
            await peer.say(part)

    return script


async def mute(peer: Peer) -> None:
    """Read for ever, say nothing."""
    while await peer.reader.read(65_536):
        pass


def nobody(host: str) -> list[str]:
    """A look-up for tests that need none."""
    raise AssertionError(f"{host} was looked up")


@asynccontextmanager
async def opened(
    lookup: Lookup = nobody,
    *,
    allow: tuple[IPv4Network, ...] = LOOPBACK,
    clock: Clock | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Door]:
    """A door that may reach loopback."""
    door = Door(allow=allow, clock=clock or SystemClock(), lookup=lookup, tls=tls)
    await door.start()
    try:
        yield door
    finally:
        await door.close()
