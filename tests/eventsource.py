"""A reader of Server-Sent Events on a real socket, by the letter of the standard, that can be cut off or stop reading anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.receiver import PATIENCE_S


@dataclass(frozen=True, slots=True)
class Event:
    """What a browser would hand over."""

    id: str
    type: str
    data: str

    @property
    def json(self) -> dict[str, Any]:
        """The data."""
        return json.loads(self.data)  # type: ignore[no-any-return]


@dataclass(slots=True)
class EventSource:
    """One stream. `last_id` is what a browser would come back with."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    last_id: str = ""
    retry_ms: int | None = None
    comments: list[str] = field(default_factory=list)
    _rest: bytes = b""
    _id: str = ""
    _fields: dict[str, list[str]] = field(default_factory=dict)

    async def line(self) -> str | None:
        """The next line; None at the end of the stream."""
        async with asyncio.timeout(PATIENCE_S):
            while b"\n" not in self._rest:
                chunk = await self._chunk()
                if not chunk:
                    return None
                self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    async def _chunk(self) -> bytes:
        try:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            return (await self.reader.readexactly(size + 2))[:-2]
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""

    async def comment(self) -> str:
        """The next comment."""
        count = len(self.comments)
        while len(self.comments) == count:
            line = await self.line()
            assert line is not None, "the stream ended"
            self._take(line)
        return self.comments[-1]

    async def event(self) -> Event | None:
        """The next event; None at the end of the stream."""
        while (line := await self.line()) is not None:
            event = self._take(line)
            if event is not None:
                return event
        return None

    async def events(self, count: int) -> list[Event]:
        """The next so many."""
        found = [await self.event() for _ in range(count)]
        assert None not in found, "the stream ended"
        return [event for event in found if event is not None]

    def _take(self, line: str) -> Event | None:
        if not line:
            self.last_id = self._id
            fields, self._fields = self._fields, {}
            if "data" not in fields:
                return None
            return Event(self.last_id, fields.get("event", ["message"])[-1], "\n".join(fields["data"]))
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name:
            self.comments.append(value)
        elif name == "id":
            self._id = value
        elif name == "retry":
            self.retry_ms = int(value)
        else:
            self._fields.setdefault(name, []).append(value)
        return None


@contextlib.asynccontextmanager
async def follow(
    base_url: str,
    path: str = "/v1/events/stream",
    *,
    headers: Mapping[str, str] | None = None,
    buffer_bytes: int | None = None,
) -> AsyncIterator[EventSource]:
    """Open a stream and read its head; at the end the connection is cut, whatever is under way.

    Args:
        base_url: Of the service.
        path: With its query string.
        headers: Of the request.
        buffer_bytes: Of the socket, for one that stops reading; it then reads nothing by itself.
    """
    address = urlsplit(base_url)
    raw = socket.socket()
    raw.setblocking(False)
    if buffer_bytes is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    await asyncio.get_running_loop().sock_connect(raw, (address.hostname, address.port))
    reader, writer = await asyncio.open_connection(sock=raw, limit=buffer_bytes or 2**20)
    lines = [f"GET {path} HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in (headers or {}).items())]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
    try:
        async with asyncio.timeout(PATIENCE_S):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        yield EventSource(reader, writer, int(head[0].split(" ")[1]), fields)
    finally:
        writer.transport.abort()


def bearer(key: str, last_id: str = "") -> dict[str, str]:
    """The headers of a request with a key, and with the id where an earlier stream ended."""
    return {"Authorization": f"Bearer {key}"} | ({"Last-Event-ID": last_id} if last_id else {})
