"""Lanes between a model of the store and destinations that answer when told: what a history does, and what the lanes meet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, TypeVar, cast

from structlog.testing import capture_logs

from service.clock import SeededRandomness
from service.db.writer import Writer
from service.deliveries.claim_store import Wish
from service.deliveries.lanes.held_bytes import Memory
from service.deliveries.lanes.lanes import Lanes
from service.deliveries.lanes.queue import Sending
from service.deliveries.lanes.quota import Shares
from service.deliveries.refill import Refill
from service.errors import StoreUnavailable
from service.subscriptions.sealed import Pair, Sealed
from service.subscriptions.snapshots import Destination
from tests.deliveries.lane_rules import (
    ABSENCE_S,
    BREAKS_AFTER,
    BY_HAND,
    TIMEOUT_S,
    Expected,
    Key,
    Rules,
    WatchedLanes,
    WatchedShares,
    key_of,
    watched,
)
from tests.deliveries.lane_store import Kept, LaneStore, Record

PATH: Final = "acc_a:https://a.example/0123"  # a callback_url's; two requests at once
PACED: Final = 0.1  # requests per second; so few that three deliveries wait in memory
LANES: Final = {"a1": None, "a2": PACED, PATH: None, "b1": None, "b2": None}
DELIVERED, FAILED, SLOW, BROKEN, ENDED = "delivered", "failed", "slow", "broken", "ended"
LEASE_S: Final = 135
RETRY_S: Final = 200
SLOW_S: Final = 30
FIRST_TRY_S: Final = 4  # at least, after the breaker has opened
ROUNDS: Final = 300  # of the event loop until it has come to rest

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Parts:
    """What is held against the model; a planted fault is a subclass of one of them."""

    lanes: type[Lanes] = Lanes
    shares: type[Shares] = Shares
    memory: type[Memory] = Memory
    refill: type[Refill] = Refill


class World(Rules):
    """One process, its store and its destinations.

    Args:
        parts: What is tried.
        sockets: For `Shares`.
        memory: Bytes.
        most: Requests at once, by lane.
    """

    def __init__(self, parts: Parts, *, sockets: int, memory: int, most: Sequence[int]) -> None:
        lane = {
            name: Expected(name, f"acc_{name[0] if name != PATH else 'a'}", 2 if name == PATH else at_once, rate)
            for (name, rate), at_once in zip(LANES.items(), most, strict=True)
        }
        super().__init__(lane, sockets=sockets, memory=memory)
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda _, context: self.breaches.append(str(context)))
        self._stack = ExitStack()
        self.log = self._stack.enter_context(capture_logs())
        self.store = LaneStore(self.clock, self._claimed)
        self.reserved: list[Sending] = []  # by the open transaction
        self.left: list[Sending] = []
        self.asked: dict[Key, asyncio.Future[str]] = {}
        self._number = 0
        self.shares = watched(WatchedShares, parts.shares, self)(sockets)
        self.lanes = self.run(lambda: self._start(parts))

    def _start(self, parts: Parts) -> Lanes:
        lanes: Lanes = watched(WatchedLanes, parts.lanes, self)(
            self._send,
            self.clock,
            SeededRandomness(1),
            self._take_back,
            timeout_s=TIMEOUT_S,
            shares=self.shares,
            memory=parts.memory(self.memory),
        )
        writer = cast(Writer, self.store)  # as much of it as `Refill` uses
        self.refill = parts.refill(writer, self, lanes, "me", LEASE_S * 1000)
        self._ticking = asyncio.create_task(self.refill.start())
        return lanes

    # -- what a history does -----------------------------------------------------------------------------------------

    def run(self, action: Callable[[], T]) -> T:
        """Do this in the event loop, and wait until it has come to rest."""

        async def done() -> T:
            result = action()
            await self._rest()
            return result

        return self.loop.run_until_complete(done())

    def publish(self, lanes: Iterable[str], copies: int, size: int, *, urgent: bool) -> None:
        """An event for each of the copies goes to these lanes, in a transaction that is open afterwards."""
        for _ in range(copies):
            self._number += 1
            for name in lanes:
                self._deliver(self.lane[name], f"evt_{self._number}_{self.lane[name].account_id}", size, urgent=urgent)
        self.open = True

    def _deliver(self, lane: Expected, event_id: str, size: int, *, urgent: bool) -> None:
        one = Sending(
            delivery_id=f"{event_id}_{lane.id}",
            event_id=event_id,
            account_id=lane.account_id,
            lane=lane.id,
            body=b"." * size,
            event_at=0,
            epoch=1,
            lease_until=self.clock.now_ms() + LEASE_S * 1000,
            url="https://a.example/hook" if lane.id == PATH else None,
            subscription_id=None if lane.id == PATH else lane.id,
            failed_before=0,
            max_in_flight=lane.most,
            rate_per_s=lane.rate_per_s,
            urgent=urgent,
        )
        (self.reserved if self.lanes.reserve(one) else self.left).append(one)

    def end(self, *, commits: bool) -> None:
        """The open transaction is committed or rolled back."""
        reserved, left, self.reserved, self.left, self.open = self.reserved, self.left, [], [], False
        for one in reserved:
            if commits:
                self._keep(one, one.lease_until)
                self.lanes.give(one)
            else:
                self.held.pop(key_of(one))
                self.lanes.release(one)
        for one in left if commits else ():
            self._keep(one, None)
            if not self.lane[one.lane].is_open:
                self.lane[one.lane].owed.add(one.delivery_id)
            self.lanes.left_in_store(one.lane)

    def _keep(self, one: Sending, until: int | None) -> None:
        now, epoch = self.clock.now_ms(), 0 if until is None else 1
        kept = Kept(one.delivery_id, one.account_id, one.lane, one.event_id, one.body, one.url, now, epoch, until)
        self.store.deliveries[kept.id] = kept

    def tick(self) -> None:
        """Whatever is due is looked for, unless that is under way."""
        if self._ticking.done():
            self._ticking = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        try:
            await self.refill.run_once()
        except StoreUnavailable:
            return

    def answer(self, key: Key, outcome: str) -> None:
        """A request ends."""
        self.asked.pop(key).set_result(outcome)

    def answer_all(self, outcome: str) -> None:
        """Every request ends."""
        for key in list(self.asked):
            self.answer(key, outcome)

    def pass_time(self, seconds: int) -> None:
        """Bit by bit, so that a request that takes too long is broken off; no transaction is open for so long."""
        if self.open and seconds > 5:
            self.run(lambda: self.end(commits=True))
        while seconds > 0:
            step = min(seconds, 5)
            seconds -= step
            self.run(lambda step=step: self._pass(step))  # type: ignore[misc]
            self.check()

    def _pass(self, seconds: int) -> None:
        self.clock.advance(seconds)
        for key in [each for each in self.asked if self.out[each].began + TIMEOUT_S <= self.clock.monotonic()]:
            self.answer(key, FAILED)

    def refuse(self) -> None:
        """The store takes nothing of what it was asked."""
        self.store.refuses = True
        self.store.work()
        self.store.refuses = False
        self.lost |= self.returning
        for lane in self.lane.values():
            lane.excused = True

    def origin_is_back(self, lane: Expected) -> None:
        """Another path at its origin was answered."""
        if lane.slow_until <= self.clock.monotonic():
            self._to_be_tried(lane)
            if not lane.is_open:
                lane.owed |= {each.id for each in self.store.left(lane.id, self.clock.now_ms())}
        self.lanes.catch_up(lane.account_id, lane.id)

    def renew(self, lane: Expected) -> None:
        """The destination was changed."""
        now = self.clock.monotonic()
        lane.failures, lane.burst, lane.asked_for, lane.slow_until = BREAKS_AFTER, None, None, 0.0
        lane.opened_at, lane.try_at = now - ABSENCE_S, now
        lane.owed.clear()
        self.lanes.renew(lane.id)

    def retry(self, one: Kept) -> None:
        """Somebody wants it sent now."""
        lane, one.due_at = self.lane[one.lane], self.clock.now_ms()
        self._to_be_tried(lane)
        if lane.is_open:
            lane.asked_for = one.id
        else:
            lane.owed.add(one.id)
        self.lanes.try_now(one.lane, one.id)

    def _to_be_tried(self, lane: Expected) -> None:
        lane.excused = False
        if lane.is_open:
            lane.try_at = self.clock.monotonic()

    def waiting(self) -> list[Kept]:
        """What is in the store, and nobody has it."""
        those = self.store.deliveries.values() if not self.open else ()
        return [each for each in those if not each.ended and each.lease_until is None]

    def trying(self) -> list[Key]:
        """Requests to destinations that are left alone."""
        return sorted(key for key in self.asked if self.lane[self.out[key].sending.lane].is_open)

    def finish(self) -> None:
        """All is well from here on, and nothing stays anywhere."""
        if self.open:
            self.run(lambda: self.end(commits=True))
        self.store.takes = self.store.tells = True
        for lane in self.lane.values():
            lane.answers = DELIVERED
        self.run(lambda: self.answer_all(DELIVERED))
        for _ in range(ROUNDS):
            self.check()
            if all(each.ended for each in self.store.deliveries.values()):
                break
            self.run(self.tick)
            self.pass_time(10)
        self.pass_time(2 * LEASE_S)
        self.run(self.tick)
        self.check()
        unsent = [each.id for each in self.store.deliveries.values() if not each.ended]
        assert not unsent, unsent
        kept = len(self.lanes.places), self.lanes.memory.bytes, self.shares.out, [*self.lanes._lanes.items()]
        assert kept == (0, 0, 0, []), kept

    def close(self) -> None:
        """Leave nothing of it."""
        self.loop.run_until_complete(self.lanes.drain(0))
        for task in (tasks := asyncio.all_tasks(self.loop)):
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._stack.close()
        self.loop.close()

    # -- what the lanes meet -----------------------------------------------------------------------------------------

    async def destination(self, account_id: str, subscription_id: str) -> Destination:
        """See `DestinationDirectory`."""
        lane, any_of = self.lane[subscription_id], frozenset[str]()
        sealed = Sealed(subscription_id, lambda *_: b"", Pair(), Pair(), None)
        return Destination(
            subscription_id, account_id, "", any_of, any_of, any_of, any_of, lane.most, lane.rate_per_s, None, sealed
        )

    async def _send(self, one: Sending) -> None:
        self.activity += 1
        key, answers = key_of(one), self.lane[one.lane].answers
        if answers == BY_HAND:
            self.asked[key] = self.loop.create_future()
            answers = await self.asked[key]
        try:
            await self._answered(one, answers, delivered=answers == DELIVERED)
        except StoreUnavailable:
            self.lost.add(key)
        finally:
            self.out.pop(key, None)
            self.held.pop(key, None)
            self.activity += 1

    async def _answered(self, one: Sending, outcome: str, *, delivered: bool) -> None:
        now = self.clock.now_ms()
        if outcome == BROKEN:
            self.lost.add(key_of(one))
            self.broken += 1
            msg = "the request broke"
            raise RuntimeError(msg)
        record = Record(one.delivery_id, one.epoch, now, delivered, now + RETRY_S * 1000, dead=outcome == ENDED)
        if outcome != ENDED:
            a_try = self.out.pop(key_of(one)).a_try
            lane = self.lane[one.lane]
            if outcome == SLOW:
                lane.slow_until = max(lane.slow_until, self.clock.monotonic() + SLOW_S)
                self.lanes.slow_down(one.lane, SLOW_S)
            if delivered:
                self._succeeded(lane)
            else:
                self._failed(lane, a_try=a_try)
            self.lanes.heard(one, delivered=delivered)
            self.lanes.answered(one)
        await self.store.run(record)

    def _succeeded(self, lane: Expected) -> None:
        was_open = lane.is_open
        if was_open:
            lane.burst, lane.excused = 1, False
            is_back = self.clock.monotonic() - lane.opened_at >= ABSENCE_S
            lane.owed |= {each.id for each in self.store.left(lane.id, self.clock.now_ms() if is_back else None)}
        lane.failures, lane.asked_for = 0, None
        if lane.burst is not None:
            lane.burst = None if lane.burst * 2 >= lane.most else lane.burst * 2

    def _failed(self, lane: Expected, *, a_try: bool) -> None:
        lane.failures += 1
        lane.asked_for = None
        lane.burst = None if lane.burst is None else 1
        if lane.failures == BREAKS_AFTER:
            lane.opened_at, lane.burst = self.clock.monotonic(), None
            lane.owed.clear()
        if lane.failures == BREAKS_AFTER or (lane.is_open and a_try):
            lane.try_at = self.clock.monotonic() + FIRST_TRY_S

    def _take_back(self, given_back: Sequence[Sending]) -> None:
        for one in given_back:
            self.must(self.held.pop(key_of(one), None) is not None, "is given back and was not held", one)
            self.returning.add(key_of(one))
            if not self.lane[one.lane].is_open:
                self.lane[one.lane].owed.add(one.delivery_id)
        self.refill.take_back(given_back)

    def _claimed(
        self, wishes: Sequence[Wish], given: Sequence[Kept], left: Sequence[Kept], cut: AbstractSet[str]
    ) -> None:
        self.arriving |= {(each.id, each.epoch) for each in given}
        for wish in wishes:
            self.lane[wish.lane].excused = wish.lane in cut and all(each.lane != wish.lane for each in given)
        for each in given:
            self.lane[each.lane].owed.discard(each.id)
        for each in left:
            if not self.lane[each.lane].is_open:
                self.lane[each.lane].owed.add(each.id)

    async def _rest(self) -> None:
        for _ in range(ROUNDS):
            before = self.activity
            for _ in range(8):
                await asyncio.sleep(0)
            if not (0 if self.open else self.store.work()) and before == self.activity:
                return
        self.breaches.append("the lanes never come to rest")
