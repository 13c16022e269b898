"""A model of the store for histories of lanes: who holds which delivery, and what a claim gives.

It takes the commands of `Refill` and the record of an attempt, one after the other, when it is told to. What it answers is written out
here once more, without SQL; that the SQL does the same is for `test_store`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

from service.clock import VirtualClock
from service.deliveries.claim_store import ClaimDeliveries, ClaimedDeliveries, ReleaseDeliveries, Wish
from service.deliveries.rescue_store import RescueLanes, VoidDeliveryLeases
from service.errors import StoreUnavailable

USUAL = 64  # deliveries for a lane that is due and says nothing of its own


@dataclass(slots=True)
class Kept:
    """A delivery in the store."""

    id: str
    account_id: str
    lane: str
    event_id: str
    body: bytes
    url: str | None
    due_at: int
    epoch: int = 0
    lease_until: int | None = None
    attempted_at: int | None = None
    failed: int = 0
    ended: bool = False
    ended_by: int = 0  # the epoch of the lease under which it was sent the last time

    def is_free(self, now: int) -> bool:
        """Whether a claim may take it once it is due."""
        return not self.ended and (self.lease_until is None or self.lease_until <= now)

    def is_due(self, now: int, catch_up_to: int | None = None) -> bool:
        """By its schedule, or since the destination is back."""
        waited = catch_up_to is not None and self.attempted_at is not None and self.attempted_at < catch_up_to
        return self.due_at <= now or waited


#: Told of a claim: its wishes, what was given, what else they could have had, and lanes that were cut for want of memory.
Claimed = Callable[[Sequence[Wish], Sequence[Kept], Sequence[Kept], AbstractSet[str]], None]


@dataclass(frozen=True, slots=True)
class Record:
    """An attempt."""

    delivery_id: str
    epoch: int
    at: int
    delivered: bool
    due_at: int
    dead: bool = False


@dataclass(slots=True)
class _Waiting:
    command: Any
    answer: asyncio.Future[Any]
    given: Any = None


class LaneStore:
    """The store.

    Args:
        clock: What is due.
        claimed: Told of every claim.
    """

    def __init__(self, clock: VirtualClock, claimed: Claimed) -> None:
        self._clock = clock
        self._claimed = claimed
        self.deliveries: dict[str, Kept] = {}
        self.rests: dict[str, int] = {}
        self.asked: deque[_Waiting] = deque()
        self.done: deque[_Waiting] = deque()
        self.refuses = False
        self.takes = self.tells = True  # whether it works on what was asked, and answers

    async def void(self, _command: VoidDeliveryLeases, nothing: list[str]) -> list[str]:
        """There was no earlier process."""
        return nothing

    async def run(self, command: Any) -> Any:
        """See `Writer.run`."""
        waiting = _Waiting(command, asyncio.get_running_loop().create_future())
        self.asked.append(waiting)
        return await waiting.answer

    def step(self) -> None:
        """Do one thing that was asked, and answer it."""
        waiting = self.asked.popleft()
        waiting.given = self._handle(waiting.command)
        waiting.answer.set_result(waiting.given)

    def work(self) -> int:
        """Do what was asked, as far as it may; returns how much that was."""
        steps = 0
        while self.asked and self.takes:
            waiting = self.asked.popleft()
            steps += 1
            if self.refuses:
                waiting.answer.set_exception(StoreUnavailable("the store takes no writes"))
                continue
            waiting.given = self._handle(waiting.command)
            self.done.append(waiting)
        while self.done and self.tells:
            waiting = self.done.popleft()
            steps += 1
            if not waiting.answer.done():
                waiting.answer.set_result(waiting.given)
        return steps

    def free(self, lane: str, catch_up_to: int | None = None) -> list[Kept]:
        """What a claim would find in this lane."""
        now = self._clock.now_ms()
        return [
            each
            for each in self.deliveries.values()
            if each.lane == lane and each.is_free(now) and each.is_due(now, catch_up_to)
        ]

    def left(self, lane: str, catch_up_to: int | None = None) -> list[Kept]:
        """The same without those whose holder may still tell what became of them."""
        return [each for each in self.free(lane, catch_up_to) if each.lease_until is None]

    def _handle(self, command: Any) -> Any:
        match command:
            case ClaimDeliveries():
                return self._claim(command)
            case ReleaseDeliveries():
                for held in command.held:
                    self._void(self.deliveries[held.id], held.epoch)
            case RescueLanes():
                for each in self.deliveries.values():
                    if each.lease_until is not None and each.lease_until <= self._clock.now_ms():
                        self._void(each, each.epoch)
            case Record():
                self._record(command)
        return None

    def _void(self, one: Kept, epoch: int) -> None:
        if one.epoch == epoch and not one.ended:
            one.lease_until, one.epoch = None, epoch + 1

    def _record(self, attempt: Record) -> None:
        one = self.deliveries[attempt.delivery_id]
        if one.ended or not (attempt.delivered or one.epoch == attempt.epoch):
            return
        one.ended, one.ended_by, one.lease_until = attempt.delivered or attempt.dead, attempt.epoch, None
        if not one.ended:
            one.due_at, one.attempted_at, one.failed = attempt.due_at, attempt.at, one.failed + 1

    def _claim(self, command: ClaimDeliveries) -> ClaimedDeliveries:
        now = self._clock.now_ms()
        wishes = [*command.wishes, *self._due_wishes(command, now)]
        found = [each for wish in wishes for each in self._found(wish)]
        plan, given, cut = command.memory.plan(), list[Kept](), set[str]()
        for each in found:
            first = each.lane not in {one.lane for one in given}
            if each.lane in cut or not plan.has_room(each.account_id, each.event_id, len(each.body), first=first):
                cut.add(each.lane)
                continue
            given.append(each)
        rows = [self._row(each, now + command.lease_ms) for each in given]
        for each in given:
            each.epoch, each.lease_until = each.epoch + 1, now + command.lease_ms
        left = [each for wish in wishes for each in self.left(wish.lane, wish.catch_up_to)]
        for wish in wishes:
            self.rests.pop(wish.lane, None)
        self._claimed(wishes, given, left, cut)
        return ClaimedDeliveries(rows, wishes, {each.event_id: each.body for each in given}, frozenset(cut))

    def _due_wishes(self, command: ClaimDeliveries, now: int) -> list[Wish]:
        passed_over = {*command.full, *(wish.lane for wish in command.wishes)}
        narrow = {wish.lane: wish for wish in command.narrow}
        waiting = sorted(self.deliveries.values(), key=lambda each: each.due_at)
        due: list[Wish] = []
        for lane in dict.fromkeys(each.lane for each in waiting if each.is_free(now) and each.is_due(now)):
            if lane in passed_over or now < self.rests.get(lane, 0) or len(due) == command.due_lanes:
                continue
            wish = narrow.get(lane) or command.failing(lane)
            if isinstance(wish, int):
                self.rests[lane] = now + wish
            else:
                due.append(wish or Wish(lane, USUAL))
        each = max(1, min(USUAL, command.most // max(1, len(due))))
        return [replace(wish, count=min(each, wish.count)) for wish in due]

    def _found(self, wish: Wish) -> list[Kept]:
        first = [each for each in self.free(wish.lane) if each.id == wish.first]
        rest = sorted(self.free(wish.lane, wish.catch_up_to), key=lambda each: each.due_at)
        if wish.a_try:
            rest.sort(key=lambda each: (each.attempted_at is not None, each.due_at))
        return (first + [each for each in rest if each not in first])[: wish.count]

    @staticmethod
    def _row(one: Kept, until: int) -> dict[str, Any]:
        return {
            "id": one.id,
            "event_id": one.event_id,
            "account_id": one.account_id,
            "job_id": None,
            "lane": one.lane,
            "url": one.url,
            "subscription_id": one.lane if one.url is None else None,
            "attempt_count": one.failed,
            "schedule_base": 0,
            "lease_epoch": one.epoch,
            "due_at": one.due_at,
            "since": one.due_at,
            "give_up_at": None,
            "type": "job.completed",
            "lease_until": until,
            "at": 0,
        }
