"""Lanes: one destination's deliveries in this process, with its own limits, so that a slow or dead one delays no other.

A lane holds a bounded number of deliveries in memory; the rest of its backlog stays in the store, due and unowned.
What is held is counted by `places`; what all lanes share stands in `held_bytes` and `quota`, who may begin in a round of the event loop in `turns`, which callback_urls have a
lane of their own in `lane_names`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from service.clock import Clock, Randomness
from service.deliveries.lanes.cooling import Cooling
from service.deliveries.lanes.held_bytes import Memory
from service.deliveries.lanes.lane_breaker import LaneBreakers
from service.deliveries.lanes.lane_names import OriginLanes, origin_of
from service.deliveries.lanes.places import Places
from service.deliveries.lanes.queue import Lane, LanePlace, Sending, Stage
from service.deliveries.lanes.quota import Shares
from service.deliveries.lanes.turns import Turns

BUFFER: Final = 256  # deliveries that wait in memory behind those in flight, for one lane
BUFFERED_S: Final = 30.0  # of a lane with a rate limit: so many seconds' worth wait in memory
TRIES: Final = 32  # lanes that are asked in vain whether they can use a free socket
URGENT: Final = 2  # requests beyond its limit that somebody waits for, for one lane

_RESERVED, _QUEUED, _OUT, _RECORDING = Stage  # members of an enumeration are looked up slowly

_log = structlog.get_logger(__name__)


class Lanes:
    """All lanes of this process.

    Args:
        send: Sends one delivery and records the attempt; calls `heard` and `answered` in between.
        give_back: Takes deliveries that will not be sent from here for now, to be left in the store unowned.
        timeout_s: What one request may take.
        shares: The sockets of all lanes.
        memory: What all lanes may hold.
    """

    def __init__(
        self,
        send: Callable[[Sending], Awaitable[None]],
        clock: Clock,
        randomness: Randomness,
        give_back: Callable[[Sequence[Sending]], None],
        *,
        timeout_s: float,
        shares: Shares | None = None,
        memory: Memory | None = None,
    ) -> None:
        self._send = send
        self._clock = clock
        self._give_back = give_back
        self._timeout_ms = round(timeout_s * 1000)
        self._shares = shares or Shares()
        self.memory = memory or Memory()
        self.places = Places(self._shares, self.memory)
        self._lanes: dict[str, Lane] = {}
        self._cooling = Cooling()
        self._open = True
        self._turns = Turns[LanePlace](self._run)
        self.breakers = LaneBreakers(clock, randomness)
        self.origins = OriginLanes(clock, self._holds)
        self._changes = 0  # how often more became due in the store; see `stamp`
        self.hungry: set[str] = set()  # lanes with room whose backlog is in the store
        self._turned_away: set[str] = set()  # hungry ones that had no room when it came to asking
        self.wake_refill = asyncio.Event()

    # -- places ------------------------------------------------------------------------------------------------------

    def reserve(self, sending: Sending) -> bool:
        """Keep a place for it; False when its lane is full or behind, and it has to wait in the store."""
        lane_id = sending.lane
        lane = self._lane(sending.account_id, lane_id, sending.max_in_flight, sending.rate_per_s)
        if not (sending.urgent and self._open) and (lane.backlog or not self._room(lane_id, lane)):
            self._drop_if_idle(lane_id, lane)
            return False
        self.places.take(lane, sending, _RESERVED)
        return True

    def release(self, sending: Sending) -> None:
        """Give a reserved place back."""
        place = self.places.of(sending)
        self.places.give_back(place)
        self._look_after(sending.lane, place.lane)

    def left_in_store(self, lane_id: str) -> None:
        """A delivery of this lane was committed without a holder."""
        lane = self._lanes.get(lane_id)
        if lane is not None and not lane.idle:
            self._more_is_due(lane)
        elif not self.breakers.is_open(lane_id):  # else the next try finds it
            self._ask(lane_id)

    def room(self, lane_id: str) -> int:
        """How many more deliveries the lane would take from the store."""
        lane = self._lanes.get(lane_id)
        if lane is not None:
            return self._room(lane_id, lane)
        if not self._open:
            return 0
        return self.breakers.limit(lane_id) or 0 if self.breakers.is_open(lane_id) else max(1, min(BUFFER, self.left()))

    def left(self) -> int:
        """How many deliveries more all lanes together would take."""
        return self.memory.left() if self._open else 0

    def rooms(self, below: int) -> dict[str, int]:
        """The lanes in memory that take less than so many deliveries from the store now, and how many they take."""
        now, scarce = self._clock.monotonic(), self.memory.left() < BUFFER
        return {
            lane_id: room
            for lane_id, lane in self._lanes.items()
            # Ten thousand lanes are looked at twice a second, and nearly all of them have room enough.
            if (lane.rate_per_s is not None or lane.load + below > BUFFER or lane.slow_until > now or scarce)
            and (room := self._room(lane_id, lane)) < below
        }

    def wants(self, lane_id: str) -> tuple[int, int | None, str | None, bool]:
        """What the lane takes from the store: how many, ahead of their time up to when, which one first, and whether to try."""
        lane, breakers = self._lanes.get(lane_id), self.breakers
        up_to = None if lane is None else lane.catch_up_to
        return self.room(lane_id), up_to, breakers.wanted(lane_id), breakers.is_open(lane_id)

    def stamp(self) -> int:
        """Now, for `refilled`: what becomes due in the store from here on is more than a claim that begins now has seen."""
        return self._changes

    def _room(self, lane_id: str, lane: Lane) -> int:
        """What the lane can hold and begin under its lease; nothing while it has to be slow."""
        if not self._open or lane.slow_until > self._clock.monotonic():
            return 0
        if self.breakers.is_open(lane_id):
            most = self.breakers.limit(lane_id) or 0
        else:
            buffer = BUFFER if lane.rate_per_s is None else min(BUFFER, int(lane.rate_per_s * BUFFERED_S))
            most = lane.max_in_flight + buffer
        return max(0, min(most - lane.load, self.memory.room(lane.account_id, first=not lane.load)))

    # -- deliveries --------------------------------------------------------------------------------------------------

    def give(self, sending: Sending, *, reserved: bool = True) -> None:
        """Take a delivery whose lease is committed."""
        lane = self._lane(sending.account_id, sending.lane, sending.max_in_flight, sending.rate_per_s)
        if reserved:
            place = self.places.of(sending)
            self.places.move(place, _QUEUED)
        elif self._room(sending.lane, lane):
            place = self.places.take(lane, sending, _QUEUED)
        else:
            self._more_is_due(lane)
            self._give_back([sending])
            return
        if (
            sending.urgent
            and self._open
            and lane.in_flight < lane.max_in_flight + URGENT
            and self._shares.may_begin(sending.account_id, first=True)
        ):
            self._start(sending.lane, place)
            return
        (lane.queue.appendleft if sending.urgent else lane.queue.append)(place)
        self._pump(sending.lane, lane)

    def refilled(self, lane_id: str, *, more: bool, stamp: int, caught_up_to: int | None = None) -> None:
        """The lane was filled from the store.

        Args:
            lane_id: Its id.
            more: Whether anything due was left there.
            stamp: What `stamp` gave before the store was asked: what became due there since is more, too.
            caught_up_to: How far the store was asked for what is ahead of its time; a tick asks for none of it.
        """
        if (lane := self._lanes.get(lane_id)) is not None:
            lane.backlog = more or lane.changed > stamp or lane.catch_up_to != caught_up_to
            if not lane.backlog:
                lane.catch_up_to = None
            self._look_after(lane_id, lane)

    def turned_away(self, lane_id: str) -> None:
        """The store was to be asked for this lane, which takes nothing now."""
        if (lane := self._lanes.get(lane_id)) is None:
            return
        if lane.load:  # what it holds asks again when it ends
            lane.backlog = True
        elif self.breakers.is_open(lane_id):  # which says when the lane is looked at again
            lane.backlog, lane.catch_up_to = False, None
            self._drop_if_idle(lane_id, lane)
        else:
            self._turned_away.add(lane_id)

    def slow_down(self, lane_id: str, seconds: float) -> None:
        """Start nothing in this lane for a while."""
        if (lane := self._lanes.get(lane_id)) is not None:
            lane.slow_until = max(lane.slow_until, self._clock.monotonic() + seconds)

    def heard(
        self, sending: Sending, *, delivered: bool, prompt: bool = True, retry_after_s: float | None = None
    ) -> None:
        """What came of a request, and whether it came promptly: the lane's breaker opens or closes by it."""
        lane_id = sending.lane
        self._turns.note(lane_id, origin_of(lane_id), prompt=prompt and delivered)
        lane = self._lanes.get(lane_id)
        if lane is None:
            return
        if not delivered:
            self.breakers.failed(lane_id, retry_after_s)
            return
        if self.breakers.is_open(lane_id):  # what waits may be due, and rests in the store
            self._more_is_due(lane)
        if self.breakers.succeeded(lane_id, lane.max_in_flight):
            lane.catch_up_to = self._clock.now_ms()

    def limit(self, lane_id: str, max_in_flight: int) -> None:
        """So many requests of this lane may be out at once from now on."""
        if (lane := self._lanes.get(lane_id)) is not None:
            lane.max_in_flight = max_in_flight

    def answered(self, sending: Sending) -> None:
        """The destination is free for the next request, while the attempt is still being recorded."""
        place = self.places.of(sending)
        self.places.move(place, _RECORDING)
        self._pump(sending.lane, place.lane)
        self._pump_waiting()

    def in_flight(self) -> int:
        """Requests that are out now, or about to be, over all lanes."""
        return len(self._turns)

    def in_flight_of(self, lane_id: str) -> int:
        """Requests of one lane that are out now."""
        return 0 if (lane := self._lanes.get(lane_id)) is None else lane.in_flight

    def count(self) -> int:
        """Lanes that are in memory."""
        return len(self._lanes)

    def try_now(self, lane_id: str, delivery_id: str | None = None) -> None:
        """Somebody changed or enabled the destination, or wants this delivery sent: an open breaker tries it now."""
        self.breakers.try_now(lane_id, delivery_id)
        self._ask(lane_id)

    def catch_up(self, account_id: str, lane_id: str) -> None:
        """The origin of this lane is back: what waits for its turn on the schedule is due now."""
        lane = self._lane(account_id, lane_id, self.origins.limit(lane_id), None)
        if lane.slow_until <= self._clock.monotonic():
            lane.catch_up_to = self._clock.now_ms()
            self._more_is_due(lane)
            self.try_now(lane_id)

    def renew(self, lane_id: str) -> None:
        """A destination that failed was changed or enabled: it is tried at once."""
        self.breakers.suspect(lane_id)
        if (lane := self._lanes.get(lane_id)) is not None:
            lane.slow_until = 0.0
            lane.stop_timer()  # it may sleep for as long as the old one asked for
            self._pump(lane_id, lane)
        self._ask(lane_id)

    # -- running -----------------------------------------------------------------------------------------------------

    async def drain(self, timeout_s: float) -> None:
        """Start nothing new and let what is out come back; what is only queued is leased and comes back after the lease."""
        self._open = False
        for lane in self._lanes.values():
            lane.stop_timer()
        await self._turns.drain(timeout_s)

    async def settle(self) -> None:
        """Wait until nothing is out; for tests and simulations."""
        await self._turns.settle()

    def _holds(self, lane_id: str) -> bool:
        return (lane := self._lanes.get(lane_id)) is not None and lane.load > 0

    def _lane(self, account_id: str, lane_id: str, max_in_flight: int, rate_per_s: float | None) -> Lane:
        lane = self._lanes.get(lane_id)
        if lane is None:
            lane = self._lanes[lane_id] = Lane(account_id, max_in_flight, rate_per_s)
        else:
            lane.max_in_flight, lane.rate_per_s = max_in_flight, rate_per_s
        return lane

    def _pump(self, lane_id: str, lane: Lane, *, turn: bool = False) -> bool:
        """Start what may start; True when the lane has to wait for a socket. `turn`: the others let it go before them."""
        limit = self.breakers.limit(lane_id)
        most = lane.max_in_flight if limit is None else min(limit, lane.max_in_flight)
        while self._open and lane.queue and lane.in_flight < most:
            now = self._clock.monotonic()
            wait_s = max(lane.slow_until, lane.next_start) - now
            if wait_s > 0:
                if lane.timer is None:
                    lane.timer = asyncio.create_task(self._pump_later(lane_id, lane, wait_s))
                return False
            if not self._has_socket(lane_id, lane, turn=turn):
                return True
            place = lane.queue.popleft()
            if place.sending.lease_until < self._clock.now_ms() + self._timeout_ms:
                # It waited here too long: its lease ends, and the next holder would send it a second time.
                self.places.give_back(place)
                lane.backlog = True
                self._look_after(lane_id, lane)
                continue
            if lane.rate_per_s:
                lane.next_start = max(now, lane.next_start) + 1 / lane.rate_per_s
            self._start(lane_id, place)
            turn = False
        if lane.queue and self.breakers.is_open(lane_id):
            self._empty(lane)
        return False

    def _start(self, lane_id: str, place: LanePlace) -> None:
        self.places.move(place, _OUT)
        self._turns.add(lane_id, origin_of(lane_id), place)

    def _has_socket(self, lane_id: str, lane: Lane, *, turn: bool) -> bool:
        first = not lane.in_flight
        waiting = self._shares.firsts if first else self._shares.others
        # Other accounts that wait may have no more than they have: they do not stand in the way.
        if (turn or not waiting.has(lane.account_id)) and self._shares.may_begin(lane.account_id, first=first):
            return True
        self._shares.wait(lane.account_id, lane_id, first=first)
        return False

    def _empty(self, lane: Lane) -> None:
        """The destination is left alone for a while: what waits for it waits in the store, where the oldest is found."""
        queued = list(lane.queue)
        lane.queue.clear()
        lane.backlog = False  # the breaker says when the lane is looked at again
        for place in queued:
            self.places.give_back(place)
        self._give_back([place.sending for place in queued])

    async def _pump_later(self, lane_id: str, lane: Lane, wait_s: float) -> None:
        await self._clock.sleep(wait_s)
        lane.timer = None
        self._pump(lane_id, lane)
        self._look_after(lane_id, lane)

    async def _run(self, place: LanePlace) -> None:
        lane, sending = place.lane, place.sending
        lane_id = sending.lane
        try:
            await self._send(sending)
        except Exception:  # a lane's outermost guard: the lease runs out and the delivery is claimed again
            _log.exception("delivery_broke", delivery=sending.delivery_id)
        finally:
            self.places.give_back(place)
            self._pump(lane_id, lane)
            self._pump_waiting()
            self._look_after(lane_id, lane)

    def _pump_waiting(self) -> None:
        """A socket is free: those who wait for one, in turn; not for ever where none of them may have it."""
        in_vain = 0
        while in_vain < TRIES and (lane_id := self._shares.next()) is not None:
            if (lane := self._lanes.get(lane_id)) is not None:
                before = self._shares.out
                waits = self._pump(lane_id, lane, turn=True)
                in_vain += waits and self._shares.out == before

    def _more_is_due(self, lane: Lane) -> None:
        """In the store, since now: what a claim that is under way has seen is less."""
        lane.backlog = True
        lane.changed = self._changes = self._changes + 1

    def _look_after(self, lane_id: str, lane: Lane) -> None:
        """The lane holds less: have the store asked for more, or drop it."""
        if not lane.backlog:
            self._drop_if_idle(lane_id, lane)
        elif lane.load <= lane.max_in_flight:
            self._ask(lane_id)

    def _ask(self, lane_id: str) -> None:
        """Have the store asked for this lane."""
        self.hungry.add(lane_id)
        self.wake_refill.set()

    def _drop_if_idle(self, lane_id: str, lane: Lane) -> None:
        if not lane.idle:
            return
        cools = self._clock.monotonic() < max(lane.slow_until, lane.next_start)
        dropped = self._cooling.add(lane_id) if cools else lane_id
        if dropped is not None and (idle := self._lanes.get(dropped)) is not None and idle.idle:
            del self._lanes[dropped]

    def forget_idle(self) -> None:
        """Drop the lanes that nobody came back to, and have the store asked again for those that were turned away."""
        self.hungry |= self._turned_away
        self._turned_away.clear()
        for lane_id in self._cooling.take():
            if (lane := self._lanes.get(lane_id)) is not None:
                self._drop_if_idle(lane_id, lane)
