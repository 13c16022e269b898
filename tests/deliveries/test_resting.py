"""A destination that is left alone rests in the store: ticks do not meet it again before its next try."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.deliveries.outage import Outage, outage

DOWN = "https://down.example/hooks"
COUNT = 40


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Outage]:
    """Nobody is subscribed yet."""
    async with outage(tmp_path) as made:
        yield made


async def broken(at: Outage) -> list[str]:
    """Destinations whose breakers are open, each with ten deliveries of which five are due; a tick has seen them."""
    ids = [(await at.subscribe(f"{DOWN}/{number}", max_in_flight=1))["id"] for number in range(COUNT)]
    at.web.answer = lambda _: 503
    for _ in range(10):
        await at.desk.publish()
    await at.settle()
    assert len(at.sender.lanes.breakers.open_lanes()) == COUNT
    return ids


def due(at: Outage) -> int:
    """Lanes that a tick would look at."""
    return int(at.desk.rows("SELECT count(*) FROM lanes WHERE next_due_at <= ?", at.clock.now_ms())[0][0])


async def test_lanes_of_open_breakers_are_not_due_until_their_next_try(at: Outage) -> None:
    """However many fail: the tick after the one that found them finds none of them, though deliveries wait in each."""
    await broken(at)
    waiting = at.desk.rows("SELECT count(DISTINCT lane) FROM deliveries WHERE due_at <= ?", at.clock.now_ms())
    asked = len(at.web.asked)
    before = due(at)
    for _ in range(3):
        await at.sender.run_once()
    tried = len(at.web.asked) - asked
    at.clock.advance(10)

    assert waiting == [(COUNT,)]
    assert (before, tried) == (0, 0)
    assert due(at) == COUNT


async def test_new_event_does_not_wake_a_lane_that_rests(at: Outage) -> None:
    """Each of ten thousand a day would bring the lane back to every tick."""
    await broken(at)
    await at.desk.publish()

    assert due(at) == 0


async def test_destination_that_is_back_gets_what_rested(at: Outage) -> None:
    """The try succeeds and the whole backlog goes, without another look at the clock."""
    await broken(at)
    at.web.answer = lambda _: 204
    await at.pass_time(30, step_s=5)
    fresh = at.desk.rows("SELECT count(*) FROM deliveries WHERE status = 'pending' AND attempted_at IS NULL")

    assert fresh == [(0,)]


async def test_enabling_a_destination_ends_its_rest(at: Outage) -> None:
    """An operator who mended it does not wait for the next try."""
    first, *_ = await broken(at)
    await at.pass_time(300, step_s=10)
    at.web.answer = lambda url: 204 if url == f"{DOWN}/0" else 503
    at.sender.lanes.renew(first)
    await at.settle()

    assert at.desk.rows("SELECT DISTINCT status FROM deliveries WHERE subscription_id = ?", first) == [("delivered",)]


async def test_restart_ends_every_rest(at: Outage) -> None:
    """A new process has no breakers, and counts the lanes anew."""
    await broken(at)
    await at.restart()

    assert due(at) == COUNT
