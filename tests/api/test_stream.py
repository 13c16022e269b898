"""One stream on a real socket with a clock that is moved by hand: heartbeats, the key, the drain, and clients that do not read."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog

from service.api.answers.cursors import cursor
from service.api.answers.stream import EventStream
from service.api.listening.listener import Listener
from service.db.reader import Reader
from service.db.transaction import Params, Row
from service.events.feed_queries import FeedFilter
from tests.deliveries.desk import OURS
from tests.deliveries.eventlog import CountingReader, EventLog, event_log
from tests.eventsource import EventSource, follow
from tests.receiver import PATIENCE_S

BACKLOG_BYTES = 24_000_000  # more than the kernel takes for a client that does not read
STUCK_S = 0.3


@dataclass(slots=True)
class Stand:
    """A server whose only answer is a stream."""

    log: EventLog
    url: str = ""
    wanted: FeedFilter = field(default_factory=FeedFilter)
    after: int = 0
    told: int | None = None
    write_s: float = 30.0
    key_is_good: bool = True
    reader: Reader | None = None
    sent_bytes: int = 0
    stuck: asyncio.Event = field(default_factory=asyncio.Event)  # a client takes nothing
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """See ASGI."""

        async def counted(message: Any) -> None:
            self.sent_bytes += len(message.get("body", b""))
            slow = asyncio.get_running_loop().call_later(STUCK_S, self.stuck.set)
            await send(message)
            slow.cancel()

        desk = self.log.desk
        stream = EventStream(
            hub=self.log.hub,
            reader=self.reader or desk.store.reader,
            clock=desk.clock,
            account_id=OURS,
            wanted=self.wanted,
            after=self.after,
            told=self.told,
            cursor=lambda place: cursor("pos", place),
            allowed=self._allowed,
            write_s=self.write_s,
        )
        try:
            await stream(scope, receive, counted)
        finally:
            self.ended.set()

    async def _allowed(self) -> bool:
        return self.key_is_good

    def pass_time(self, seconds: float) -> None:
        """Move the clock."""
        self.log.desk.clock.advance(seconds)

    async def over(self) -> None:
        """Wait until the service's side of the stream is over."""
        await asyncio.wait_for(self.ended.wait(), PATIENCE_S)


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    """A log, and a server that streams it."""
    async with event_log(tmp_path) as log:
        made = Stand(log)
        listener = Listener(made.app, "127.0.0.1", 0)
        with contextlib.closing(listener.bind()) as listening:
            made.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            await listener.start_on(listening)
            try:
                yield made
            finally:
                log.hub.close()
                listener.begin_drain()
                await listener.stopped()


async def heard(stream: EventSource, count: int) -> list[str]:
    """The ids of the next events."""
    return [event.id for event in await stream.events(count)]


async def test_stream_tells_what_was_there_and_what_comes(stand: Stand) -> None:
    """In one order, without a gap between the two; the data is the event with its id."""
    await stand.log.append(250)
    async with follow(stand.url) as stream:
        found = await heard(stream, 250)
        await stand.log.append(3, event_type="job.failed")
        last = await stream.events(3)

    assert stream.retry_ms == 1000
    assert found + [event.id for event in last] == stand.log.ids()
    assert last[0].type == "job.failed"
    assert last[0].json == {
        "id": last[0].id,
        "type": "job.failed",
        "timestamp": "2026-11-21T10:00:00.000Z",
        "data": {"x": ""},
    }


async def test_stream_has_a_heartbeat_every_fifteen_seconds(stand: Stand) -> None:
    """A comment, so that proxies keep the connection and a dead client is noticed."""
    async with follow(stand.url) as stream:
        await stream.comment()
        await stand.log.append()
        await stream.events(1)
        for _ in range(3):
            stand.pass_time(14.9)
            assert len(stream.comments) < 5
            stand.pass_time(0.2)
            assert await stream.comment() == "still here"

    assert len(stream.comments) == 4


async def test_new_stream_tells_its_position_before_any_event(stand: Stand) -> None:
    """A client that is cut before its first event comes back with it, and misses nothing."""
    await stand.log.append(2)
    stand.after = 2
    async with follow(stand.url) as stream:
        await stream.comment()
        while not stream.last_id:
            stream._take(await stream.line() or "")

    assert stream.last_id == "cG9zOjI"  # pos:2


async def test_stream_with_filters_tells_its_position_with_the_heartbeat(stand: Stand) -> None:
    """What does not pass moves the position, too: coming back must not begin a million events behind."""
    stand.wanted, stand.told = FeedFilter(types=("ping",)), 0
    async with follow(stand.url) as stream:
        await stream.comment()
        await stand.log.append(30)
        await stand.log.append(event_type="ping")
        await stand.log.append(20)
        ping = await stream.event()
        stand.pass_time(15.1)
        await stream.comment()
        while not stream.last_id.startswith("cG9z"):
            stream._take(await stream.line() or "")

    assert ping is not None
    assert ping.id == stand.log.ids()[30]
    assert stream.last_id == "cG9zOjUx"  # pos:51


async def test_stream_ends_when_the_key_is_no_longer_good(stand: Stand) -> None:
    """At the next heartbeat; nothing is told behind it."""
    async with follow(stand.url) as stream:
        await stream.comment()
        stand.key_is_good = False
        stand.pass_time(15.1)

        assert await stream.event() is None
    assert len(stream.comments) == 1


async def test_stream_ends_at_once_when_the_service_stops(stand: Stand) -> None:
    """Properly, so that the client comes back to whoever serves then."""
    async with follow(stand.url) as stream:
        await stream.comment()
        stand.log.hub.close()

        assert await stream.event() is None
    await stand.over()


async def test_stream_ends_when_retention_overtakes_it(stand: Stand) -> None:
    """It never goes on behind a gap."""
    async with follow(stand.url) as stream:
        await stream.comment()
        await stand.log.append(5, announced=False)
        await stand.log.remove(5)
        await stand.log.append()

        assert await stream.event() is None
    await stand.over()


async def test_stream_of_a_client_that_went_is_over(stand: Stand) -> None:
    """Its place is free and no task of it is left."""
    before = asyncio.all_tasks()
    async with follow(stand.url) as stream:
        await stream.comment()
        assert stand.log.hub.count == 1
    await stand.over()

    assert stand.log.hub.count == 0
    assert {task.get_name() for task in asyncio.all_tasks() - before} & {"stream-reader", "stream-heartbeat"} == set()


class BreakingReader(CountingReader):
    """Fails at the third read, as a disk does."""

    async def rows(self, sql: str, params: Params | None = None) -> list[Row]:
        """Read a set."""
        if self.reads == 2:
            raise sqlite3.OperationalError("disk I/O error")
        return await super().rows(sql, params)


async def test_stream_whose_store_fails_ends_and_says_nothing_of_it(stand: Stand) -> None:
    """The client comes back by itself; what went wrong is in the log."""
    stand.reader = BreakingReader(stand.log)
    async with follow(stand.url) as stream:
        await stand.log.append()
        await stream.events(1)
        with structlog.testing.capture_logs() as lines:
            await stand.log.append()
            assert await stream.event() is None
            await stand.over()

    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["stream_broke"]


async def test_client_that_stops_reading_is_cut_and_misses_nothing(stand: Stand) -> None:
    """It costs its connection's buffer and not the backlog; when it comes back it has every event once."""
    stand.write_s = 0.5
    await stand.log.append(BACKLOG_BYTES // 20_000, size=20_000)
    async with follow(stand.url, buffer_bytes=8_192) as stuck:
        await stand.over()
        sent = stand.sent_bytes
        first = [event.id for event in [await stuck.event()] if event is not None]
    stand.after, stand.ended = 1, asyncio.Event()
    async with follow(stand.url) as stream:
        rest = await heard(stream, BACKLOG_BYTES // 20_000 - 1)

    assert sent < BACKLOG_BYTES // 2
    assert first + rest == stand.log.ids()


async def test_client_that_stops_reading_does_not_hold_up_the_stop(stand: Stand) -> None:
    """What it has not taken is not waited for."""
    await stand.log.append(BACKLOG_BYTES // 20_000, size=20_000)
    async with follow(stand.url, buffer_bytes=8_192):
        await asyncio.wait_for(stand.stuck.wait(), PATIENCE_S)
        stand.log.hub.close()
        async with asyncio.timeout(5):  # instead of the thirty seconds that a client has otherwise
            await stand.over()


async def test_readers_of_any_speed_are_served_side_by_side(stand: Stand) -> None:
    """One that does not read delays no other."""
    await stand.log.append(BACKLOG_BYTES // 20_000, size=20_000)
    async with follow(stand.url, buffer_bytes=8_192), follow(stand.url) as quick, follow(stand.url) as other:
        one, two = await asyncio.gather(heard(quick, 1_200), heard(other, 1_200))

    assert one == two == stand.log.ids()
