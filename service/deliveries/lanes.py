"""Lanes: one destination's deliveries in this process, with its own limits, so that a slow or dead one delays no other.

A lane holds a bounded number of deliveries in memory; the rest of its backlog stays in the store, due and unowned.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from service.clock import Clock

BUFFER = 256  # deliveries that wait in memory behind those in flight, for one lane
BUFFERED_S = 30.0  # of a lane with a rate limit: so many seconds' worth wait in memory
BUFFER_OF_ALL = 20_000  # and for all lanes together

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Sending:
    """One delivery that this process holds: what is to be sent where, and the lease under which."""

    delivery_id: str
    event_id: str
    account_id: str
    lane: str
    body: bytes
    event_at: int
    epoch: int
    lease_until: int  # ms UTC: what has not begun well before is somebody else's
    url: str | None  # a one-off's own; a subscription's is looked up when it is sent
    subscription_id: str | None
    failed_before: int  # failed attempts that count for the schedule
    max_in_flight: int
    rate_per_s: float | None = None


@dataclass(slots=True)
class _Lane:
    max_in_flight: int
    rate_per_s: float | None
    queue: deque[Sending] = field(default_factory=deque)
    reserved: int = 0
    in_flight: int = 0
    recording: int = 0  # answered, and about to be recorded
    backlog: bool = False  # the store has more
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
    """All lanes of this process. `send` sends one delivery and records the attempt; it calls `sent` in between."""

    def __init__(self, send: Callable[[Sending], Awaitable[None]], clock: Clock, timeout_s: float) -> None:
        self._send = send
        self._clock = clock
        self._timeout_ms = round(timeout_s * 1000)  # what one request may take
        self._lanes: dict[str, _Lane] = {}
        self._held = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = True
        self.hungry: set[str] = set()  # lanes with room whose backlog is in the store
        self.wake_refill = asyncio.Event()

    def reserve(self, lane_id: str, max_in_flight: int, rate_per_s: float | None = None) -> bool:
        """Keep a place in the lane; False when it is full or behind, and the delivery has to wait in the store."""
        lane = self._lane(lane_id, max_in_flight, rate_per_s)
        if lane.backlog or self._held >= BUFFER_OF_ALL or not self._room(lane):
            self._drop_if_idle(lane_id, lane)
            return False
        lane.reserved += 1
        self._held += 1
        return True

    def release(self, lane_id: str) -> None:
        """Give a reserved place back."""
        lane = self._lanes[lane_id]
        lane.reserved -= 1
        self._held -= 1
        self._drop_if_idle(lane_id, lane)

    def left_in_store(self, lane_id: str) -> None:
        """A delivery of this lane was committed without a holder."""
        lane = self._lanes.get(lane_id)
        if lane is None or lane.idle:
            self.hungry.add(lane_id)
            self.wake_refill.set()
        else:
            lane.backlog = True

    def room(self, lane_id: str) -> int:
        """How many more deliveries the lane would take from the store."""
        lane = self._lanes.get(lane_id)
        if lane is None:
            return BUFFER if self._open else 0
        return self._room(lane)

    def _room(self, lane: _Lane) -> int:
        """What the lane can hold and begin under its lease; nothing while it has to be slow."""
        if not self._open or lane.slow_until > self._clock.monotonic():
            return 0
        buffer = BUFFER if lane.rate_per_s is None else min(BUFFER, int(lane.rate_per_s * BUFFERED_S))
        return max(0, lane.max_in_flight + buffer - lane.load)

    def full(self) -> list[str]:
        """Lanes that take nothing from the store now."""
        return [lane_id for lane_id in self._lanes if not self.room(lane_id)]

    def give(self, sending: Sending, *, reserved: bool = True) -> None:
        """Take a delivery whose lease is committed."""
        lane = self._lane(sending.lane, sending.max_in_flight, sending.rate_per_s)
        if reserved:
            lane.reserved -= 1
        else:
            self._held += 1
        lane.queue.append(sending)
        self._pump(sending.lane, lane)

    def refilled(self, lane_id: str, *, more: bool) -> None:
        """The lane was filled from the store; `more` tells whether anything due was left there."""
        lane = self._lanes.get(lane_id)
        if lane is not None:
            lane.backlog = more
            self._drop_if_idle(lane_id, lane)

    def slow_down(self, lane_id: str, seconds: float) -> None:
        """Start nothing in this lane for a while."""
        lane = self._lanes.get(lane_id)
        if lane is not None:
            lane.slow_until = max(lane.slow_until, self._clock.monotonic() + seconds)

    def answered(self, lane_id: str) -> None:
        """The destination is free for the next request, while the attempt is still being recorded."""
        lane = self._lanes.get(lane_id)
        if lane is not None:
            lane.in_flight -= 1
            lane.recording += 1
            self._pump(lane_id, lane)

    def in_flight(self) -> int:
        """Requests that are out now, over all lanes."""
        return len(self._tasks)

    async def drain(self, timeout_s: float) -> None:
        """Start nothing new and let what is out come back; what is only queued is leased and comes back after the lease."""
        self._open = False
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
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def _lane(self, lane_id: str, max_in_flight: int, rate_per_s: float | None) -> _Lane:
        lane = self._lanes.get(lane_id)
        if lane is None:
            lane = self._lanes[lane_id] = _Lane(max_in_flight, rate_per_s)
        else:
            lane.max_in_flight = max_in_flight
            lane.rate_per_s = rate_per_s
        return lane

    def _pump(self, lane_id: str, lane: _Lane) -> None:
        while self._open and lane.queue and lane.in_flight < lane.max_in_flight:
            now = self._clock.monotonic()
            wait_s = max(lane.slow_until, lane.next_start) - now
            if wait_s > 0:
                if lane.timer is None:
                    lane.timer = asyncio.create_task(self._pump_later(lane_id, lane, wait_s))
                return
            sending = lane.queue.popleft()
            if sending.lease_until < self._clock.now_ms() + self._timeout_ms:
                # It waited here too long: its lease ends, and whoever claims it next would send it a second time.
                self._held -= 1
                lane.backlog = True
                continue
            if lane.rate_per_s:
                lane.next_start = max(now, lane.next_start) + 1 / lane.rate_per_s
            lane.in_flight += 1
            task = asyncio.create_task(self._run(lane_id, lane, sending))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

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
            self._held -= 1
            self._pump(lane_id, lane)
            self._ask_for_more(lane_id, lane)
            self._drop_if_idle(lane_id, lane)

    def _ask_for_more(self, lane_id: str, lane: _Lane) -> None:
        if lane.backlog and lane.load <= lane.max_in_flight:
            self.hungry.add(lane_id)
            self.wake_refill.set()

    def _drop_if_idle(self, lane_id: str, lane: _Lane) -> None:
        if lane.idle and self._clock.monotonic() >= max(lane.slow_until, lane.next_start):
            self._lanes.pop(lane_id, None)
