"""Leases of deliveries whose holder is gone: those that ran out are taken up again, and at a start on SQLite all are void.

It must not know how a delivery is claimed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.db.leases import LAPSED, VOID
from service.db.transaction import Tx
from service.db.writer import Command, Writer
from service.deliveries.lanes.lane_breaker import MAX_REMEMBERED
from service.deliveries.store import wake_lanes


@dataclass(frozen=True, slots=True)
class RescueLanes(Command[None]):
    """Wake the lanes of deliveries whose holder let the lease run out."""


async def handle_rescues(tx: Tx, commands: Sequence[RescueLanes]) -> list[Exception | None]:
    """The writer's handler for `RescueLanes`."""
    lapsed = await tx.rows(
        f"SELECT lane, account_id, min(due_at) AS due_at FROM deliveries WHERE {LAPSED} GROUP BY lane, account_id",
        {"now": tx.now_ms},
    )
    tx.write(
        f"UPDATE deliveries SET {VOID} WHERE {LAPSED}",
        [{"now": tx.now_ms}] if lapsed else [],
    )
    wake_lanes(tx, [dict(row) for row in lapsed])
    return [None for _ in commands]


@dataclass(frozen=True, slots=True)
class VoidDeliveryLeases(Command[list[str]]):
    """At start on SQLite every lease is void, and lanes are counted anew; answered with those that failed before."""


async def handle_void(tx: Tx, commands: Sequence[VoidDeliveryLeases]) -> list[list[str] | Exception]:
    """The writer's handler for `VoidDeliveryLeases`."""
    tx.write(
        f"UPDATE deliveries SET {VOID} WHERE lease_until IS NOT NULL",
        [{}],
    )
    tx.write("DELETE FROM lanes", [{}])
    tx.write(
        "INSERT INTO lanes (id, account_id, next_due_at) "
        "SELECT lane, min(account_id), min(due_at) FROM deliveries WHERE status = 'pending' GROUP BY lane",
        [{}],
    )
    failed = await tx.rows(
        "SELECT DISTINCT lane FROM deliveries WHERE status = 'pending' AND attempted_at IS NOT NULL LIMIT :most",
        {"most": MAX_REMEMBERED},
    )
    return [[row["lane"] for row in failed] for _ in commands]


def register(writer: Writer) -> None:
    """Name the handlers of this module's commands."""
    writer.handle(RescueLanes, handle_rescues)
    writer.handle(VoidDeliveryLeases, handle_void)
