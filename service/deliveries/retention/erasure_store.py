"""What is left of an erased job's deliveries: those that ended go, with their attempts; those that wait are never sent."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from service.db.leases import VOID
from service.db.transaction import Tx, json_set
from service.deliveries.retention.recalled import Recalled

ERASED = "erased"  # the reason of a delivery that was not sent any more

# What ended longer ago than a lease lasts is in nobody's hands.
_MAY_BE_HELD = """
SELECT DISTINCT event_id AS id FROM deliveries
WHERE job_id IN @set(:ids) AND (finished_at IS NULL OR finished_at >= :since)
"""
_OF_JOBS = "SELECT id FROM deliveries WHERE job_id IN @set(:ids)"
_ERASE = (
    """
DELETE FROM fanouts
WHERE event_id IN (SELECT id FROM events WHERE job_id IN @set(:ids))
""",
    # An answer may repeat what it was sent.
    f"DELETE FROM attempts WHERE delivery_id IN ({_OF_JOBS})",
    "DELETE FROM deliveries WHERE job_id IN @set(:ids) AND status <> 'pending'",
    f"""
UPDATE deliveries SET status = 'skipped', reason = 'erased', finished_at = :now, due_at = NULL, {VOID}
WHERE job_id IN @set(:ids) AND status = 'pending'
""",
)


async def erase(tx: Tx, job_ids: Sequence[str], *, recalled: Recalled) -> None:
    """Let go of what was sent of these jobs, and have what waits in memory not sent; see `jobs.erase`."""
    asked = {"ids": json_set(job_ids), "since": tx.now_ms - recalled.lease_ms}
    held = [row["id"] for row in await tx.rows(_MAY_BE_HELD, asked)]
    tx.after_commit(partial(recalled.add, held, tx.now_ms))
    for statement in _ERASE:
        tx.write(statement, [{"ids": json_set(job_ids), "now": tx.now_ms}])
