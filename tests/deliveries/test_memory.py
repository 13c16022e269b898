"""Deliveries in memory are counted in bytes, each body once; what does not fit waits in the store and is lost by nobody."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.deliveries.lanes.held_bytes import PER_DELIVERY, Memory
from tests.deliveries.desk import OURS, Publish
from tests.deliveries.outage import Outage, outage
from tests.deliveries.test_lanes import sending

SLOW = "https://slow.example/hooks"
BODY_BYTES = 64 << 10


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Outage]:
    """Nobody is subscribed yet, and nobody answers."""
    async with outage(tmp_path) as made:
        made.web.hold = asyncio.Event()
        yield made


async def store_large(at: Outage, destinations: int, events: int) -> None:
    """So many subscriptions, and as many events for each, large and due in the store; nothing of it is in memory."""
    for number in range(destinations):
        await at.subscribe(f"{SLOW}/{number}", max_in_flight=1)
    await at.sender.drain(0)
    for _ in range(events):
        await at.desk.store.writer.run(Publish(OURS))
    with contextlib.closing(sqlite3.connect(at.desk.store.path)) as connection:
        connection.execute("UPDATE events SET body = randomblob(?)", (BODY_BYTES,))
        connection.commit()


async def test_body_of_an_event_is_held_once_for_all_its_deliveries(at: Outage) -> None:
    """A hundred deliveries of one event, claimed after a restart, share one body of 64 KiB; once they are out nothing is left."""
    await store_large(at, 100, 1)
    await at.restart()
    await at.sender.run_once()
    await at.web.was_asked(100)
    memory = at.sender.lanes.memory
    held = memory.deliveries, memory.bytes
    assert at.web.hold is not None
    at.web.hold.set()
    await at.settle()

    assert held == (100, BODY_BYTES + 100 * PER_DELIVERY)
    assert (memory.deliveries, memory.bytes) == (0, 0)
    assert at.statuses() == {"delivered": 100}


async def test_deliveries_beyond_the_limit_wait_in_the_store_and_are_claimed_as_memory_comes_free(at: Outage) -> None:
    """20 bodies of 64 KiB are due, and there is room for 512 KiB: never more than that and one body, and all of them arrive."""
    limit = 512 << 10
    await store_large(at, 2, 20)
    await at.restart(memory=limit)
    memory, peak = at.sender.lanes.memory, 0
    for _ in range(5):
        await at.sender.run_once()
        peak = max(peak, memory.bytes)
    held = memory.deliveries
    owned = at.desk.rows("SELECT count(*) FROM deliveries WHERE lease_owner IS NOT NULL")
    assert at.web.hold is not None
    at.web.hold.set()
    while "pending" in at.statuses():
        await at.settle()
        peak = max(peak, memory.bytes)

    assert 2 <= held < 20
    assert owned == [(held,)]
    assert peak <= limit + BODY_BYTES + PER_DELIVERY
    assert at.statuses() == {"delivered": 40}


async def test_delivery_that_is_larger_than_all_memory_is_sent(at: Outage) -> None:
    """One at least always goes."""
    await store_large(at, 3, 1)
    await at.restart(memory=1_000)
    assert at.web.hold is not None
    at.web.hold.set()
    for _ in range(10):
        await at.settle()

    assert at.statuses() == {"delivered": 3}


async def test_event_that_finds_memory_full_is_left_in_the_store(at: Outage) -> None:
    """The fan-out leaves it unowned in the transaction of the event, and it is sent once there is room."""
    await at.restart(memory=4 * PER_DELIVERY)
    for number in range(2):
        await at.subscribe(f"{SLOW}/{number}", max_in_flight=10)
    for _ in range(10):
        await at.desk.store.writer.run(Publish(OURS))
    unowned = at.desk.rows("SELECT count(*) FROM deliveries WHERE lease_owner IS NULL")[0][0]
    assert at.web.hold is not None
    at.web.hold.set()
    for _ in range(30):
        await at.settle()

    assert unowned >= 10
    assert at.statuses() == {"delivered": 20}


def test_account_with_large_bodies_leaves_memory_to_others() -> None:
    """The greedy one stops at half of the ordinary half; another one's deliveries are taken all the same."""
    memory, held = Memory(64 << 20), {"greedy": 0, "modest": 0}
    for number in range(1_000):
        for account in ("greedy", "modest") if number >= 900 else ("greedy",):
            if memory.room(account, first=False):
                large = replace(
                    sending("a"), account_id=account, event_id=f"{account}-{number}", body=bytes(BODY_BYTES)
                )
                memory.hold(large)
                held[account] += 1

    assert 240 <= held["greedy"] <= 256
    assert held["modest"] >= 60
