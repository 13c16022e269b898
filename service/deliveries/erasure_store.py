"""What is left of an erased job's deliveries: those that ended go, with their attempts; those that wait are never sent."""

from __future__ import annotations

from collections.abc import Sequence

from service.db.transaction import Tx, json_set

ERASED = "erased"  # the reason of a delivery that was not sent any more

_OF_JOBS = "SELECT id FROM deliveries WHERE job_id IN (SELECT value FROM json_each(:ids))"
_ERASE = (
    # An answer may repeat what it was sent.
    f"DELETE FROM attempts WHERE delivery_id IN ({_OF_JOBS})",
    "DELETE FROM deliveries WHERE job_id IN (SELECT value FROM json_each(:ids)) AND status <> 'pending'",
    """
UPDATE deliveries SET status = 'skipped', reason = 'erased', finished_at = :now, due_at = NULL, lease_owner = NULL,
    lease_until = NULL, lease_epoch = lease_epoch + 1
WHERE job_id IN (SELECT value FROM json_each(:ids)) AND status = 'pending'
""",
)


async def erase(tx: Tx, job_ids: Sequence[str]) -> None:
    """Let go of what was sent of these jobs; see `jobs.erase`."""
    for statement in _ERASE:
        tx.write(statement, [{"ids": json_set(job_ids), "now": tx.now_ms}])
