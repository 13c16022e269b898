"""A running sandbox, clients for it and an endpoint for its callbacks, all on 127.0.0.1."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from service.clock import VirtualClock
from service.sandbox.faults import parse_faults
from service.sandbox.server import SandboxOptions, SandboxServer

QUICK = 500.0  # a task takes 20 to 60 ms
HEADERS = {"Authorization": "Bearer sk-test", "Content-Type": "application/json"}


class WatchedClock(VirtualClock):
    """A virtual clock that tells how many sleep on it, so that nobody advances it too early."""

    def __init__(self) -> None:
        super().__init__()
        self._asleep = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self._asleep.set()
        await super().sleep(seconds)

    async def pass_by(self, seconds: float, sleepers: int = 1) -> None:
        """Advance once so many sleep."""
        async with asyncio.timeout(5):
            while len(self._sleepers) < sleepers:
                self._asleep.clear()
                await self._asleep.wait()
        self.advance(seconds)


class Endpoint:
    """Takes callbacks; the first ones are answered with the statuses it was told."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.answers: list[int] = []
        self.url = ""
        self._came = asyncio.Condition()

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        async with self._came:
            self.bodies.append(body)
            self._came.notify_all()
        return web.Response(status=self.answers.pop(0) if self.answers else 200)

    async def wait_for(self, count: int) -> list[Any]:
        """The bodies, decoded, once there are so many."""
        async with asyncio.timeout(10), self._came:
            await self._came.wait_for(lambda: len(self.bodies) >= count)
        return [json.loads(body) for body in self.bodies]


@dataclass
class Caller:
    """Speaks to the sandbox as a client does; what names no path is apimodels.app's."""

    session: aiohttp.ClientSession
    url: str
    headers: dict[str, str] = field(default_factory=lambda: dict(HEADERS))

    async def post(self, body: object, path: str = "/api/v1/images/generations") -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.post(self.url + path, data=io.BytesIO(data), headers=self.headers) as answer:
            return answer.status, await answer.json(content_type=None)

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.session.get(self.url + path, headers=self.headers) as answer:
            return answer.status, await answer.json(content_type=None)

    async def poll(self, task_id: str) -> tuple[int, Any]:
        return await self.get(f"/api/v1/images/generations?task_id={task_id}")

    async def create(self, prompt: str = "a cat", **fields: Any) -> str:
        status, body = await self.post({"model": "sparkpix", "prompt": prompt, **fields})
        assert status == 200, body
        task_id = body["data"]["taskId"]
        assert isinstance(task_id, str)
        return task_id


@dataclass(frozen=True)
class Place:
    """A sandbox with somebody who speaks to it."""

    server: SandboxServer
    caller: Caller

    def to(self, card: str) -> Caller:
        """A client of that card's provider."""
        return Caller(self.caller.session, self.server.base_urls[card])

    async def ended(self) -> None:
        """Wait until every task has ended."""
        await self.server.until(lambda: all(task.ended for task in self.server.tasks))


Open = Callable[..., Any]


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def start(session: aiohttp.ClientSession) -> AsyncIterator[Open]:
    """Starts sandboxes with these faults; they stop after the test."""
    async with AsyncExitStack() as stack:

        async def start_one(faults: str = "", speed: float = QUICK, **options: Any) -> Place:
            server = SandboxServer(SandboxOptions(speed=speed, faults=parse_faults(faults)), **options)
            await server.start()
            stack.push_async_callback(server.stop)
            return Place(server, Caller(session, server.base_url))

        yield start_one


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    """Where callbacks go to."""
    endpoint = Endpoint()
    app = web.Application(client_max_size=2**25)
    app.router.add_post("/hook", endpoint.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    endpoint.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield endpoint
    await runner.cleanup()
