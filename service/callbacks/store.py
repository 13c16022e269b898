"""The SQL of callbacks: the submissions that they name, and what is kept of them. It must not know what a body says."""

from __future__ import annotations

from collections.abc import Sequence

from service.db.transaction import Params, Row, Tx

MAX_BODIES = 100  # distinct ones kept for a submission

_FIND_SUBMISSION = """
SELECT s.id, s.job_id, s.provider, s.provider_task_id, s.token_hash, j.operation, j.erased_at
FROM submissions s JOIN jobs j ON j.id = s.job_id WHERE s.token_hash = :hash
"""
_OTHER_HOLDER = """
SELECT provider, provider_task_id FROM submissions
WHERE provider = :provider AND provider_task_id = :task_id AND id <> :id LIMIT 1
"""
# The same body again is counted only; the hundred-and-first distinct one is not kept, but still heard.
_KEEP = f"""
INSERT INTO callbacks (submission_id, received_at, body, body_hash, content_type, copies)
SELECT @typed(:submission_id, text), @typed(:received_at, bigint), @typed(:body, bytea), @typed(:body_hash, bytea),
    @typed(:content_type, text), 1
WHERE (SELECT count(*) FROM callbacks WHERE submission_id = :submission_id) < {MAX_BODIES}
ON CONFLICT (submission_id, body_hash) DO UPDATE SET copies = callbacks.copies + 1
"""


async def submissions(tx: Tx, token_hashes: Sequence[bytes]) -> dict[bytes, Row]:
    """The submissions that have these tokens, by the token's hash."""
    found = await tx.rows_each(_FIND_SUBMISSION, [{"hash": each} for each in token_hashes])
    return {bytes(row["token_hash"]): row for row in found}


async def taken_ids(tx: Tx, asked: Sequence[Params]) -> set[tuple[str, str]]:
    """Of these providers and task ids those that another submission has than the one named with them."""
    found = await tx.rows_each(_OTHER_HOLDER, asked)
    return {(row["provider"], row["provider_task_id"]) for row in found}


def keep(tx: Tx, callbacks: Sequence[Params]) -> None:
    """Write callbacks, each distinct body of a submission once."""
    tx.write(_KEEP, callbacks)
