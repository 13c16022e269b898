"""Filling lanes from the store: what is due and nobody's is claimed for the lanes that have room.

Lanes that run empty ask for more and are filled at once; whatever else is due is found by a tick. Must not know how a
delivery is sent.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final, Protocol

import structlog

from service.db.transaction import Row
from service.db.writer import Writer
from service.deliveries.claim_store import (
    LANES_AT_ONCE,
    PER_LANE,
    ClaimDeliveries,
    HeldDeliveries,
    ReleaseDeliveries,
    Wish,
)
from service.deliveries.lanes.lane_names import IN_FLIGHT
from service.deliveries.lanes.lanes import Lanes
from service.deliveries.lanes.queue import Sending
from service.deliveries.rescue_store import RescueLanes, VoidDeliveryLeases
from service.errors import StoreUnavailable
from service.subscriptions.snapshots import Destination

HUNGRY_AT_ONCE: Final = 256  # lanes that one claim fills: an event may have left something in thousands

_log = structlog.get_logger(__name__)


class DestinationDirectory(Protocol):
    """Where the limits of standing destinations are looked up."""

    async def destination(self, account_id: str, subscription_id: str) -> Destination | None:
        """The subscription as it is now; None if it was deleted or disabled."""


class Refill:
    """Fills lanes; one for a process.

    Args:
        writer: Of the store.
        directory: Knows the subscriptions.
        lanes: To be filled.
        owner: Who leases, by name.
        lease_ms: For how long.
    """

    def __init__(
        self, writer: Writer, directory: DestinationDirectory, lanes: Lanes, owner: str, lease_ms: int
    ) -> None:
        self._writer = writer
        self._directory = directory
        self._lanes = lanes
        self._owner = owner
        self._lease_ms = lease_ms
        self._given_back: list[Sending] = []
        self._refiller: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Void what an earlier process held, and begin to refill lanes as they run empty."""
        for lane_id in await self._writer.void(VoidDeliveryLeases(), []):
            self._lanes.breakers.suspect(lane_id)
        self._refiller = asyncio.create_task(self._refill_forever(), name="lane-refiller")

    async def stop(self) -> None:
        """Fill no lane any more."""
        if self._refiller is not None:
            self._refiller.cancel()
            await asyncio.gather(self._refiller, return_exceptions=True)

    async def run_once(self) -> int:
        """Claim whatever lanes are due, those with lapsed leases too; returns how many deliveries were taken."""
        await self._writer.run(RescueLanes())
        self._lanes.forget_idle()
        if self._lanes.hungry:
            self._lanes.wake_refill.set()  # the store did not take it the last time
        return await self._claim((), due_lanes=LANES_AT_ONCE)

    async def _refill_forever(self) -> None:
        while True:
            await self._lanes.wake_refill.wait()
            self._lanes.wake_refill.clear()
            hungry = sorted(self._lanes.hungry)[:HUNGRY_AT_ONCE]
            self._lanes.hungry.difference_update(hungry)
            try:
                await self._leave_in_store()
                await self._claim(self._wish(hungry))
                if self._lanes.hungry:
                    self._lanes.wake_refill.set()
            except StoreUnavailable as error:
                self._lanes.hungry.update(hungry)
                _log.warning("refill_failed", error=str(error))  # the rescuer's tick comes back to these lanes
            except Exception:  # the loop's outermost guard: lanes would run empty for ever
                self._lanes.hungry.update(hungry)
                _log.exception("refill_broke")

    def _wish(self, lanes: Iterable[str]) -> tuple[Wish, ...]:
        wishes = [Wish(each, *self._lanes.wants(each)) for each in lanes]
        for wish in wishes:
            if not wish.count:
                self._lanes.turned_away(wish.lane)
        return tuple(wish for wish in wishes if wish.count)

    def _failing(self, lane: str) -> Wish | int | None:
        """See `ClaimDeliveries`."""
        if not self._lanes.breakers.is_open(lane):
            return None
        wish = Wish(lane, *self._lanes.wants(lane))
        return wish if wish.count else self._lanes.breakers.rests_ms(lane)

    async def _claim(self, wishes: tuple[Wish, ...], *, due_lanes: int = 0) -> int:
        """Claim for the lanes that wish, and for as many due ones, and hand it to them."""
        if not wishes and not (due_lanes and self._lanes.left()):
            return 0
        command = ClaimDeliveries(self._owner, self._lease_ms, wishes, due_lanes, memory=self._lanes.memory)
        if due_lanes:
            rooms = self._lanes.rooms(PER_LANE)
            full = tuple(lane for lane, room in rooms.items() if not room)
            narrow = self._wish(lane for lane, room in rooms.items() if room)
            command = replace(command, full=full, narrow=narrow, most=self._lanes.left(), failing=self._failing)
        stamp = self._lanes.stamp()
        claimed = await self._writer.run(command)
        taken = Counter(row["lane"] for row in claimed.rows)
        for row in claimed.rows:
            self._lanes.give(await self._sending(row, claimed.bodies[row["event_id"]]), reserved=False)
        for wish in claimed.wishes:
            more = taken[wish.lane] >= wish.count or wish.lane in claimed.cut
            self._lanes.refilled(wish.lane, more=more, stamp=stamp, caught_up_to=wish.catch_up_to)
        return len(claimed.rows)

    def take_back(self, given_back: Sequence[Sending]) -> None:
        """These will not be sent from here for now."""
        self._given_back += given_back
        self._lanes.wake_refill.set()

    async def _leave_in_store(self) -> None:
        """What lanes gave back is nobody's again; where the store does not take that now, its lease runs out."""
        given_back, self._given_back = self._given_back, []
        if not given_back:
            return
        try:
            await self._writer.run(ReleaseDeliveries(tuple(map(HeldDeliveries.of, given_back))))
        except StoreUnavailable as error:
            _log.warning("deliveries_not_given_back", deliveries=len(given_back), error=str(error))

    async def _sending(self, row: Row, body: bytes) -> Sending:
        max_in_flight, rate_per_s = IN_FLIGHT, None
        if row["subscription_id"] is None:
            max_in_flight = self._lanes.origins.limit(row["lane"])
        else:
            destination = await self._directory.destination(row["account_id"], row["subscription_id"])
            if destination is not None:
                max_in_flight, rate_per_s = destination.max_in_flight, destination.rate_per_s
        return Sending(
            delivery_id=row["id"],
            event_id=row["event_id"],
            account_id=row["account_id"],
            lane=row["lane"],
            body=body,
            event_at=row["at"],
            epoch=row["lease_epoch"] + 1,
            lease_until=row["lease_until"],
            url=row["url"],
            subscription_id=row["subscription_id"],
            failed_before=row["attempt_count"] - row["schedule_base"],
            max_in_flight=max_in_flight,
            job_id=row["job_id"],
            event_type=row["type"],
            attempts=row["attempt_count"],
            rate_per_s=rate_per_s,
            due_at=row["due_at"],
            since=row["since"],
            give_up_at=row["give_up_at"],
        )
