"""The callback_urls of jobs, many at one origin: what one of them does is held against it alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.deliveries.lanes.lane_names import origin_lane, path_lane, shared_lanes
from service.errors import EgressCut, EgressNotSent
from tests.deliveries.desk import OURS
from tests.deliveries.outage import Outage, outage

SHOP = "https://shop.example"
NEW, AGAIN = shared_lanes(origin_lane(OURS, SHOP))
HOUR = 3_600.0


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Outage]:
    """A store and a process that sends."""
    async with outage(tmp_path) as made:
        yield made


async def in_shared_lane(at: Outage, count: int) -> None:
    """So many events of jobs with a path each, which wait in the lane that they share."""
    if not at.desk.rows("SELECT 1 FROM events LIMIT 1"):
        await at.desk.publish()
    for number in range(count):
        await at.desk.backlog(NEW, 1, f"{SHOP}/job/{number}")


@pytest.mark.parametrize("status", [400, 404, 410, 429, 500])
async def test_answers_of_single_paths_do_not_shut_the_shared_lane(at: Outage, status: int) -> None:
    """All are tried at once, though the first dozens fail, and a `Retry-After` binds the one that asked for it."""
    at.web.answer, at.web.headers = lambda _: status, {"retry-after": "3600"}
    await in_shared_lane(at, 100)
    await at.pass_time(3, step_s=0.5)

    assert len({url for _, url, _ in at.web.asked}) == 100
    assert not at.sender.lanes.breakers.is_open(NEW)


@pytest.mark.parametrize(
    "said", [EgressNotSent("connect_refused", "down"), EgressCut("timeout", "silent"), 502, 503, 504]
)
async def test_origin_that_is_away_shuts_the_shared_lane_until_a_path_answers(
    at: Outage, said: int | Exception
) -> None:
    """A hundred events cost a dead origin a handful of requests; an answer at another path opens the lane again."""
    at.web.answer = lambda _: said
    await in_shared_lane(at, 100)
    await at.settle()
    asked, shut = len(at.web.asked), at.sender.lanes.breakers.is_open(NEW)
    at.web.answer = lambda url: 404 if url.endswith("/other") else 204
    await at.publish(callback_url=f"{SHOP}/other")
    await at.pass_time(2, step_s=0.5)  # the first try is due after four at the earliest

    assert asked <= 30
    assert shut
    assert at.statuses()["delivered"] >= 100 - asked


async def test_retry_after_of_one_path_puts_off_no_other(at: Outage) -> None:
    """Not even events that come for the others while it is slowed down."""
    at.web.headers = {"retry-after": "86400"}
    at.web.answer = lambda url: 429 if url.endswith("/limited") else 204
    for _ in range(20):
        await at.publish(callback_url=f"{SHOP}/limited")
        await at.publish(callback_url=f"{SHOP}/live")

    assert len(at.web.events(f"{SHOP}/live")) == 20
    assert len(at.web.events(f"{SHOP}/limited")) == 1


async def test_paths_learn_from_one_another_that_their_origin_is_back(at: Outage) -> None:
    """After an outage of hours a job's only event does not wait for its schedule once another path was reached."""
    at.web.answer = lambda _: EgressNotSent("connect_refused", "it is down")
    for number in range(20):
        await at.publish(callback_url=f"{SHOP}/job/{number}")
    await at.pass_time(4 * HOUR, step_s=60)
    at.web.answer = lambda _: 204
    await at.publish(callback_url=f"{SHOP}/job/next")
    await at.pass_time(5, step_s=0.5)

    assert at.statuses() == {"delivered": 21}


async def test_dead_paths_are_not_tried_again_and_again_because_another_is_well(at: Outage) -> None:
    """Beside one that answers every two minutes, hanging ones get no more than an open breaker's tries."""
    at.web.answer = lambda url: 204 if url.endswith("/live") else EgressCut("timeout", "silent")
    for number in range(20):
        await at.publish(callback_url=f"{SHOP}/dead/{number}")
    await at.pass_time(HOUR, step_s=60)
    at.web.asked.clear()
    for _ in range(30):
        await at.publish(callback_url=f"{SHOP}/live")
        await at.pass_time(120, step_s=10)
    dead = sum("/dead/" in url for _, url, _ in at.web.asked)

    assert len(at.web.events(f"{SHOP}/live")) == 30
    assert dead <= 20 * (HOUR / 300 + 2)


async def test_deliveries_of_an_earlier_version_are_sent(at: Outage) -> None:
    """They wait in the lane of their account and origin, as all did; a process that starts goes on with them."""
    await at.desk.publish()
    await at.desk.backlog(f"{OURS}:{SHOP}", 30, f"{SHOP}/hook?token=1")
    await at.desk.backlog(f"{OURS}:{SHOP}:443", 30, f"{SHOP}:443/hook")
    await at.restart()
    await at.pass_time(30, step_s=0.5)

    assert at.statuses() == {"delivered": 60}


async def test_breaker_of_a_path_goes_with_its_last_delivery(at: Outage) -> None:
    """Paths come and go with jobs: nothing is kept of those for which nothing waits."""
    at.web.answer = lambda _: 404
    for number in range(5):
        await at.publish(6, callback_url=f"{SHOP}/job/{number}")
    before = set(at.sender.lanes.breakers.open_lanes())
    await at.pass_time(130 * HOUR, step_s=1_800)

    assert before == {path_lane(OURS, f"{SHOP}/job/{number}") for number in range(5)}
    assert at.statuses() == {"dead": 30}
    assert at.sender.lanes.breakers.open_lanes() == []
    assert at.desk.rows("SELECT id FROM lanes") == []
