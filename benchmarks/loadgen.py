"""The load side of the path benchmark: HTTP/1.1 with nothing in it, and the two ways of loading.

Both ends are bare `asyncio.Protocol`s that read a head and a Content-Length, so that what is measured is the other side.
Times are of `time.perf_counter`, since uvloop's own clock only moves in milliseconds. This file must not know what the
messages mean.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self, cast

CONNECTIONS = 64  # kept-alive ones of a client
LEAD_S = 0.05  # from the start of an open loop to its first message
SPIN_S = 0.002  # timers only wake in whole milliseconds; the last two before a message are waited for awake

Answered = Callable[[int, bytes], None]  # status (0: the connection was lost) and body
Handler = Callable[[bytes, bytes], bytes]  # head and body of a request to the whole answer


class BadHTTPError(ValueError):
    """The other side used something that this bare reader does not know, such as chunks."""


def request(method: str, path: str, host: str, body: bytes, *headers: str) -> bytes:
    """A whole request, ready to be written."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}"]
    if body:
        lines.append("Content-Type: application/json")
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def answer(status: str, body: bytes = b"") -> bytes:
    """A whole answer; `status` is the number and its phrase."""
    lines = [f"HTTP/1.1 {status}"]
    if not status.startswith("204"):
        lines.append(f"Content-Length: {len(body)}")
    if body:
        lines.append("Content-Type: application/json")
    return "\r\n".join([*lines, "", ""]).encode() + body


def length_of(head: bytes) -> int:
    """How long the body behind this head is."""
    small = head.lower()
    at = small.find(b"\r\ncontent-length:")
    if at >= 0:
        end = small.find(b"\r\n", at + 17)
        return int(small[at + 17 : end if end >= 0 else len(small)])
    if b"\r\ntransfer-encoding:" in small:
        raise BadHTTPError(f"chunks are not read here: {head[:80]!r}")
    return 0


def _transport(transport: asyncio.BaseTransport) -> asyncio.Transport:
    return cast(asyncio.Transport, transport)  # uvloop's are none by class


class _Outgoing(asyncio.Protocol):
    """One kept-alive connection of a client, with one request at a time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._held = b""
        self.done: Answered | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = _transport(transport)

    def data_received(self, data: bytes) -> None:
        held = self._held + data if self._held else data
        end = held.find(b"\r\n\r\n")
        if end < 0 or len(held) < end + 4 + length_of(held[:end]):
            self._held = held
            return
        self._held = b""
        done, self.done = self.done, None
        self._client.free(self)
        if done is not None:
            done(int(held[9:12]), held[end + 4 :])

    def connection_lost(self, exc: Exception | None) -> None:
        done, self.done = self.done, None
        self._client.lost(self)
        if done is not None:
            done(0, b"")


class Client:
    """Kept-alive connections to one server, used in turns; requests wait where all of them are busy."""

    def __init__(self, host: str, port: int, connections: int = CONNECTIONS) -> None:
        self._address = (host, port)
        self._connections = connections
        self._idle: deque[_Outgoing] = deque()
        self._open: set[_Outgoing] = set()
        self._waiting: deque[tuple[bytes, Answered]] = deque()
        self._closed = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Connect all."""
        loop = asyncio.get_running_loop()
        for _ in range(self._connections):
            _, connection = await loop.create_connection(lambda: _Outgoing(self), *self._address)
            self._open.add(connection)
            self._idle.append(connection)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all."""
        for connection in list(self._open):
            connection.transport.close()
        if self._open:
            await self._closed.wait()

    def send(self, message: bytes, done: Answered) -> None:
        """Write a request now, or as soon as a connection is free."""
        if self._idle:
            connection = self._idle.popleft()
            connection.done = done
            connection.transport.write(message)
        elif self._open:
            self._waiting.append((message, done))
        else:
            done(0, b"")

    def free(self, connection: _Outgoing) -> None:
        """A connection has its answer."""
        self._idle.append(connection)
        if self._waiting:
            self.send(*self._waiting.popleft())

    def lost(self, connection: _Outgoing) -> None:
        """A connection ended."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._open:
            return
        self._closed.set()
        while self._waiting:
            self._waiting.popleft()[1](0, b"")


class _Incoming(asyncio.Protocol):
    """One connection of a server."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._out = _transport(transport)

    def data_received(self, data: bytes) -> None:
        held = self._held + data if self._held else data
        while (end := held.find(b"\r\n\r\n")) >= 0:
            head = held[:end]
            whole = end + 4 + length_of(head)
            if len(held) < whole:
                break
            self._out.write(self._handler(head, held[end + 4 : whole]))
            held = held[whole:]
            if b"onnection: close" in head:
                self._out.close()
                break
        self._held = held


async def serve(handler: Handler) -> asyncio.Server:
    """Listen on a free port of 127.0.0.1."""
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: _Incoming(handler), "127.0.0.1", 0, backlog=4096)


def port_of(server: asyncio.Server) -> int:
    """The port a server listens on."""
    return int(server.sockets[0].getsockname()[1])


@dataclass(slots=True)
class Tally:
    """What became of each of `count` messages: an answer to the sender, and an arrival somewhere else."""

    count: int
    expected: int = 200  # the status that is success
    scheduled: list[float] = field(init=False)
    status: list[int | None] = field(init=False)  # None: no answer yet
    arrivals: list[int] = field(init=False)
    answered_s: list[float] = field(init=False)  # from the schedule to the answer
    arrived_s: list[float] = field(init=False)  # from the schedule to the first arrival
    settled: int = 0
    last: float = 0.0  # when the last one settled
    complete: asyncio.Event = field(default_factory=asyncio.Event)
    on_settled: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        self.scheduled = [0.0] * self.count
        self.status = [None] * self.count
        self.arrivals = [0] * self.count
        self.answered_s = [math.inf] * self.count
        self.arrived_s = [math.inf] * self.count

    def answered(self, number: int, status: int) -> None:
        """The sender of a message has its answer."""
        now = time.perf_counter()
        self.status[number] = status
        self.answered_s[number] = now - self.scheduled[number]
        if self.arrivals[number] or status != self.expected:
            self._settle(now)

    def arrived(self, number: int) -> None:
        """The message came out at the other end."""
        now = time.perf_counter()
        self.arrivals[number] += 1
        if self.arrivals[number] > 1:
            return
        self.arrived_s[number] = now - self.scheduled[number]
        if self.status[number] == self.expected:
            self._settle(now)

    def _settle(self, now: float) -> None:
        self.settled += 1
        self.last = now
        if self.on_settled is not None:
            self.on_settled()
        if self.settled == self.count:
            self.complete.set()

    def refused(self) -> int:
        """Messages that got another answer than the expected one, or none."""
        return sum(status != self.expected for status in self.status)

    def once(self) -> int:
        """Messages that arrived exactly once."""
        return sum(arrivals == 1 for arrivals in self.arrivals)

    def more(self) -> int:
        """Messages that arrived more than once."""
        return sum(arrivals > 1 for arrivals in self.arrivals)

    def per_s(self) -> float:
        """Messages that settled per second, over all the time from the first one's schedule to the last one's end."""
        return self.settled / (self.last - self.scheduled[0]) if self.settled else 0.0


def percentile(values: list[float], share: float) -> float:
    """The nearest-rank percentile: the smallest value that at least `share` of all do not exceed."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


Send = Callable[[int], None]  # a message by its number


async def open_loop(tally: Tally, send: Send, rate: float, limit_s: float) -> None:
    """Send at a fixed rate, whatever comes back, and wait until all have settled or `limit_s` are over.

    Latency counts from the moment at which a message was due, so that a stall is charged to every message it delayed.
    """
    began = time.perf_counter() + LEAD_S
    number = 0
    while number < tally.count:
        due = began + number / rate
        ahead = due - time.perf_counter()
        if ahead > 0:
            await asyncio.sleep(max(0.0, ahead - SPIN_S))
            continue
        tally.scheduled[number] = due
        send(number)
        number += 1
        if not number % 32:
            await asyncio.sleep(0)  # behind the schedule too, answers have to be read
    await _end(tally, limit_s)


async def closed_loop(tally: Tally, send: Send, in_flight: int, limit_s: float) -> None:
    """Keep so many messages under way until all have settled or `limit_s` are over."""
    numbers = iter(range(tally.count))

    def following() -> None:
        number = next(numbers, None)
        if number is not None:
            tally.scheduled[number] = time.perf_counter()
            send(number)

    tally.on_settled = following
    for _ in range(in_flight):
        following()
    await _end(tally, limit_s)
    tally.on_settled = None


async def _end(tally: Tally, limit_s: float) -> None:
    """What has not settled by the end is counted as missing, not waited for."""
    try:
        async with asyncio.timeout(limit_s):
            await tally.complete.wait()
    except TimeoutError:
        tally.last = time.perf_counter()
