"""Lanes: one destination's deliveries in this process, with its own limits, so that a slow or dead one delays no other.

A lane holds a bounded number of deliveries in memory; the rest of its backlog stays in the store, due and unowned.
What all lanes share, memory and sockets, is shared fairly: a lane that has nothing out is always let in before one that
has, and no account holds more than what is left for the others.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from service.clock import Clock, Randomness
from service.deliveries.breaker import BreakerState, LaneBreakers
from service.deliveries.sending import Sending
from service.deliveries.turns import Turns

BUFFER: Final = 256  # deliveries that wait in memory behind those in flight, for one lane
BUFFERED_S: Final = 30.0  # of a lane with a rate limit: so many seconds' worth wait in memory
BUFFER_OF_ALL: Final = 20_000  # and for all lanes together; above it a lane holds one, up to twice as many in all
IN_FLIGHT: Final = 10_000  # requests at once over all lanes; above it a lane has one, up to half as many again in all

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Lane:
    max_in_flight: int
    rate_per_s: float | None
    queue: deque[Sending] = field(default_factory=deque)
    reserved: int = 0
    in_flight: int = 0
    recording: int = 0  # answered, and about to be recorded
    backlog: bool = False  # the store has more
    catch_up_to: int | None = None  # ms UTC: what failed before then and waits for its turn is due now
    slow_until: float = 0.0  # monotonic seconds
    next_start: float = 0.0  # monotonic seconds, where a rate limits
    timer: asyncio.Task[None] | None = None

    @property
    def load(self) -> int:
        return self.reserved + len(self.queue) + self.in_flight + self.recording

    @property
    def idle(self) -> bool:
        return self.load == 0 and self.timer is None and not self.backlog


class Lanes:
    """All lanes of this process.

    Args:
        send: Sends one delivery and records the attempt; calls `heard` and `answered` in between.
        give_back: Takes deliveries that will not be sent from here for now, to be left in the store unowned.
        timeout_s: What one request may take.
        in_flight: Requests at once over all lanes.
    """

    def __init__(
        self,
        send: Callable[[Sending], Awaitable[None]],
        clock: Clock,
        randomness: Randomness,
        give_back: Callable[[Sequence[Sending]], None],
        *,
        timeout_s: float,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        self._send = send
        self._clock = clock
        self._give_back = give_back
        self._timeout_ms = round(timeout_s * 1000)
        self._most = in_flight
        self._lanes: dict[str, _Lane] = {}
        self._held = 0
        self._held_by: Counter[str] = Counter()  # the same by account
        self._out = 0  # requests, each with a socket
        self._waiting: dict[str, None] = {}  # lanes that wait for a socket, in order
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = True
        self._turns = Turns[tuple[_Lane, Sending]](self._begin)
        self.breakers = LaneBreakers(clock, randomness)
        self.hungry: set[str] = set()  # lanes with room whose backlog is in the store
        self.wake_refill = asyncio.Event()

    # -- places ------------------------------------------------------------------------------------------------------

    def reserve(
        self,
        account_id: str,
        lane_id: str,
        max_in_flight: int,
        rate_per_s: float | None = None,
        *,
        urgent: bool = False,
    ) -> bool:
        """Keep a place in the lane; False when it is full or behind, and the delivery has to wait in the store."""
        lane = self._lane(lane_id, max_in_flight, rate_per_s)
        if not urgent and (lane.backlog or not self._shares(account_id, lane) or not self._room(lane_id, lane)):
            self._drop_if_idle(lane_id, lane)
            return False
        lane.reserved += 1
        self._hold(account_id)
        return True

    def release(self, account_id: str, lane_id: str) -> None:
        """Give a reserved place back."""
        lane = self._lanes[lane_id]
        lane.reserved -= 1
        self._let_go(account_id)
        self._drop_if_idle(lane_id, lane)

    def left_in_store(self, lane_id: str) -> None:
        """A delivery of this lane was committed without a holder."""
        lane = self._lanes.get(lane_id)
        if lane is not None and not lane.idle:
            lane.backlog = True
        elif not self.breakers.is_open(lane_id):  # else the next try finds it
            self.hungry.add(lane_id)
            self.wake_refill.set()

    def room(self, lane_id: str) -> int:
        """How many more deliveries the lane would take from the store."""
        lane = self._lanes.get(lane_id)
        if lane is not None:
            return self._room(lane_id, lane)
        limit = self.breakers.limit(lane_id)
        return (BUFFER if limit is None or not self.breakers.is_open(lane_id) else limit) if self._open else 0

    def full(self) -> list[str]:
        """Lanes that take nothing from the store now."""
        known = [lane_id for lane_id, lane in self._lanes.items() if not self._room(lane_id, lane)]
        return known + [each for each in self.breakers.open_lanes() if each not in self._lanes and not self.room(each)]

    def trying_now(self) -> list[str]:
        """Open lanes whose next try is due."""
        return [each for each in self.breakers.open_lanes() if self.room(each)]

    def wants(self, lane_id: str) -> tuple[int, int | None, str | None]:
        """What the lane takes from the store: how many, ahead of their time up to when, and which one first."""
        lane = self._lanes.get(lane_id)
        return self.room(lane_id), None if lane is None else lane.catch_up_to, self.breakers.oldest(lane_id)

    def _room(self, lane_id: str, lane: _Lane) -> int:
        """What the lane can hold and begin under its lease; nothing while it has to be slow."""
        if not self._open or lane.slow_until > self._clock.monotonic():
            return 0
        if self.breakers.is_open(lane_id):
            return max(0, (self.breakers.limit(lane_id) or 0) - lane.load)
        buffer = BUFFER if lane.rate_per_s is None else min(BUFFER, int(lane.rate_per_s * BUFFERED_S))
        return max(0, lane.max_in_flight + buffer - lane.load)

    def _shares(self, account_id: str, lane: _Lane) -> bool:
        """Whether memory is left for this lane: an account holds at most as much as is free for the others."""
        if not lane.load:
            return self._held < 2 * BUFFER_OF_ALL
        return self._held_by[account_id] < BUFFER_OF_ALL - self._held

    def _hold(self, account_id: str) -> None:
        self._held += 1
        self._held_by[account_id] += 1

    def _let_go(self, account_id: str) -> None:
        self._held -= 1
        self._held_by[account_id] -= 1
        if not self._held_by[account_id]:
            del self._held_by[account_id]

    # -- deliveries --------------------------------------------------------------------------------------------------

    def give(self, sending: Sending, *, reserved: bool = True) -> None:
        """Take a delivery whose lease is committed."""
        lane = self._lane(sending.lane, sending.max_in_flight, sending.rate_per_s)
        if reserved:
            lane.reserved -= 1
        else:
            self._hold(sending.account_id)
        if sending.urgent and self._open:
            self._start(sending.lane, lane, sending)
            return
        lane.queue.append(sending)
        self._pump(sending.lane, lane)

    def refilled(self, lane_id: str, *, more: bool) -> None:
        """The lane was filled from the store; `more` tells whether anything due was left there."""
        lane = self._lanes.get(lane_id)
        if lane is not None:
            lane.backlog = more
            if not more:
                lane.catch_up_to = None
            self._drop_if_idle(lane_id, lane)

    def slow_down(self, lane_id: str, seconds: float) -> None:
        """Start nothing in this lane for a while."""
        lane = self._lanes.get(lane_id)
        if lane is not None:
            lane.slow_until = max(lane.slow_until, self._clock.monotonic() + seconds)

    def heard(
        self, sending: Sending, *, delivered: bool, prompt: bool = True, retry_after_s: float | None = None
    ) -> None:
        """What came of a request, and whether it came promptly: the lane's breaker opens or closes by it."""
        lane_id = sending.lane
        self._turns.note(lane_id, prompt=prompt and delivered)
        lane = self._lanes.get(lane_id)
        if lane is None:
            return
        if not delivered:
            self.breakers.failed(lane_id, sending.delivery_id, retry_after_s)
        elif self.breakers.succeeded(lane_id, lane.max_in_flight):
            lane.catch_up_to = self._clock.now_ms()
            lane.backlog = True

    def answered(self, lane_id: str) -> None:
        """The destination is free for the next request, while the attempt is still being recorded."""
        lane = self._lanes.get(lane_id)
        if lane is not None:
            lane.in_flight -= 1
            lane.recording += 1
            self._out -= 1
            self._pump_waiting()  # those before this lane
            self._pump(lane_id, lane)

    def in_flight(self) -> int:
        """Requests that are out now, or about to be, over all lanes."""
        return len(self._tasks) + len(self._turns)

    def in_flight_of(self, lane_id: str) -> int:
        """Requests of one lane that are out now."""
        lane = self._lanes.get(lane_id)
        return 0 if lane is None else lane.in_flight

    def count(self) -> int:
        """Lanes that are in memory."""
        return len(self._lanes)

    def held(self) -> int:
        """Deliveries that are in memory, over all lanes."""
        return self._held

    def breaker_of(self, lane_id: str) -> BreakerState:
        """The state of a lane's breaker."""
        return self.breakers.state(lane_id)

    def try_now(self, lane_id: str, delivery_id: str | None = None) -> None:
        """Somebody changed or enabled the destination, or wants this delivery sent: an open breaker tries it now."""
        self.breakers.try_now(lane_id, delivery_id)
        self.hungry.add(lane_id)
        self.wake_refill.set()

    def renew(self, lane_id: str) -> None:
        """A destination that failed was changed or enabled: it is tried at once."""
        self.breakers.suspect(lane_id)
        lane = self._lanes.get(lane_id)
        if lane is not None:
            lane.slow_until = 0.0
        self.hungry.add(lane_id)
        self.wake_refill.set()

    # -- running -----------------------------------------------------------------------------------------------------

    async def drain(self, timeout_s: float) -> None:
        """Start nothing new and let what is out come back; what is only queued is leased and comes back after the lease."""
        self._open = False
        self._turns.clear()
        for lane in self._lanes.values():
            if lane.timer is not None:
                lane.timer.cancel()
        if self._tasks:
            _, late = await asyncio.wait(set(self._tasks), timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def settle(self) -> None:
        """Wait until nothing is out; for tests and simulations."""
        while self.in_flight():
            await (asyncio.wait(set(self._tasks)) if self._tasks else asyncio.sleep(0))

    def _lane(self, lane_id: str, max_in_flight: int, rate_per_s: float | None) -> _Lane:
        lane = self._lanes.get(lane_id)
        if lane is None:
            lane = self._lanes[lane_id] = _Lane(max_in_flight, rate_per_s)
        else:
            lane.max_in_flight = max_in_flight
            lane.rate_per_s = rate_per_s
        return lane

    def _pump(self, lane_id: str, lane: _Lane) -> None:
        limit = self.breakers.limit(lane_id)
        most = lane.max_in_flight if limit is None else min(limit, lane.max_in_flight)
        while self._open and lane.queue and lane.in_flight < most:
            now = self._clock.monotonic()
            wait_s = max(lane.slow_until, lane.next_start) - now
            if wait_s > 0:
                if lane.timer is None:
                    lane.timer = asyncio.create_task(self._pump_later(lane_id, lane, wait_s))
                return
            if not self._has_socket(lane):
                self._waiting[lane_id] = None
                return
            sending = lane.queue.popleft()
            if sending.lease_until < self._clock.now_ms() + self._timeout_ms:
                # It waited here too long: its lease ends, and whoever claims it next would send it a second time.
                self._let_go(sending.account_id)
                lane.backlog = True
                continue
            if lane.rate_per_s:
                lane.next_start = max(now, lane.next_start) + 1 / lane.rate_per_s
            self._start(lane_id, lane, sending)
        if lane.queue and self.breakers.is_open(lane_id):
            self._empty(lane)

    def _start(self, lane_id: str, lane: _Lane, sending: Sending) -> None:
        lane.in_flight += 1
        self._out += 1
        self._turns.add(lane_id, (lane, sending))

    def _begin(self, due: tuple[_Lane, Sending]) -> None:
        lane, sending = due
        task = asyncio.create_task(self._run(sending.lane, lane, sending))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _has_socket(self, lane: _Lane) -> bool:
        return self._out < (self._most if lane.in_flight else self._most * 3 // 2)

    def _empty(self, lane: _Lane) -> None:
        """The destination is left alone for a while: what waits for it waits in the store, where the oldest is found."""
        queued = list(lane.queue)
        lane.queue.clear()
        lane.backlog = False  # the breaker says when the lane is looked at again
        for sending in queued:
            self._let_go(sending.account_id)
        self._give_back(queued)

    async def _pump_later(self, lane_id: str, lane: _Lane, wait_s: float) -> None:
        await self._clock.sleep(wait_s)
        lane.timer = None
        self._pump(lane_id, lane)
        self._ask_for_more(lane_id, lane)

    async def _run(self, lane_id: str, lane: _Lane, sending: Sending) -> None:
        try:
            await self._send(sending)
        except Exception:  # a lane's outermost guard: the lease runs out and the delivery is claimed again
            _log.exception("delivery_broke", delivery=sending.delivery_id)
        finally:
            if lane.recording:
                lane.recording -= 1
            else:
                lane.in_flight -= 1
                self._out -= 1
            self._let_go(sending.account_id)
            self._pump_waiting()
            self._pump(lane_id, lane)
            self._ask_for_more(lane_id, lane)
            self._drop_if_idle(lane_id, lane)

    def _pump_waiting(self) -> None:
        """A socket is free: those who wait for one, in order."""
        while self._waiting and self._out < self._most:
            lane_id = next(iter(self._waiting))
            del self._waiting[lane_id]
            lane = self._lanes.get(lane_id)
            if lane is not None:
                self._pump(lane_id, lane)
                if lane_id in self._waiting:
                    return

    def _ask_for_more(self, lane_id: str, lane: _Lane) -> None:
        if lane.backlog and lane.load <= lane.max_in_flight:
            self.hungry.add(lane_id)
            self.wake_refill.set()

    def _drop_if_idle(self, lane_id: str, lane: _Lane) -> None:
        if lane.idle and self._clock.monotonic() >= max(lane.slow_until, lane.next_start):
            self._lanes.pop(lane_id, None)
