"""Lanes: one destination never delays another, and what does not fit stays in the store."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from service.clock import SeededRandomness, VirtualClock
from service.deliveries.lanes.cooling import PATHS
from service.deliveries.lanes.held_bytes import PER_DELIVERY, Memory
from service.deliveries.lanes.lanes import BUFFER, Lanes
from service.deliveries.lanes.queue import Sending
from service.deliveries.lanes.quota import Shares


def sending(lane: str, number: int = 0, *, max_in_flight: int = 2, rate_per_s: float | None = None) -> Sending:
    """A delivery of that lane."""
    return Sending(
        delivery_id=f"{lane}-{number}",
        event_id="evt_1",
        account_id="acc_1",
        lane=lane,
        body=b"{}",
        event_at=0,
        epoch=1,
        lease_until=VirtualClock().now_ms() + 135_000,
        url="https://shop.example/hook",
        subscription_id=None,
        failed_before=0,
        max_in_flight=max_in_flight,
        rate_per_s=rate_per_s,
    )


class Network:
    """Requests that end when the test says so."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.given_back: list[Sending] = []
        self.lanes = Lanes(self.send, self.clock, SeededRandomness(1), self.given_back.extend, timeout_s=15)
        self.out: dict[str, asyncio.Event] = {}
        self.started: list[str] = []
        self.peak: defaultdict[str, int] = defaultdict(int)

    async def send(self, one: Sending) -> None:
        self.started.append(one.delivery_id)
        self.out[one.delivery_id] = asyncio.Event()
        self.peak[one.lane] = max(self.peak[one.lane], sum(each.startswith(one.lane) for each in self.out))
        await self.out[one.delivery_id].wait()
        del self.out[one.delivery_id]

    async def answer(self, delivery_id: str) -> None:
        self.out[delivery_id].set()
        for _ in range(5):
            await asyncio.sleep(0)

    def take(self, lane: str, count: int, *, first: int = 0, **more: float) -> int:
        """Reserve and give, numbered from `first` on; returns how many were taken."""
        taken = 0
        for number in range(first, first + count):
            one = sending(lane, number, **more)  # type: ignore[arg-type]
            if self.lanes.reserve(one):
                self.lanes.give(one)
                taken += 1
        return taken


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    """A network whose requests are broken off at the end."""
    network = Network()
    yield network
    await network.lanes.drain(0)


async def _turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_lane_keeps_to_its_in_flight_limit(network: Network) -> None:
    """Two at once, in order; the next begins when one is answered."""
    network.take("a", 4)
    await _turn()
    first = list(network.started)
    await network.answer("a-0")

    assert first == ["a-0", "a-1"]
    assert network.started == ["a-0", "a-1", "a-2"]
    assert network.peak["a"] == 2


async def test_stalled_lane_delays_no_other(network: Network) -> None:
    """A destination that never answers holds its own places only."""
    network.take("dead", 100)
    network.take("alive", 1)
    await _turn()

    assert "alive-0" in network.started


async def test_lane_that_is_behind_leaves_the_rest_in_the_store(network: Network) -> None:
    """Memory is bounded: a full lane reserves nothing more."""
    taken = network.take("a", 10_000)
    await _turn()

    assert taken == 2 + BUFFER
    assert network.lanes.room("a") == 0
    assert network.lanes.rooms(1) == {"a": 0}


async def test_lane_with_a_backlog_asks_for_more_when_it_has_room_and_keeps_the_order(network: Network) -> None:
    """New deliveries wait behind those in the store, until the lane was refilled."""
    network.take("a", 3)
    network.lanes.left_in_store("a")
    overtaking = network.lanes.reserve(sending("a"))
    await _turn()
    for number in range(3):
        await network.answer(f"a-{number}")

    assert overtaking is False
    assert network.lanes.hungry == {"a"}
    assert network.lanes.wake_refill.is_set()
    network.lanes.refilled("a", more=False, stamp=network.lanes.stamp())
    assert network.lanes.reserve(sending("a")) is True


async def test_rate_limit_is_enforced(network: Network) -> None:
    """Two a second: the third begins a second after the first."""
    network.take("a", 3, max_in_flight=10, rate_per_s=2.0)
    counts = []
    for _ in range(3):
        await _turn()
        counts.append(len(network.started))
        network.clock.advance(0.5)

    assert counts == [1, 2, 3]


async def test_lane_that_was_asked_to_slow_down_starts_nothing_for_that_long(network: Network) -> None:
    """429 with Retry-After: what is queued waits, other lanes do not."""
    network.take("a", 1)
    await _turn()
    network.take("a", 3, first=1)
    network.lanes.slow_down("a", 30)
    taken = network.take("a", 1)
    network.take("b", 1)
    await network.answer("a-0")
    before = list(network.started)
    network.clock.advance(30)
    await _turn()

    assert before == ["a-0", "a-1", "b-0"]
    assert taken == 0  # what comes meanwhile stays in the store
    assert len(network.started) > 3


async def test_delivery_that_waited_past_its_lease_is_not_sent(network: Network) -> None:
    """Its lease ends and it is claimed again: sending it from memory, too, would send it twice."""
    network.take("a", 4)
    await _turn()
    network.clock.advance(121)  # the lease has 14 s left, a request may take 15
    await network.answer("a-0")

    assert network.started == ["a-0", "a-1"]
    assert network.lanes.hungry == {"a"}


async def test_rate_limited_lane_holds_no_more_than_its_rate_allows(network: Network) -> None:
    """One in five seconds: six in half a minute, the rest waits in the store."""
    assert network.take("a", 1_000, max_in_flight=10, rate_per_s=0.2) == 10 + 6


async def test_reserved_place_is_given_back(network: Network) -> None:
    """A transaction that came to nothing leaves no trace."""
    for _ in range(10_000):
        assert network.lanes.reserve(sending("a"))
        network.lanes.release(sending("a"))

    assert network.lanes.rooms(1) == {}


async def test_drain_lets_requests_finish_and_starts_no_others(network: Network) -> None:
    """What is out comes back; what is queued stays for the next owner."""
    network.take("a", 5)
    await _turn()
    draining = asyncio.create_task(network.lanes.drain(5))
    await _turn()
    await network.answer("a-0")
    await network.answer("a-1")
    await draining

    assert network.started == ["a-0", "a-1"]
    assert network.lanes.reserve(sending("a")) is False


async def test_drain_cuts_off_what_does_not_finish(network: Network) -> None:
    """The grace is bounded."""
    network.take("a", 1)
    await _turn()
    await network.lanes.drain(0.01)

    assert network.lanes.in_flight() == 0


async def test_lane_whose_breaker_opens_gives_back_what_it_holds(network: Network) -> None:
    """What waits for a dead destination waits in the store, not in memory, and takes nobody's place."""
    network.take("a", 40, max_in_flight=5)
    await _turn()
    for number in range(5):
        network.lanes.heard(sending("a", number), delivered=False)
    for number in range(5):
        await network.answer(f"a-{number}")

    assert [each.delivery_id for each in network.given_back] == [f"a-{number}" for number in range(5, 40)]
    assert len(network.lanes.places) == 0
    assert network.lanes.room("a") == 0
    assert network.take("a", 1) == 0


async def test_open_lane_takes_one_when_a_try_is_due(network: Network) -> None:
    """And no second one while it is out."""
    network.take("a", 5, max_in_flight=5)
    await _turn()
    for number in range(5):
        network.lanes.heard(sending("a", number), delivered=False)
        await network.answer(f"a-{number}")
    network.clock.advance(7)
    tried = network.lanes.room("a"), network.take("a", 3, max_in_flight=5)
    await _turn()

    assert tried == (1, 1)
    assert network.lanes.room("a") == 0
    assert list(network.out) == ["a-0"]


async def test_urgent_delivery_passes_a_full_lane_and_an_open_breaker(network: Network) -> None:
    """Somebody sits there and waits for a ping."""
    network.take("a", 10_000)
    for number in range(5):
        network.lanes.heard(sending("a", number), delivered=False)
    ping = replace(sending("a", 77_777), urgent=True)
    reserved = network.lanes.reserve(ping)
    network.lanes.give(ping)
    await _turn()

    assert reserved
    assert network.started[-1] == "a-77777"


async def test_account_that_fills_memory_leaves_half_of_the_rest_to_others(network: Network) -> None:
    """A hundred thousand events for a thousand slow destinations of one account; another's are taken all the same."""
    network.lanes = Lanes(
        network.send,
        network.clock,
        SeededRandomness(1),
        network.given_back.extend,
        timeout_s=15,
        memory=Memory(1_000 * PER_DELIVERY),
    )
    ordinary = 1_000 // 2

    def reserve(account_id: str, lane: str, number: int = 0) -> bool:
        return network.lanes.reserve(
            replace(sending(lane, number, max_in_flight=1), account_id=account_id, event_id=account_id)
        )

    for lane in range(100):
        for number in range(30):
            reserve("greedy", f"g{lane}", number)
    greedy = len(network.lanes.places)
    modest = sum(reserve("modest", f"m{lane}", number) for lane in range(10) for number in range(5))
    first_of_a_lane = reserve("greedy", "another")

    assert ordinary // 2 <= greedy < ordinary // 2 + 100  # each lane may hold one
    assert modest == 50
    assert first_of_a_lane


async def test_sockets_are_shared_out_so_that_an_idle_lane_is_let_in_first(network: Network) -> None:
    """Where all sockets are taken, a lane without a request gets one of the reserve; those that have some wait in order."""
    network.lanes = Lanes(
        network.send,
        network.clock,
        SeededRandomness(1),
        network.given_back.extend,
        timeout_s=15,
        shares=Shares(sockets=8),
    )
    network.take("slow", 10, max_in_flight=10)
    await _turn()
    network.take("idle", 3, max_in_flight=10)
    await _turn()
    before = sorted(network.out)
    for number in range(3):
        await network.answer(f"slow-{number}")

    assert before == ["idle-0", "slow-0", "slow-1", "slow-2", "slow-3"]
    assert sorted(network.out) == ["idle-0", "idle-1", "slow-3", "slow-4"]


async def test_lane_that_waits_for_its_first_socket_gets_the_next_one(network: Network) -> None:
    """Slow destinations with queues of their own do not take the sockets that they give back."""
    network.lanes = Lanes(
        network.send,
        network.clock,
        SeededRandomness(1),
        network.given_back.extend,
        timeout_s=15,
        shares=Shares(sockets=4),
    )
    for lane in range(4):
        network.take(f"slow{lane}", 20, max_in_flight=1)
    await _turn()
    network.take("well", 1)
    await _turn()
    before = "well-0" in network.out
    await network.answer("slow0-0")

    assert not before
    assert "well-0" in network.out


def test_reserve_of_sockets_is_for_accounts_that_have_few() -> None:
    """Any number of hanging destinations of one account leave the first requests of another's their sockets."""
    shares = Shares(sockets=100)
    greedy = _begun(shares, "greedy", 1_000)
    modest = _begun(shares, "modest", 20)
    late = _begun(shares, "late", 10)

    assert (greedy, modest, late) == (100, 20, 10)


def test_reserve_of_memory_is_for_accounts_that_have_little() -> None:
    """The same of deliveries in memory."""
    memory = Memory(200 * (PER_DELIVERY + 1))
    held = [0, 0]
    for number, account in enumerate(["greedy"] * 1_000 + ["modest"] * 20):
        if memory.room(account, first=True):
            memory.hold(replace(sending("a"), account_id=account, event_id=f"evt_{number}", body=b"."))
            held[number >= 1_000] += 1

    assert held == [100, 20]


def _begun(shares: Shares, account: str, lanes: int) -> int:
    """How many of so many lanes may send their first request."""
    begun = 0
    for _ in range(lanes):
        if shares.may_begin(account, first=True):
            shares.begin(account)
            begun += 1
    return begun


async def test_pings_do_not_take_all_sockets(network: Network) -> None:
    """Two go beyond the lane's limit, the rest waits its turn."""
    for number in range(50):
        ping = replace(sending("a", number, max_in_flight=1), urgent=True)
        network.lanes.reserve(ping)
        network.lanes.give(ping)
    await _turn()

    assert len(network.out) == 3


async def test_lane_that_is_given_more_than_it_has_room_for_gives_it_back(network: Network) -> None:
    """A claim cannot know what a lane has taken meanwhile."""
    network.take("a", 10_000)
    network.lanes.give(sending("a", 99_999), reserved=False)

    assert [each.delivery_id for each in network.given_back] == ["a-99999"]


async def test_what_is_left_in_the_store_while_it_is_asked_is_asked_for_again(network: Network) -> None:
    """The answer "nothing more" is older than what came since."""
    network.take("a", 1)
    stamp = network.lanes.stamp()
    network.lanes.left_in_store("a")
    network.lanes.refilled("a", more=False, stamp=stamp)

    assert network.lanes.hungry == {"a"}


async def test_destination_that_is_back_while_the_store_is_asked_catches_up(network: Network) -> None:
    """The claim under way took what was due; what waits for its turn on the schedule is due since then, and is asked for."""
    network.take("a", 5, max_in_flight=5)
    await _turn()
    for number in range(5):
        network.lanes.heard(sending("a", number), delivered=False)
        await network.answer(f"a-{number}")
    network.clock.advance(3_600)
    network.take("a", 1, max_in_flight=5)
    await _turn()
    stamp = network.lanes.stamp()
    network.lanes.heard(sending("a", 0), delivered=True)
    network.lanes.refilled("a", more=False, stamp=stamp)
    _, up_to, _, _ = network.lanes.wants("a")

    assert network.lanes.hungry == {"a"}
    assert up_to == network.clock.now_ms()


async def test_origin_that_is_back_while_the_store_is_asked_catches_up(network: Network) -> None:
    """The same for a lane that learns it from another one at its origin."""
    network.take("a", 1)
    stamp = network.lanes.stamp()
    network.lanes.catch_up("acc_1", "a")
    network.lanes.hungry.clear()
    network.lanes.refilled("a", more=False, stamp=stamp)

    assert network.lanes.hungry == {"a"}
    assert network.lanes.wants("a")[1] == network.clock.now_ms()


async def test_idle_lanes_are_forgotten_once_they_may_start_again(network: Network) -> None:
    """A thousand destinations with a rate leave nothing behind."""
    for lane in range(100):
        network.take(f"r{lane}", 1, rate_per_s=0.5)
    await _turn()
    for _ in range(25):
        await _turn()
    for started in list(network.out):
        await network.answer(started)
    for _ in range(5):
        await _turn()
    before = network.lanes.count()
    network.clock.advance(3)
    network.lanes.forget_idle()

    assert before == 100
    assert network.lanes.count() == 0


async def test_number_of_paths_that_asked_for_a_day_is_bounded(network: Network) -> None:
    """Each job's own path may say so: what comes for a subscription later waits all the same."""
    origin = "acc_1:https://shop.example"
    for number in range(3 * PATHS):
        lane = "sub_1" if number == 0 else f"{origin}/{number:024x}"
        network.take(lane, 1)
        await _turn()
        network.lanes.slow_down(lane, 86_400)
        await network.answer(f"{lane}-0")
    network.lanes.forget_idle()

    assert network.lanes.count() == PATHS + 1
    assert network.take("sub_1", 1) == 0
    assert network.take(f"{origin}/{3 * PATHS - 1:024x}", 1) == 0
    assert network.take(f"{origin}/{1:024x}", 1) == 1
