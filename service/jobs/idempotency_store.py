"""Idempotency keys: which job a key was used for first, and what was answered then. An account's keys are its own.

It must not know what a job is made of: an answer is bytes, and a body is its hash.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from service.db.reader import Reader
from service.db.transaction import Row, Tx, json_set

KEY_LIFE_MS: Final = 24 * 3_600_000  # a key is remembered for a day

_FIND: Final = """
SELECT account_id, key, body_hash, job_id, answer FROM idempotency
WHERE (account_id, key) IN (SELECT p.account_id, p.key FROM @tuples(:pairs, account_id text, key text) p)
    AND expires_at > :now
"""
_FIND_ONE: Final = """
SELECT body_hash, job_id, answer FROM idempotency WHERE account_id = :account AND key = :key AND expires_at > :now
"""
_REMEMBER: Final = """
INSERT INTO idempotency (account_id, key, body_hash, job_id, answer, expires_at)
@rows(:account_id, :key, :body_hash, :job_id, :answer, :expires_at)
ON CONFLICT (account_id, key) DO UPDATE SET body_hash = excluded.body_hash, job_id = excluded.job_id, answer = excluded.answer,
    expires_at = excluded.expires_at
"""


@dataclass(frozen=True, slots=True)
class FirstUse:
    """A key that was used for the first time, and what came of it."""

    account_id: str
    key: str
    body_hash: bytes
    job_id: str
    answer: bytes


async def first_use(reader: Reader, account_id: str, key: str, now_ms: int) -> Row | None:
    """The first use of a key that is still remembered: `body_hash`, `job_id`, `answer`."""
    return await reader.row(_FIND_ONE, {"account": account_id, "key": key, "now": now_ms})


async def first_uses(tx: Tx, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Row]:
    """The first uses of pairs of account and key, by pair."""
    if not pairs:
        return {}
    found = await tx.rows(_FIND, {"pairs": json_set(pairs), "now": tx.now_ms})
    return {(row["account_id"], row["key"]): row for row in found}


def remember(tx: Tx, uses: Iterable[FirstUse]) -> None:
    """Remember first uses, for a day."""
    tx.write(
        _REMEMBER,
        [
            {
                "account_id": use.account_id,
                "key": use.key,
                "body_hash": use.body_hash,
                "job_id": use.job_id,
                "answer": use.answer,
                "expires_at": tx.now_ms + KEY_LIFE_MS,
            }
            for use in uses
        ],
    )
