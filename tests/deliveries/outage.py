"""Sender, lanes and store as in production under a virtual clock; destinations are scripted at the egress port."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.clock import SeededRandomness, VirtualClock
from service.deliveries.directory import StoreDirectory
from service.deliveries.fanout import Fanout
from service.deliveries.lanes.held_bytes import MEMORY
from service.deliveries.lanes.quota import SOCKETS
from service.deliveries.send import Sender
from service.deliveries.subscribing.changes import Changes
from service.egress import Answer
from service.schemas.subscription_schemas import SubscriptionRequest, SubscriptionWithSecretView
from service.subscriptions.destinations import DestinationCache
from tests.deliveries.desk import OURS, Desk, desk

SCHEDULE_S = (5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)


@dataclass(slots=True)
class Web:
    """All destinations: `answer` says what a host says now."""

    clock: VirtualClock
    answer: Callable[[str], int | Exception] = lambda _: 204
    headers: Mapping[str, str] = field(default_factory=dict)
    asked: list[tuple[int, str, str]] = field(default_factory=list)  # when, where, which event
    hold: asyncio.Event | None = None  # nobody answers before
    out: Counter[str] = field(default_factory=Counter)
    peak: Counter[str] = field(default_factory=Counter)

    async def deliver(
        self, url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float, read_bytes: int
    ) -> Answer:
        """Somebody is asked."""
        self.asked.append((self.clock.now_ms(), url, headers["webhook-id"]))
        self.out[url] += 1
        self.peak[url] = max(self.peak[url], self.out[url])
        await (asyncio.sleep(0) if self.hold is None else self.hold.wait())
        self.out[url] -= 1
        said = self.answer(url)
        if isinstance(said, Exception):
            raise said
        return Answer(said, self.headers, b"", truncated=False, duration_ms=1)

    async def check(self, url: str, *, unresolved_ok: bool = False) -> None:
        """Every URL may be reached."""

    async def was_asked(self, count: int) -> None:
        """Until so many requests have come."""
        async with asyncio.timeout(10):
            while len(self.asked) < count:  # noqa: ASYNC110 - a request is only ever a few rounds of the loop away
                await asyncio.sleep(0)

    def events(self, url: str) -> list[str]:
        """The events that came to a destination, in order."""
        return [event for _, where, event in self.asked if where == url]


@dataclass(slots=True)
class Outage:
    """What a test drives."""

    desk: Desk
    web: Web
    sender: Sender
    schedule_s: tuple[float, ...]

    @property
    def clock(self) -> VirtualClock:
        """The only clock."""
        return self.desk.clock

    async def restart(self, *, memory: int = MEMORY) -> None:
        """Another process takes over."""
        await self.sender.drain(0)
        self.sender, self.desk.fanout = sender_of(self.desk, self.web, self.schedule_s, memory=memory)
        await self.sender.start()

    async def subscribe(self, url: str, **fields: Any) -> SubscriptionWithSecretView:
        """A new subscription of ours."""
        return await self.desk.subscribe.create(OURS, SubscriptionRequest.read({"url": url} | fields))

    async def publish(self, count: int = 1, *, callback_url: str | None = None) -> None:
        """So many events, each in a transaction of its own."""
        for _ in range(count):
            await self.desk.publish(callback_url=callback_url)
        await self.settle()

    async def settle(self) -> None:
        """Until nothing goes on without time going on."""
        for _ in range(3):
            await self.sender.lanes.settle()
            await self.sender.run_once()
            while self.sender.lanes.wake_refill.is_set():  # noqa: ASYNC110 - until the refiller has taken the signal
                await asyncio.sleep(0)
            await self.sender.lanes.settle()

    async def pass_time(self, seconds: float, *, step_s: float) -> None:
        """Time goes on, and every step ends with a tick."""
        for _ in range(round(seconds / step_s)):
            self.clock.advance(step_s)
            await self.settle()

    async def fails_since(self, subscription_id: str, since_ms: int) -> None:
        """It has done nothing but fail since then, until now."""
        given = (since_ms, self.clock.now_ms(), subscription_id)
        with contextlib.closing(sqlite3.connect(self.desk.store.path)) as connection:
            connection.execute("UPDATE subscriptions SET failing_since = ?, last_failure_at = ? WHERE id = ?", given)
            connection.commit()

    def statuses(self) -> Counter[str]:
        """Deliveries by status."""
        return Counter(row[0] for row in self.desk.rows("SELECT status FROM deliveries"))


def sender_of(
    at: Desk,
    egress: Any,
    schedule_s: tuple[float, ...] = SCHEDULE_S,
    *,
    sockets: int = SOCKETS,
    memory: int = MEMORY,
) -> tuple[Sender, Fanout]:
    """What a process has of deliveries, with its handlers in the writer."""
    randomness = SeededRandomness(5)
    cache, ids = DestinationCache(at.store.box), at.ids
    sender = Sender(
        writer=at.store.writer,
        egress=egress,
        directory=StoreDirectory(at.store.reader, at.store.writer, at.store.box, cache, at.clock),
        clock=at.clock,
        randomness=randomness,
        owner="me",
        timeout_s=15,
        schedule_s=schedule_s,
        sockets=sockets,
        memory=memory,
    )
    fanout = Fanout(ids, cache, sender.lanes, "me", sender.lease_ms)
    renewed, forgotten = sender.lanes.renew, sender.lanes.breakers.forget
    Changes(cache, fanout.add, ids, renewed=renewed, forgotten=forgotten).register(at.store.writer)
    return sender, fanout


@contextlib.asynccontextmanager
async def outage(directory: Path, *, schedule_s: tuple[float, ...] = SCHEDULE_S) -> AsyncIterator[Outage]:
    """Everything open, with a refiller that runs."""
    async with desk(directory) as at:
        web = Web(at.clock)
        sender, at.fanout = sender_of(at, web, schedule_s)
        await sender.start()
        made = Outage(at, web, sender, schedule_s)
        try:
            yield made
        finally:
            await made.sender.drain(1)
