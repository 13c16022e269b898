"""Which callback_urls have a lane of their own: by their path, bounded for each origin, and the well ones first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.clock import VirtualClock
from service.deliveries.lanes.lane_names import (
    CROWDED,
    IN_FLIGHT,
    NEW_IN_FLIGHT,
    PATHS,
    REMEMBERED,
    WELL,
    OriginLanes,
    is_shared,
    origin_lane,
    origin_of,
    path_lane,
    shared_lanes,
)
from service.egress.target import MAX_LENGTH, read_target
from service.errors import EgressRefused
from tests.deliveries.desk import OURS, THEIRS
from tests.deliveries.outage import Outage, outage

SHOP = "https://shop.example"


@pytest.fixture
def origins() -> OriginLanes:
    """Nothing is held in memory."""
    return OriginLanes(VirtualClock(), lambda _: False)


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Outage]:
    """A store and a process that sends."""
    async with outage(tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (f"{SHOP}/hook?token=1", f"{SHOP}/hook?token=2", True),
        (SHOP, f"{SHOP}/?a", True),
        ("https://SHOP.example:443/hook", f"{SHOP}/hook", True),
        (f"{SHOP}/hook", f"{SHOP}/hook/", False),
        (f"{SHOP}/hook", f"{SHOP}/Hook", False),
        (f"{SHOP}/hook", f"{SHOP}:8443/hook", False),
        (f"{SHOP}/hook", "http://shop.example/hook", False),
    ],
)
def test_destination_is_the_url_without_its_query(one: str, other: str, *, same: bool) -> None:
    """What is another path or origin is another destination, and another account's is so in any case."""
    assert (path_lane(OURS, one) == path_lane(OURS, other)) is same
    assert path_lane(OURS, one) != path_lane(THEIRS, one)


@given(st.text(st.characters(codec="utf-8"), max_size=40), st.integers(0, MAX_LENGTH))
def test_lane_is_short_and_tells_nothing_of_the_path(text: str, length: int) -> None:
    """Whatever URL is taken: its lane has a bounded name, from which the lane of its origin can be told."""
    url = f"{SHOP}/{text}{'x' * length}"
    try:
        read_target(url)
    except EgressRefused:
        return
    own, shared = path_lane(OURS, url), origin_lane(OURS, url)

    assert own.removeprefix(f"{OURS}:{SHOP}/").isalnum()
    assert len(own) == len(shared) + 25
    assert origin_of(own) == origin_of(shared) == shared == f"{OURS}:{SHOP}"
    assert (is_shared(own), is_shared(shared)) == (False, True)


def test_subscription_is_no_origin() -> None:
    """Its lane has its id."""
    assert origin_of("sub_0199a000-0000-7000-8000-00000000000f") == "sub_0199a000-0000-7000-8000-00000000000f"
    assert not is_shared("sub_0199a000-0000-7000-8000-00000000000f")


def test_number_of_lanes_is_bounded_for_an_origin_and_not_by_another(origins: OriginLanes) -> None:
    """A thousand paths have 64 lanes of their own and one for the rest; another account and another origin have theirs."""
    lanes = [origins.lane(OURS, f"{SHOP}/job/{number}") for number in range(1_000)]
    others = {origins.lane(THEIRS, f"{SHOP}/job/999"), origins.lane(OURS, "https://other.example/job/999")}

    assert len(set(lanes)) == PATHS + 1
    assert set(lanes[PATHS:]) == {origin_lane(OURS, SHOP)}
    assert not any(map(is_shared, others))


def test_path_that_is_well_keeps_its_lane(origins: OriginLanes) -> None:
    """Neither any number of dead paths takes it away nor any number of paths that are well and used once."""
    for _ in range(2):
        origins.tried(OURS, f"{SHOP}/live", delivered=True)
    for number in range(1_000):
        origins.lane(OURS, f"{SHOP}/dead/{number}")
        origins.tried(OURS, f"{SHOP}/once/{number}", delivered=True)
    own = path_lane(OURS, f"{SHOP}/live")
    before = origins.lane(OURS, f"{SHOP}/live"), origins.limit(own)
    origins.tried(OURS, f"{SHOP}/live", delivered=False)

    assert before == (own, IN_FLIGHT)
    assert (origins.lane(OURS, f"{SHOP}/live"), origins.limit(own)) == (own, NEW_IN_FLIGHT)


def test_paths_that_are_well_are_bounded_too(origins: OriginLanes) -> None:
    """Of a thousand that are used again and again, the last 32 are remembered."""
    for number in range(1_000):
        for _ in range(2):
            origins.tried(OURS, f"{SHOP}/{number}", delivered=True)
    known = [number for number in range(1_000) if origins.limit(path_lane(OURS, f"{SHOP}/{number}")) == IN_FLIGHT]

    assert known == list(range(1_000 - WELL, 1_000))


def test_failed_delivery_leaves_its_lane_only_where_paths_crowd(origins: OriginLanes) -> None:
    """A few failing paths keep what is theirs; where each job has a path of its own, failed ones make room."""
    url = f"{SHOP}/job/0"
    own = origins.lane(OURS, url)
    few = origins.lane_after_failure(OURS, url, own)
    for number in range(CROWDED):
        origins.lane(OURS, f"{SHOP}/job/{number}")
    new, again = shared_lanes(own)

    assert few == own
    assert origins.lane_after_failure(OURS, url, own) == again
    assert origins.lane_after_failure(OURS, url, new) == again
    assert is_shared(again)
    assert origin_of(again) == new


def test_number_of_origins_is_bounded(origins: OriginLanes) -> None:
    """A wildcard in DNS makes any number of them."""
    for number in range(REMEMBERED + 100):
        origins.lane(OURS, f"https://{number}.example/hook")

    assert origins.count() == REMEMBERED


async def test_lanes_that_wait_in_the_store_count_after_a_restart(at: Outage) -> None:
    """The bound holds over restarts, and a path whose delivery waits goes on in the lane that it has."""
    at.web.answer = lambda _: 404
    for number in range(PATHS + 10):
        await at.desk.publish(callback_url=f"{SHOP}/job/{number}")
    await at.settle()
    waiting = {row[0] for row in at.desk.rows("SELECT DISTINCT lane FROM deliveries WHERE status = 'pending'")}
    await at.restart()
    at.web.answer = lambda _: 204
    at.clock.advance(6)
    await at.sender.run_once()
    await at.publish(callback_url=f"{SHOP}/job/0")
    await at.pass_time(60, step_s=0.5)
    after = {row[0] for row in at.desk.rows("SELECT DISTINCT lane FROM deliveries")}

    assert len(waiting) <= PATHS + 2
    assert path_lane(OURS, f"{SHOP}/job/0") in waiting
    assert after == waiting
    assert set(at.statuses()) == {"delivered"}


async def test_full_origin_has_room_again_when_its_lanes_are_empty(at: Outage) -> None:
    """Lanes come and go with the jobs that name them, and those of which nothing waits leave no row behind."""
    at.web.answer = lambda _: 410
    for number in range(PATHS * 3):
        await at.publish(callback_url=f"{SHOP}/job/{number}")
        at.clock.advance(1.1)
    at.web.answer = lambda _: 404
    await at.publish(callback_url=f"{SHOP}/last")
    lanes = [row[0] for row in at.desk.rows("SELECT lane FROM deliveries ORDER BY id")]
    rows = at.desk.rows("SELECT id FROM lanes")
    at.web.answer = lambda _: 204
    await at.pass_time(30, step_s=0.5)

    assert not any(map(is_shared, lanes))
    assert rows == [(path_lane(OURS, f"{SHOP}/last"),)]
    assert at.desk.rows("SELECT id FROM lanes") == []
    assert at.sender.lanes.count() == 0
