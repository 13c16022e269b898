"""The use cases of replays: what a caller may ask for, counting it, beginning it, and telling how far it is.

What a replay does to the store stands in `replay_store`, which events it means in `replay_queries`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from service.clock import Clock, iso
from service.db.reader import Reader
from service.db.transaction import Row
from service.db.writer import Writer
from service.deliveries.replays import replay_queries
from service.deliveries.replays.replay_claim_store import PENDING
from service.deliveries.replays.replay_queries import ReplaySelection
from service.deliveries.replays.replay_store import AdvanceReplay, CancelReplay, StartReplay, no_replay
from service.deliveries.subscribing.changes import no_subscription
from service.errors import FieldError, Invalid
from service.ids import Ids
from service.schemas.delivery_schemas import ReplayCountView, ReplayRequest, ReplayView

BATCH: Final = 500  # deliveries that one command queues


@dataclass(frozen=True, slots=True)
class ReplayRange:
    """Which events a replay is about.

    Args:
        since: The first moment, ms UTC.
        until: The moment at which the range is over; never in the future.
        types: Of events; empty: the subscription's own.
        statuses: What became of them here; empty: all but pending.
        dry_run: Only count.
    """

    since: int
    until: int
    types: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    dry_run: bool = False


def bounded(asked: ReplayRequest, now_ms: int) -> ReplayRange:
    """The range that is asked for; it ends now at the latest.

    Raises:
        Invalid: It is empty.
    """
    until = now_ms if asked.until is None else min(asked.until, now_ms)
    if asked.since >= until:
        raise Invalid.of([FieldError("/since", "must be before until, and in the past")])
    return ReplayRange(asked.since, until, asked.types or (), asked.status or (), asked.dry_run is True)


@dataclass(frozen=True, slots=True)
class Replays:
    """Everything is answered as JSON values; NotFound for what is another account's."""

    writer: Writer
    reader: Reader
    ids: Ids
    clock: Clock

    async def start(self, account_id: str, subscription_id: str, asked: ReplayRange) -> ReplayView:
        """Begin a replay; answered with it.

        Raises:
            Conflict: The subscription is disabled, or too many replays run.
        """
        await self._wanted(account_id, subscription_id, asked)  # before anything is counted for somebody without one
        first, last = await replay_queries.span(self.reader, account_id, asked.since, asked.until)
        total = await replay_queries.total(
            self.reader, account_id, since=asked.since, until=asked.until, first_pos=first, last_pos=last
        )
        replay_id = self.ids.new("rpl")
        await self.writer.run(
            StartReplay(
                replay_id=replay_id,
                account_id=account_id,
                subscription_id=subscription_id,
                since=asked.since,
                until=asked.until,
                types=msgspec.json.encode(asked.types).decode(),
                statuses=msgspec.json.encode(asked.statuses).decode(),
                first_pos=first,
                last_pos=last,
                total=total,
            )
        )
        return await self.show(account_id, replay_id)

    async def count(self, account_id: str, subscription_id: str, asked: ReplayRange) -> ReplayCountView:
        """What a replay would queue now; nothing is written."""
        meant = await self._wanted(account_id, subscription_id, asked)
        first, last = await replay_queries.span(self.reader, account_id, asked.since, asked.until)
        counted = await replay_queries.count(self.reader, meant, first, last)
        return {
            "dry_run": True,
            "count": counted.total(),
            "by_status": {each: counted[each] for each in meant.statuses},
            "subscription_id": subscription_id,
            "since": iso(asked.since),
            "until": iso(asked.until),
            "types": meant.types,
            "statuses": meant.statuses,
        }

    async def show(self, account_id: str, replay_id: str) -> ReplayView:
        """One replay."""
        found = await replay_queries.find_replay(self.reader, account_id, replay_id)
        if found is None:
            raise no_replay()
        return found

    async def cancel(self, account_id: str, replay_id: str) -> ReplayView:
        """End a replay early; what it queued is sent.

        Raises:
            Conflict: It is done.
        """
        await self.writer.run(CancelReplay(replay_id, account_id))
        return await self.show(account_id, replay_id)

    async def _wanted(self, account_id: str, subscription_id: str, asked: ReplayRange) -> ReplaySelection:
        row = await replay_queries.filters_of(self.reader, account_id, subscription_id)
        if row is None:
            raise no_subscription()
        return replay_queries.wanted(
            row, since=asked.since, until=asked.until, types=asked.types, statuses=asked.statuses
        )


async def next_batch(reader: Reader, claimed: Row) -> AdvanceReplay:
    """What a claimed replay does next, under the claim's epoch: a batch, or nothing where it has to wait.

    Args:
        reader: Of the store.
        claimed: The row that the claim gave.
    """
    epoch = claimed["lease_epoch"]
    most = min(BATCH, PENDING - claimed["pending"])
    if claimed["subscription"] != "enabled" or most <= 0:
        return AdvanceReplay(claimed["id"], epoch)
    meant = replay_queries.wanted(
        claimed,
        since=claimed["since"],
        until=claimed["until"],
        types=tuple(msgspec.json.decode(claimed["types"], type=list[str])),
        statuses=tuple(msgspec.json.decode(claimed["statuses"], type=list[str])),
        of="subscription_id",
    )
    look = await replay_queries.look(reader, meant, claimed["next_pos"], claimed["last_pos"], most)
    return AdvanceReplay(claimed["id"], epoch, look.found, look.looked_at, look.next_pos)
