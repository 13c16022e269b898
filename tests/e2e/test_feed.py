"""The feed and the stream of a whole service at work: cut anywhere, started again, and still every event once and in order."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import httpx

from service.api.answers.stream import HEARTBEAT_S
from service.app import Service
from service.clock import SystemClock
from service.environment import load
from tests.api.conftest import ADMIN_KEY, PICTURE, Served, serve
from tests.e2e.rig import environment, free_port
from tests.eventsource import EventSource, bearer, follow
from tests.receiver import PATIENCE_S


async def everything(served: Served) -> list[str]:
    """The ids of the whole log, paged through in pieces."""
    found: list[str] = []
    cursor = ""
    while True:
        answer = await served.client.get("/v1/events", params={"limit": "37"} | ({"cursor": cursor} if cursor else {}))
        page = answer.json()
        if page["next_cursor"] == cursor:
            return found
        found += [entry["id"] for entry in page["data"]]
        cursor = page["next_cursor"]


async def publish(served: Served, jobs: int) -> None:
    """Take jobs, ten at a time; each is two events soon after."""
    places = asyncio.Semaphore(10)

    async def one() -> None:
        async with places:
            answer = await served.client.post("/v1/jobs", json=PICTURE, headers={"Prefer": "wait=30"})
            assert answer.status_code == 200, answer.text

    await asyncio.gather(*(one() for _ in range(jobs)))


class Browser:
    """An EventSource whose connection is cut again and again, in the middle of anything."""

    def __init__(self, url: str, seed: int, query: str = "") -> None:
        self.url = url
        self.path = f"/v1/events/stream{query}"
        self.ids: list[str] = []
        self.last_id = ""
        self.connections = 0
        self._chance = random.Random(seed)

    async def until(self, count: int) -> None:
        """Follow until so many events were heard."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.ids) < count:
                self.connections += 1
                async with follow(self.url, self.path, headers=bearer(ADMIN_KEY, self.last_id)) as stream:
                    await self._some(stream, count)

    async def _some(self, stream: EventSource, count: int) -> None:
        for _ in range(self._chance.randint(1, 40)):  # lines: the cut comes inside of events too
            line = await stream.line()
            if line is None:
                return
            event = stream._take(line)
            self.last_id = stream.last_id or self.last_id
            if event is not None:
                self.ids.append(event.id)
            if len(self.ids) == count:
                return


async def test_stream_that_is_cut_again_and_again_has_every_event_once(tmp_path: Path) -> None:
    """Over some hundred reconnects at random places while events are published, and in the order of the feed."""
    async with serve(tmp_path) as served:
        browsers = [Browser(served.service.url, seed) for seed in range(3)]
        before = asyncio.all_tasks()
        for browser in browsers:  # each has its position from the first moment
            async with follow(browser.url, browser.path, headers=bearer(ADMIN_KEY)) as stream:
                await stream.comment()
                while not stream.last_id:
                    stream._take(await stream.line() or "")
                browser.last_id = stream.last_id
        await asyncio.gather(publish(served, 100), *(browser.until(200) for browser in browsers))
        log = await everything(served)
    left = {task.get_name() for task in asyncio.all_tasks() - before}

    assert len(log) == len(set(log)) == 200
    assert [browser.ids for browser in browsers] == [log] * 3
    assert sum(browser.connections for browser in browsers) > 30
    assert not {name for name in left if name.startswith("stream-")}


async def test_stream_goes_on_after_a_restart(tmp_path: Path) -> None:
    """The position is the store's: it holds over processes, and what happened while nobody listened comes first."""
    async with serve(tmp_path) as served:
        browser = Browser(served.service.url, 7, "?from=oldest")
        await publish(served, 5)
        await browser.until(6)
        await publish(served, 5)
    async with serve(tmp_path) as served:
        browser.url = served.service.url
        await asyncio.gather(publish(served, 5), browser.until(30))

        assert browser.ids == await everything(served)


async def test_filtered_streams_have_their_share(tmp_path: Path) -> None:
    """Cut as often, each has exactly what passes."""
    async with serve(tmp_path) as served:
        done = Browser(served.service.url, 1, "?from=oldest&type=job.completed")
        other = Browser(served.service.url, 2, "?from=oldest&type=job.submitted&provider=sandbox")
        await asyncio.gather(publish(served, 40), done.until(40), other.until(40))
        answer = await served.client.get("/v1/events", params={"type": "job.completed", "limit": "200"})
        log = await everything(served)

    assert done.ids == [entry["id"] for entry in answer.json()["data"]]
    assert sorted(done.ids + other.ids) == sorted(log)


async def test_service_with_open_streams_stops_at_once(tmp_path: Path) -> None:
    """Every stream gets its end, and nothing waits for the grace of open connections."""
    async with serve(tmp_path) as served, asyncio.TaskGroup() as group:
        begun = asyncio.Barrier(21)

        async def one() -> None:
            async with follow(served.service.url, headers=bearer(ADMIN_KEY)) as stream:
                await stream.comment()
                await begun.wait()
                assert await stream.event() is None

        ends = [group.create_task(one()) for _ in range(20)]
        await asyncio.wait_for(begun.wait(), PATIENCE_S)
        async with asyncio.timeout(3):
            await served.service.close()
        await asyncio.wait_for(asyncio.gather(*ends), PATIENCE_S)


class BeatingClock(SystemClock):
    """The machine's clock, with heartbeats when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.beat = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        """Wait, for a heartbeat until it is told."""
        await (self.beat.wait() if seconds == HEARTBEAT_S else super().sleep(seconds))


async def test_stream_ends_with_its_key(tmp_path: Path) -> None:
    """A key that is revoked hears nothing after the next heartbeat, and cannot come back."""
    clock = BeatingClock()
    service = await Service.open(load(environment(tmp_path, free_port(), {}), tmp_path), clock=clock)
    try:
        await service.listen()
        async with httpx.AsyncClient(base_url=service.url, headers=bearer(ADMIN_KEY), trust_env=False) as admin:
            key = (await admin.post("/v1/keys", json={"name": "reader", "scopes": ["jobs:read"]})).json()
            async with follow(service.url, headers=bearer(key["secret"])) as stream:
                await stream.comment()
                await admin.delete(f"/v1/keys/{key['id']}")
                clock.beat.set()

                assert await stream.event() is None
            async with follow(service.url, headers=bearer(key["secret"])) as again:
                assert again.status == 401
    finally:
        await service.close()
