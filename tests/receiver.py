"""A real endpoint on 127.0.0.1 that records what it gets, verifies it with a second library, and misbehaves when told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web
from standardwebhooks.webhooks import Webhook

PATIENCE_S = 60.0  # how long a test waits for a signal before it fails


@dataclass(frozen=True, slots=True)
class Received:
    """One request: its event, and what it came with."""

    id: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        """The event in the body."""
        return json.loads(self.body)  # type: ignore[no-any-return]

    @property
    def type(self) -> str:
        """The event's type."""
        return str(self.event["type"])

    @property
    def job(self) -> dict[str, Any]:
        """The job in the event."""
        return self.event["data"]["job"]  # type: ignore[no-any-return]


@dataclass(slots=True)
class Receiver:
    """A subscriber. `answer` decides what the next request is answered; the default is 204."""

    answer: Callable[[Received], web.StreamResponse | int] = lambda _: 204
    received: list[Received] = field(default_factory=list)
    url: str = ""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        """Listen on a free port."""
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/hooks"
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        received = Received(request.headers.get("webhook-id", ""), dict(request.headers), body)
        self.received.append(received)
        self._changed.set()
        answer = self.answer(received)
        return web.Response(status=answer) if isinstance(answer, int) else answer

    async def wait_for(self, count: int, *, of: Callable[[Received], bool] = lambda _: True) -> list[Received]:
        """Wait until so many requests came that fit."""
        async with asyncio.timeout(PATIENCE_S):
            while len(found := [each for each in self.received if of(each)]) < count:
                self._changed.clear()
                await self._changed.wait()
        return found


def verified(received: Received, secret: str) -> dict[str, Any]:
    """The event, checked by the standardwebhooks library; raises when the signature does not fit."""
    headers = {name.lower(): value for name, value in received.headers.items()}
    return Webhook(secret).verify(received.body, headers)  # type: ignore[no-any-return]
