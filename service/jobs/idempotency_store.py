"""Idempotency keys: which job a key was used for first, and what was answered then. An account's keys are its own.

It must not know what a job is made of: an answer is bytes, and a body is its hash.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from service.db.reader import Reader
from service.db.transaction import Row, Tx, json_set
from service.errors import Malformed
from service.providers.documents.longtexts import encoded

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

_KEY: Final = re.compile(r"[\x21\x23-\x7e]{1,255}")


def idempotency_key(header: str | None) -> str | None:
    """The key of an `Idempotency-Key` header; quoted and bare keys are the same key.

    Raises:
        Malformed: It is empty, longer than 255 characters, or not visible ASCII.
    """
    if header is None:
        return None
    key = header.strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not _KEY.fullmatch(key):
        msg = "Idempotency-Key must be 1 to 255 visible ASCII characters without quotes or blanks inside"
        raise Malformed(msg, code="idempotency_key_invalid")
    return key


def body_hash(body: object) -> bytes:
    """The same for two bodies that say the same, in whatever order."""
    return hashlib.sha256(encoded(body, "deterministic")).digest()


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
