"""One event for very many destinations: all of its deliveries in one transaction, and the event loop never held for long."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.deliveries.fanout import AT_ONCE
from tests.deliveries.desk import OURS, Desk, Publish, desk

COUNT = 3 * AT_ONCE


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Desk]:
    """A store without network, and an account with many subscriptions."""
    async with desk(tmp_path, inline=True) as opened:
        made = await opened.make()
        with contextlib.closing(sqlite3.connect(opened.store.path)) as connection:
            names = [row[1] for row in connection.execute("PRAGMA table_info(subscriptions)")]
            columns = ", ".join("'sub_' || n.value" if name == "id" else f"t.{name}" for name in names)
            numbers = (
                f"WITH RECURSIVE n (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < {COUNT - 1})"
            )
            connection.execute(
                f"{numbers} INSERT INTO subscriptions SELECT {columns} FROM subscriptions t, n WHERE t.id = ?",
                (made["id"],),
            )
            connection.commit()
        yield opened


async def steps_of(at: Desk, publish: Publish) -> tuple[int, int]:
    """The most deliveries that were made, and that began to wait for their turn, in one round of the event loop."""
    lanes = at.fanout.lanes
    made, begun, last = 0, 0, (lanes.held(), lanes.in_flight())
    writing = asyncio.ensure_future(at.store.writer.run(publish))
    while not writing.done() or lanes.in_flight() != last[1]:
        await asyncio.sleep(0)
        now = lanes.held(), lanes.in_flight()
        made, begun, last = max(made, now[0] - last[0]), max(begun, now[1] - last[1]), now
    with contextlib.suppress(RuntimeError):
        writing.result()
    return made, begun


async def test_event_for_many_destinations_holds_nobody_up(at: Desk) -> None:
    """Others have their turn after every few hundred, and each destination gets the event once."""
    made, begun = await steps_of(at, Publish(OURS))
    await at.fanout.lanes.settle()

    assert 0 < made <= AT_ONCE
    assert 0 < begun <= AT_ONCE
    assert len({each.subscription_id for each in at.sent}) == len(at.sent) == COUNT
    assert at.rows("SELECT count(*), count(DISTINCT subscription_id) FROM deliveries") == [(COUNT, COUNT)]


async def test_fan_out_that_is_rolled_back_leaves_nothing_in_memory(at: Desk) -> None:
    """Also where it had been made in several pieces."""
    await steps_of(at, Publish(OURS, fail=True))

    assert at.fanout.lanes.held() == 0
    assert at.fanout.lanes.count() == 0
    assert at.rows("SELECT count(*) FROM deliveries") == [(0,)]
    assert at.sent == []
