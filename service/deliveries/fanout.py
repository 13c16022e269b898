"""Which destinations an event goes to: the follower that writes one delivery for each, in the event's own transaction.

Where there are thousands, that transaction says whose turn comes later, and each further part of them has one of its own
(docs/decisions/0010-fan-out-in-parts.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import msgspec

from service.db.transaction import Params, Row, Tx
from service.deliveries import fanout_store, store
from service.deliveries.fanout_store import WriteFanoutPart
from service.deliveries.lanes.lanes import Lanes
from service.deliveries.lanes.queue import Sending
from service.events.feed import Hub
from service.ids import Ids
from service.jobs.state_events import StateEvent
from service.states import FINAL_EVENT_TYPES
from service.subscriptions.destinations import DestinationCache
from service.subscriptions.matching import Index
from service.subscriptions.snapshots import Destination

PART: Final = 1_000  # deliveries of one event that one transaction writes: some 55 ms, for which all others wait
AT_ONCE: Final = 256  # deliveries that are made, or begun, before others have their turn: some 5 ms


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An event that was just written, and what is needed to find its destinations."""

    event_id: str
    account_id: str
    job_id: str | None
    type: str
    at: int
    body: bytes
    provider: str | None = None
    operation: str | None = None
    tags: frozenset[str] = frozenset()
    callback_url: str | None = None
    callback_types: frozenset[str] = frozenset(FINAL_EVENT_TYPES)
    only_subscription: str | None = None  # a ping goes to one subscription, enabled or not filtered
    results_expire_at: int | None = None  # ms UTC: the first of the results that the event speaks of


@dataclass(frozen=True, slots=True)
class _Target:
    lane: str
    max_in_flight: int
    rate_per_s: float | None = None
    url: str | None = None
    subscription_id: str | None = None
    stop_at_expiry: bool = False


#: An event, who gets it now, and which disabled ones miss it.
_Part = tuple[Outgoing, list[_Target], list[Destination]]


@dataclass(slots=True)
class Fanout:
    """Writes deliveries; those for which a lane has room are born leased and sent from memory after the commit."""

    ids: Ids
    cache: DestinationCache
    lanes: Lanes
    owner: str
    lease_ms: int
    hub: Hub = field(default_factory=Hub)

    async def follow(self, tx: Tx, events: Sequence[StateEvent]) -> None:
        """The tracker's follower."""
        await self.add(tx, [_outgoing(event) for event in events])

    async def add(self, tx: Tx, events: Sequence[Outgoing]) -> None:
        """Write the deliveries of these events."""
        accounts = {event.account_id for event in events}
        tx.after_numbered(lambda: self.hub.published(accounts))
        subscriptions = await self.cache.of(tx, accounts)
        await self.lanes.origins.load(
            tx, [(each.account_id, each.callback_url) for each in events if each.callback_url]
        )
        parts: list[_Part] = []
        for event in events:
            own = self._own(event)
            wanting = _wanting(event, subscriptions[event.account_id].enabled)
            missing = _wanting(event, subscriptions[event.account_id].disabled)
            room = PART - len(own)
            now, missed = wanting[:room], missing[: max(0, room - len(wanting))]
            parts.append((event, own + [_standing(each) for each in now], missed))
            if later := [each.id for each in wanting[len(now) :] + missing[len(missed) :]]:
                fanout_store.leave(tx, event.event_id, event.account_id, later, event.results_expire_at, part=PART)
        await self._write(tx, parts)

    async def write_later(self, tx: Tx, commands: Sequence[WriteFanoutPart]) -> list[bool | Exception]:
        """The writer's handler: another part, of those who are still there. A replay may have been before us."""
        row = await fanout_store.take(tx)
        if row is None:
            return [False] * len(commands)
        if row["body"] is not None:  # it has gone already, after the service was away for days
            await self._write_part(tx, _event_of(row), msgspec.json.decode(row["subscription_ids"], type=list[str]))
        return [True] * len(commands)

    async def _write_part(self, tx: Tx, event: Outgoing, subscription_ids: Sequence[str]) -> None:
        had = await fanout_store.had(tx, event.event_id, subscription_ids)
        ids = [each for each in subscription_ids if each not in had]
        subscriptions = (await self.cache.of(tx, {event.account_id}))[event.account_id]
        targets = [_standing(each) for subscription_id in ids for each in subscriptions.enabled.only(subscription_id)]
        missed = [each for subscription_id in ids for each in subscriptions.disabled.only(subscription_id)]
        await self._write(tx, [(event, targets, missed)])

    async def _write(self, tx: Tx, parts: Sequence[_Part]) -> None:
        held: list[Sending] = []
        left: list[Sending] = []
        tx.on_rollback(partial(self._release, held))
        tx.after_commit(partial(self._give, held, left))
        rows: list[Params] = []
        pause = AT_ONCE
        for event, targets, missed in parts:
            for target in targets:
                rows.append(self._row(tx, event, target, held, left))
                if len(rows) == pause:
                    pause += AT_ONCE
                    await asyncio.sleep(0)
            rows += [self._skipped(tx, event, each) for each in missed]
            pause = max(pause, len(rows) + 1)
        store.insert(tx, rows)
        unowned = {
            each.lane: {"lane": each.lane, "account_id": each.account_id, "due_at": each.due_at} for each in left
        }
        store.wake_lanes(tx, list(unowned.values()))

    def _release(self, held: Sequence[Sending]) -> None:
        for sending in held:
            self.lanes.release(sending)

    def _give(self, held: Sequence[Sending], left: Sequence[Sending], start: int = 0) -> None:
        """Some begin now, and the others have their turn when the event loop has seen to everybody else."""
        for sending in held[start : start + AT_ONCE]:
            self.lanes.give(sending)
        for sending in left[start : start + AT_ONCE]:
            self.lanes.left_in_store(sending.lane)
        if max(len(held), len(left)) > start + AT_ONCE:
            asyncio.get_running_loop().call_soon(self._give, held, left, start + AT_ONCE)

    def _own(self, event: Outgoing) -> list[_Target]:
        """The destination that a job brought with it, if it did."""
        if event.callback_url is None or event.type not in event.callback_types:
            return []
        lane = self.lanes.origins.lane(event.account_id, event.callback_url)
        return [_Target(lane, self.lanes.origins.limit(lane), url=event.callback_url)]

    def _row(self, tx: Tx, event: Outgoing, target: _Target, held: list[Sending], left: list[Sending]) -> Params:
        sending = Sending(
            delivery_id=self.ids.new("dlv"),
            event_id=event.event_id,
            account_id=event.account_id,
            lane=target.lane,
            body=event.body,
            event_at=event.at,
            epoch=1,
            lease_until=tx.now_ms + self.lease_ms,
            url=target.url,
            subscription_id=target.subscription_id,
            failed_before=0,
            max_in_flight=target.max_in_flight,
            job_id=event.job_id,
            event_type=event.type,
            rate_per_s=target.rate_per_s,
            due_at=tx.now_ms,
            since=tx.now_ms,
            give_up_at=event.results_expire_at if target.stop_at_expiry else None,
            urgent=event.only_subscription is not None,
        )
        row = _delivery(sending.delivery_id, event, target, tx.now_ms)
        if self.lanes.reserve(sending):
            held.append(sending)
            row |= {"lease_owner": self.owner, "lease_until": sending.lease_until, "lease_epoch": 1}
        else:
            left.append(sending)
        return row

    def _skipped(self, tx: Tx, event: Outgoing, destination: Destination) -> Params:
        """What a disabled subscription misses is kept, so that it can be replayed."""
        target = _Target(destination.id, destination.max_in_flight, subscription_id=destination.id)
        row = _delivery(self.ids.new("dlv"), event, target, tx.now_ms)
        ended = {"status": "skipped", "reason": "subscription_disabled", "finished_at": tx.now_ms}
        return row | ended | {"due_at": None, "give_up_at": None}


def _standing(destination: Destination) -> _Target:
    return _Target(
        destination.id,
        destination.max_in_flight,
        destination.rate_per_s,
        subscription_id=destination.id,
        stop_at_expiry=destination.stop_at_expiry,
    )


def _event_of(row: Row) -> Outgoing:
    return Outgoing(
        event_id=row["event_id"],
        account_id=row["account_id"],
        job_id=row["job_id"],
        type=row["type"],
        at=row["at"],
        body=row["body"],
        results_expire_at=row["results_expire_at"],
    )


def _delivery(delivery_id: str, event: Outgoing, target: _Target, now_ms: int) -> dict[str, Any]:
    return {
        "id": delivery_id,
        "event_id": event.event_id,
        "account_id": event.account_id,
        "job_id": event.job_id,
        "type": event.type,
        "subscription_id": target.subscription_id,
        "lane": target.lane,
        "url": target.url,
        "status": "pending",
        "created_at": now_ms,
        "due_at": now_ms,
        "finished_at": None,
        "reason": None,
        "give_up_at": event.results_expire_at if target.stop_at_expiry else None,
        "lease_owner": None,
        "lease_until": None,
        "lease_epoch": 0,
    }


def _outgoing(event: StateEvent) -> Outgoing:
    job = event.job
    types = frozenset(msgspec.json.decode(job.callback_events)) if job.callback_events else frozenset(FINAL_EVENT_TYPES)
    return Outgoing(
        event_id=event.id,
        account_id=job.account_id,
        job_id=job.id,
        type=event.type,
        at=event.at,
        body=event.body,
        provider=job.provider,
        operation=job.operation,
        tags=frozenset(msgspec.json.decode(job.tags)) if job.tags != "[]" else frozenset(),
        callback_url=job.callback_url,
        callback_types=types,
        results_expire_at=event.results_expire_at,
    )


def _wanting(event: Outgoing, destinations: Index[Destination]) -> list[Destination]:
    if event.only_subscription is not None:
        return destinations.only(event.only_subscription)
    return destinations.wanting(event.type, event.provider, event.operation, event.tags)
