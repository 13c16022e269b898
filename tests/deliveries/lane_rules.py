"""What must hold of lanes, said once more from outside: from what was reserved, claimed, sent and answered, never from their own counts.

A breach is noted where it happens and read by `check`, since the lanes' tasks catch what is raised in them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final

from service.clock import VirtualClock
from service.deliveries.lanes.held_bytes import PER_DELIVERY
from service.deliveries.lanes.lanes import Lanes
from service.deliveries.lanes.queue import LanePlace, Sending, Stage
from service.deliveries.lanes.quota import Queue, Shares
from tests.deliveries.lane_store import LaneStore

TIMEOUT_S: Final = 15
BREAKS_AFTER: Final = 5
ABSENCE_S: Final = 60
PINGS: Final = 2  # beyond the lane's limit
BUFFER: Final = 256  # deliveries behind those that are out
BUFFERED_S: Final = 30  # and where there is a rate
BY_HAND: Final = "by hand"

Key = tuple[str, int]  # a delivery and the epoch of its lease


@dataclass(slots=True)
class Expected:
    """What is known of one destination from outside."""

    id: str
    account_id: str
    most: int  # requests at once
    rate_per_s: float | None
    answers: str = BY_HAND
    failures: int = 0  # in a row
    opened_at: float = 0.0
    try_at: float = 0.0  # while it is left alone: not before then
    asked_for: str | None = None  # the delivery with which it is to be tried
    burst: int | None = None
    slow_until: float = 0.0
    started_at: float = -1e9  # a request of its queue
    pinged_at: float = -1e9
    owed: set[str] = field(default_factory=set)  # deliveries in the store that are to be asked for without a tick
    excused: bool = False  # it had no room when it was asked

    @property
    def is_open(self) -> bool:
        """Whether it is left alone."""
        return self.failures >= BREAKS_AFTER


@dataclass(slots=True)
class Out:
    """A request."""

    sending: Sending
    began: float
    a_try: bool


class Rules:
    """One process with its limits, and what it holds as far as it was seen."""

    store: LaneStore
    lanes: Lanes
    shares: Shares
    log: list[MutableMapping[str, Any]]

    def __init__(self, lane: dict[str, Expected], *, sockets: int, memory: int) -> None:
        self.clock = VirtualClock()
        self.lane = lane
        self.sockets, self.memory = sockets, memory
        self.breaches: list[str] = []
        self.held: dict[Key, Sending] = {}
        self.arriving: set[Key] = set()  # claimed, and not with the lanes yet
        self.returning: set[Key] = set()  # given back, and not in the store yet
        self.lost: set[Key] = set()  # nobody's until the lease has run out
        self.open = False  # a transaction
        self.out: dict[Key, Out] = {}
        self.turn: str | None = None  # the lane that was let go before the others
        self.broken = 0  # requests
        self.activity = 0

    def starts(self, one: Sending) -> None:
        """A request begins."""
        self.activity += 1
        lane, now = self.lane[one.lane], self.clock.monotonic()
        mine = [each for each in self.out.values() if each.sending.lane == one.lane]
        kept = self.store.deliveries[one.delivery_id]
        leased = kept.epoch == one.epoch and one.lease_until >= self.clock.now_ms() + TIMEOUT_S * 1000
        # What was recorded only after its lease had run out may have been claimed again.
        ended = kept.ended and kept.ended_by == one.epoch
        self.must(leased and not ended, "is sent by one who does not hold it", one)
        self.must(self._may_begin(lane, first=not mine or one.urgent), "is sent without a socket", one)
        if one.urgent:
            lane.pinged_at = now
            self.must(len(mine) < lane.most + PINGS, "is sent beyond what is kept for pings", one)
        else:
            self.must(len(mine) < self._limit(lane), "is sent beyond the lane's limit", one)
            self.must(
                now >= max(self._slow_until(lane, lane.started_at), lane.try_at if lane.is_open else 0),
                "is sent too early",
                one,
            )
            waiting = self.shares.others if mine else self.shares.firsts
            is_turn = self.turn == one.lane or not waiting.has(one.account_id)
            self.must(is_turn, "is sent before those that wait", one)
            lane.started_at = now
        self.turn = None
        self.out[key_of(one)] = Out(one, now, lane.is_open)

    def _let_expire(self) -> None:
        """What waited until its lease is about to end is held no longer."""
        soon = self.clock.now_ms() + TIMEOUT_S * 1000
        for key in self.held.keys() - self.lanes.places._held.keys():
            self.must(self.held.pop(key).lease_until < soon, "was held and has no place", key)
            self.lost.add(key)

    def may_hold(self, one: Sending) -> bool:
        """Whether there is a place for it."""
        self._let_expire()
        lane, mine = self.lane[one.lane], sum(each.lane == one.lane for each in self.held.values())
        if one.urgent:
            return True
        if lane.is_open:
            return not mine and self.clock.monotonic() >= lane.try_at and self._has_memory(lane, first=True)
        buffer = BUFFER if lane.rate_per_s is None else int(lane.rate_per_s * BUFFERED_S)
        is_slow = lane.slow_until > self.clock.monotonic()
        return not is_slow and mine < lane.most + buffer and self._has_memory(lane, first=not mine)

    def wished(self, lane_id: str, count: int, first: str | None) -> None:
        """A lane says what it takes from the store."""
        self.activity += 1
        self._let_expire()
        lane = self.lane[lane_id]
        if count or any(each.lane == lane_id for each in self.held.values()):
            self.must(not lane.is_open or lane.asked_for in {None, first}, "is not asked for", lane.asked_for)
        elif not lane.is_open:
            is_slow = lane.slow_until > self.clock.monotonic()
            self.must(is_slow or not self._has_memory(lane, first=True), "has room and takes nothing", lane_id)
            lane.excused = True

    def must(self, holds: bool, breach: str, what: object) -> None:
        if not holds:
            self.breaches.append(f"{what} {breach}")

    def _limit(self, lane: Expected) -> int:
        return 1 if lane.is_open else min(lane.most, lane.burst or lane.most)

    def _slow_until(self, lane: Expected, started_at: float) -> float:
        paced = 0.0 if lane.rate_per_s is None else started_at + 1 / lane.rate_per_s - 1e-3
        return max(lane.slow_until, paced)

    def _may_begin(self, lane: Expected, *, first: bool) -> bool:
        own, total = sum(each.sending.account_id == lane.account_id for each in self.out.values()), len(self.out)
        if first:
            return total < self.sockets or own < self.sockets * 3 // 2 - total
        return own < self.sockets - total

    def _bytes(self, account_id: str | None = None) -> int:
        those = [each for each in self.held.values() if account_id in {None, each.account_id}]
        bodies = {each.event_id: len(each.body) for each in those}
        return PER_DELIVERY * len(those) + sum(bodies.values())

    def _has_memory(self, lane: Expected, *, first: bool) -> bool:
        total, own, half = self._bytes(), self._bytes(lane.account_id), self.memory // 2
        return total + own < half or (first and (total < half or own < self.memory - total))

    def check(self) -> None:
        """Everything is in one place, is counted, and waits for something."""
        self._let_expire()
        now_ms, places = self.clock.now_ms(), self.lanes.places._held
        self.must(places.keys() == self.held.keys(), "are held by nobody", places.keys() - self.held.keys())
        for each in self.store.deliveries.values():
            key = each.id, each.epoch
            homes = (key in self.held) + (key in self.arriving) + (key in self.returning - self.lost)
            is_leased = each.lease_until is not None and each.lease_until > now_ms
            if is_leased and not each.ended and key not in self.lost:
                self.must(homes == 1, "is leased and held by nobody", key)
            if not is_leased and key not in self.lost:
                self.must(key not in self.arriving or not self._is_idle(), "is lost on its way", key)
        self._counts()
        for lane in self.lane.values():
            self._waits(lane)
        for key in self.returning - self.lost if self._is_idle() else ():
            kept = self.store.deliveries[key[0]]
            self.must(kept.ended or key[1] != kept.epoch, "was given back and is not in the store", key)
        unexpected = [each for each in self.log if each["event"] == "refill_broke"]
        self.must(not unexpected, "broke", unexpected)
        broken = sum(each["event"] == "delivery_broke" for each in self.log)
        self.must(broken == self.broken, "requests broke in the lanes", broken - self.broken)
        assert self.breaches == [], self.breaches

    def _counts(self) -> None:
        stages = Counter((place.sending.lane, place.stage) for place in self.lanes.places._held.values())
        out = Counter(each.sending.lane for each in self.out.values())
        for name, lane in self.lanes._lanes.items():
            self.must(lane.stages == [stages[name, each] for each in Stage], "counts wrongly", name)
            self.must(lane.in_flight == out[name], "has other requests out", name)
            self.must(len(lane.queue) == stages[name, Stage.QUEUED], "has another queue", name)
        owners = Counter(each.sending.account_id for each in self.out.values())
        self.must(self.shares.out == len(self.out), "sockets are counted", self.shares.out)
        self.must(dict(self.shares._out_by) == dict(owners), "are the sockets of accounts", self.shares._out_by)
        memory, accounts = self.lanes.memory, {each.account_id for each in self.held.values()}
        self.must(memory.bytes == self._bytes(), "bytes are counted", memory.bytes)
        self.must(dict(memory._bytes_by) == {each: self._bytes(each) for each in accounts}, "are", memory._bytes_by)

    def _is_idle(self) -> bool:
        """Whether the store has nothing to do."""
        return not (self.open or self.store.asked or self.store.done)

    def _waits(self, lane: Expected) -> None:
        """What is held waits for a limit, a moment or a socket; what is in the store was asked for."""
        mine = [each for each in self.out.values() if each.sending.lane == lane.id]
        real = self.lanes._lanes.get(lane.id)
        is_slow = self._slow_until(lane, max(lane.started_at, lane.pinged_at)) > self.clock.monotonic()
        if real is not None and real.queue:
            free = len(mine) < self._limit(lane) and self._may_begin(lane, first=not mine)
            self.must(is_slow or not free, "waits for nothing", lane.id)
        cooling = self.lanes._cooling
        is_kept = real is not None and real.idle and lane.id not in {*cooling._standing, *cooling._paths}
        self.must(not is_kept, "is idle and never dropped", lane.id)
        held = any(each.lane == lane.id for each in self.held.values())
        if not (held or lane.is_open or lane.excused or is_slow) and self._is_idle():
            forgotten = [each.id for each in self.store.free(lane.id, self.clock.now_ms()) if each.id in lane.owed]
            self.must(not forgotten, "are due, and nobody asks", forgotten)


class WatchedLanes(Lanes):
    """Tells what happens."""

    world: Rules

    def _start(self, lane_id: str, place: LanePlace) -> None:
        self.world.starts(place.sending)
        super()._start(lane_id, place)

    def reserve(self, sending: Sending) -> bool:
        may = self.world.may_hold(sending)
        taken = super().reserve(sending)
        if taken:
            self.world.must(may, "is held beyond a limit", sending)
            self.world.held[key_of(sending)] = sending
        return taken

    def give(self, sending: Sending, *, reserved: bool = True) -> None:
        key, may = key_of(sending), reserved or self.world.may_hold(sending)
        self.world.arriving.discard(key)
        self.world.held[key] = sending
        super().give(sending, reserved=reserved)
        self.world.must(may or key in self.world.returning, "is held beyond a limit", sending)

    def wants(self, lane_id: str) -> tuple[int, int | None, str | None, bool]:
        found = super().wants(lane_id)
        self.world.wished(lane_id, found[0], found[2])
        return found


class WatchedShares(Shares):
    world: Rules

    def __init__(self, sockets: int) -> None:
        super().__init__(sockets)
        self.firsts = watched(WatchedQueue, type(self.firsts), self.world)()
        self.others = watched(WatchedQueue, type(self.others), self.world)()


class WatchedQueue(Queue):
    """Between two turns of an account, every other that waits has one."""

    world: Rules

    def __init__(self) -> None:
        super().__init__()
        self.passed: dict[str, set[str]] = {}  # accounts that had a turn while this one waited

    def add(self, account_id: str, lane_id: str) -> None:
        self.passed.setdefault(account_id, set())
        super().add(account_id, lane_id)

    def pop(self) -> str:
        lane_id = super().pop()
        self.world.turn = lane_id
        account_id = self.world.lane[lane_id].account_id
        del self.passed[account_id]
        for other, passed in self.passed.items():
            self.world.must(account_id not in passed, "waits while another has two turns", other)
            passed.add(account_id)
        if self.has(account_id):
            self.passed[account_id] = set()
        return lane_id


def watched(watch: type[Any], part: type[Any], world: Rules) -> Any:
    """A part that tells what happens to it."""
    return type(watch.__name__, (watch, part), {"world": world})


def key_of(one: Sending) -> Key:
    """See `Key`."""
    return one.delivery_id, one.epoch
