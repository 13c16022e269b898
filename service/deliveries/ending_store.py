"""Ending deliveries that are not sent any more: those that their holder gives up, and what waited in vain for a destination."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial

from service.db.leases import RELEASED, STILL_HELD
from service.db.transaction import Tx, json_set
from service.db.writer import Command, Writer
from service.deliveries.claim_store import HeldDeliveries
from service.deliveries.store import settle_lanes


@dataclass(frozen=True, slots=True)
class EndDelivery(Command[None]):
    """End a delivery that its holder will not send any more: `dead`, or `skipped`."""

    held: HeldDeliveries
    status: str
    reason: str


async def handle_ends(tx: Tx, commands: Sequence[EndDelivery]) -> list[Exception | None]:
    """The writer's handler for `EndDelivery`."""
    tx.write(
        f"UPDATE deliveries SET status = :status, reason = :reason, finished_at = :now, due_at = NULL, {RELEASED} "
        f"WHERE id = :id AND status = 'pending' AND {STILL_HELD}",
        [
            {
                "id": each.held.id,
                "epoch": each.held.epoch,
                "status": each.status,
                "reason": each.reason,
                "now": tx.now_ms,
            }
            for each in commands
        ],
    )
    return [None for _ in commands]


@dataclass(frozen=True, slots=True)
class EndStale(Command[int]):
    """End what waited behind an open breaker for as long as its whole schedule; answered with how many.

    Args:
        lane: Of the destination that does not come back.
        since: What began before this moment (ms UTC) ends.
        limit: The most that end now.
    """

    lane: str
    since: int
    limit: int = 500

    def lock(self) -> Hashable | None:
        """Two of a lane must not count the same rows."""
        return ("stale", self.lane)


_STALE = """
SELECT id FROM deliveries WHERE lane = :lane AND status = 'pending' AND due_at <= :now AND lease_owner IS NULL
    AND coalesce(retried_at, created_at) < :since ORDER BY due_at LIMIT :limit
"""


_IS_EMPTY = "SELECT NOT EXISTS (SELECT 1 FROM deliveries WHERE lane = :lane AND status = 'pending') AS is_empty"


async def handle_stale(tx: Tx, commands: Sequence[EndStale], emptied: Callable[[str], None]) -> list[int | Exception]:
    """The writer's handler for `EndStale`."""
    counts: list[int | Exception] = []
    for each in commands:
        asked = {"lane": each.lane, "now": tx.now_ms, "since": each.since, "limit": each.limit}
        stale = [row["id"] for row in await tx.rows(_STALE, asked)]
        tx.write(
            "UPDATE deliveries SET status = 'dead', reason = 'destination_down', finished_at = :now, due_at = NULL "
            "WHERE id IN @set(:ids) AND status = 'pending' AND lease_owner IS NULL",
            [{"ids": json_set(stale), "now": tx.now_ms}] if stale else [],
        )
        settle_lanes(tx, [each.lane] if stale else [])
        [row] = await tx.rows(_IS_EMPTY, {"lane": each.lane})
        if row["is_empty"]:
            tx.after_commit(partial(emptied, each.lane))
        counts.append(len(stale))
    return counts


def register(writer: Writer, emptied: Callable[[str], None] = lambda _lane: None) -> None:
    """Name the handlers of this module's commands.

    Args:
        writer: Of the store.
        emptied: Told, once it is committed, of a lane with an open breaker for which nothing waits any more.
    """

    async def stale(tx: Tx, commands: Sequence[EndStale]) -> list[int | Exception]:
        return await handle_stale(tx, commands, emptied)

    writer.handle(EndDelivery, handle_ends)
    writer.handle(EndStale, stale)
