"""The demo's subscriber: a real endpoint on loopback that checks every signature before it believes anything.

Owns receiving and verifying. It must not know which jobs there are.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from service.api.listening.listener import Listener
from service.clock import Clock
from service.signing import ID_HEADER, SignatureInvalid, verify

_MAX_BYTES: Final = 1 << 20  # of an event

_Message = MutableMapping[str, Any]


class ResultSeen(msgspec.Struct, frozen=True):
    """A result as the event shows it."""

    url: str


class ErrorSeen(msgspec.Struct, frozen=True):
    """Why a job failed."""

    code: str


class JobSeen(msgspec.Struct, frozen=True):
    """What the demo reads of a job."""

    id: str
    provider: str
    operation: str
    status: str
    provider_status: str | None = None
    resolved_by: str | None = None
    provider_task_id: str | None = None
    finished_at: str | None = None
    metadata: dict[str, str] = {}
    results: list[ResultSeen] = []
    error: ErrorSeen | None = None


class _Data(msgspec.Struct, frozen=True):
    job: JobSeen


class _Event(msgspec.Struct, frozen=True):
    type: str
    timestamp: str
    data: _Data


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request that came, and whether it was what it claims to be."""

    event_id: str
    type: str
    timestamp: str
    at_ms: int
    verified: bool
    job: JobSeen


class Subscriber:
    """Listens on a free port of loopback between `start` and `stop`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._listeners: list[Callable[[Arrival], None]] = []
        self._secrets: tuple[bytes, ...] = ()
        self._listener: Listener | None = None
        self.url = ""

    def trust(self, secret: bytes) -> None:
        """Believe what is signed with this secret; nothing is believed before."""
        self._secrets = (secret,)

    def tell(self, listener: Callable[[Arrival], None]) -> None:
        """Call it with everything that comes from now on, believed or not."""
        self._listeners.append(listener)

    async def start(self) -> None:
        """Listen."""
        self._listener = Listener(self._serve, "127.0.0.1", 0)
        listening: socket.socket = self._listener.bind()
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}/events"
        await self._listener.start_on(listening)
        listening.close()  # it serves on one of its own

    async def stop(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            self._listener.begin_drain()
            await self._listener.stopped()

    async def _serve(
        self, scope: _Message, receive: Callable[[], Awaitable[_Message]], send: Callable[[_Message], Awaitable[None]]
    ) -> None:
        body = await _read(receive)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        status = self._take(headers, body)
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    def _take(self, headers: dict[str, str], body: bytes) -> int:
        """Note what came; the status to answer with."""
        at_ms = self._clock.now_ms()
        try:
            event = msgspec.json.decode(body, type=_Event)
        except (msgspec.DecodeError, msgspec.ValidationError):
            return 400
        verified = self._is_genuine(headers, body, self._clock.wall_ms())
        event_id = headers.get(ID_HEADER, "")
        arrival = Arrival(event_id, event.type, event.timestamp, at_ms, verified, event.data.job)
        for listener in self._listeners:
            listener(arrival)
        return 204 if verified else 401

    def _is_genuine(self, headers: dict[str, str], body: bytes, now_ms: int) -> bool:
        try:
            verify(self._secrets, headers, body, now_s=now_ms / 1000)
        except SignatureInvalid:
            return False
        return True


async def _read(receive: Callable[[], Awaitable[_Message]]) -> bytes:
    body = b""
    while len(body) <= _MAX_BYTES:
        message = await receive()
        body += message.get("body", b"")
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            break
    return body
