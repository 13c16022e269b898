"""An erased job's events: what waits in memory is not sent, and of what is out no answer is kept."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.e2e.rig import Rig, rig
from tests.receiver import PATIENCE_S


@dataclass(slots=True)
class Slow:
    """A destination that answers nothing until it is told to, and then repeats what it was sent."""

    url: str = ""
    jobs: asyncio.Queue[str] = field(default_factory=asyncio.Queue)  # whose events came
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.Response:
        """Take one event."""
        body = await request.read()
        event = await request.json()
        self.jobs.put_nowait(event["data"]["job"]["id"])
        await self.go.wait()
        return web.Response(body=body)

    async def next(self) -> str:
        """The job of the next event."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.jobs.get()


@contextlib.asynccontextmanager
async def slow() -> AsyncIterator[Slow]:
    """Listen on a free port."""
    made = Slow()
    app = web.Application()
    app.router.add_post("/", made.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    made.url = f"http://{host}:{port}/"
    try:
        yield made
    finally:
        made.go.set()
        await runner.cleanup()


async def completed(machine: Rig) -> str:
    """A job that is complete, with no destination of its own."""
    taken = await machine.take(callback_url=None)
    return str((await machine.finished(taken["id"]))["id"])


async def sent(machine: Rig, job_id: str) -> dict[str, Any]:
    """The one delivery of the job, with its attempts."""
    [found] = (await machine.api.get("/v1/deliveries", params={"job": job_id})).json()["data"]
    return (await machine.api.get(f"/v1/deliveries/{found['id']}")).json()  # type: ignore[no-any-return]


async def recorded(machine: Rig, job_id: str) -> None:
    """Wait until the delivery of the job is known to have arrived."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if (await sent(machine, job_id))["status"] == "delivered":
                return
            await asyncio.sleep(0.02)


async def test_erased_event_that_waits_in_memory_is_not_sent(tmp_path: Path) -> None:
    """After the 204 nothing of it goes out; what was out already stays `skipped`, with an attempt but without the answer."""
    async with slow() as destination, rig(tmp_path) as machine:
        await machine.api.post(
            "/v1/subscriptions", json={"url": destination.url, "events": ["job.completed"], "max_in_flight": 1}
        )
        out = await completed(machine)
        first = await destination.next()
        waiting, kept = await completed(machine), await completed(machine)
        erased = [(await machine.api.delete(f"/v1/jobs/{each}")).status_code for each in (out, waiting)]
        destination.go.set()
        second = await destination.next()
        await recorded(machine, kept)
        was_out, was_waiting = await sent(machine, out), await sent(machine, waiting)

    assert erased == [204, 204]
    assert (first, second) == (out, kept)
    assert [(each["status"], each["reason"]) for each in (was_out, was_waiting)] == [("skipped", "erased")] * 2
    assert [(each["status_code"], each["response_body"]) for each in was_out["attempts"]] == [(200, None)]
    assert was_waiting["attempts"] == []
