"""The SQL that changes subscriptions, skips what they were to have, and writes the events that are about them.

When which of it happens stands in `changes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from service.db.leases import VOID
from service.db.transaction import Params, Row, Tx, json_set
from service.deliveries.store import settle_lanes
from service.schemas.subscription_schemas import SubscriptionChangeRequest

SKIPPED_AT_ONCE: Final = 2_000  # deliveries, in the transaction that disables or deletes

_FIND: Final = """
SELECT id, account_id, url, description, status, failing_since, last_failure_at FROM subscriptions
WHERE id IN @set(:ids)
"""
_COUNT: Final = """
SELECT account_id, count(*) AS n FROM subscriptions WHERE account_id IN @set(:accounts) GROUP BY account_id
"""
#: What a caller can set: columns of the same names.
FIELDS: Final = tuple(SubscriptionChangeRequest.model_fields)
_INSERT: Final = f"""
INSERT INTO subscriptions (id, account_id, {", ".join(FIELDS)}, status, secret, signing_key, created_at)
@rows(:id, :account_id, {", ".join(":" + name for name in FIELDS)}, 'enabled', :secret, :signing_key, :now)
"""
#: What an old address did is not held against the new one.
_UNTRIED: Final = ", failing_since = NULL, last_failure_at = NULL"
#: Headers were given for an origin: they may hold what must not be told to another one.
_UNNAMED: Final = ", headers = NULL"
_ADD_KEY: Final = "UPDATE subscriptions SET signing_key = :signing_key WHERE id = :id AND signing_key IS NULL"
# The expressions see the row as it was: the secret that is replaced becomes the previous one. A key is replaced with it,
# also one that does not sign at the moment, and none is made.
_ROTATE: Final = """
UPDATE subscriptions SET previous_secret = CASE WHEN @typed(:grace_ms, bigint) > 0 THEN secret END,
    previous_signing_key = CASE WHEN :grace_ms > 0 THEN signing_key END,
    previous_secret_until = CASE WHEN :grace_ms > 0 THEN @typed(:now, bigint) + :grace_ms END, secret = :secret,
    signing_key = CASE WHEN signing_key IS NOT NULL THEN @typed(:signing_key, bytea) END
WHERE id = :id
"""
_ENABLE: Final = """
UPDATE subscriptions SET status = 'enabled', disabled_reason = NULL, failing_since = NULL WHERE id = :id AND status = 'disabled'
"""
_DISABLE: Final = """
UPDATE subscriptions SET status = 'disabled', disabled_reason = :reason WHERE id = :id AND status = 'enabled'
"""
# A subscription's lane has its id, so that this walks the index for claims. The epoch leaves a request that is out
# without a say, unless it arrived.
_SKIP: Final = f"""
UPDATE deliveries SET status = 'skipped', reason = :reason, finished_at = :now, due_at = NULL, {VOID}
WHERE id IN (SELECT id FROM deliveries WHERE lane = :id AND status = 'pending' ORDER BY due_at LIMIT :count)
"""
_INSERT_EVENT: Final = """
INSERT INTO events (id, account_id, job_id, seq, type, source, at, detail, pos, body)
@rows(:id, :account_id, NULL, 0, :type, :source, :at, NULL, :pos, :body)
"""


async def find(tx: Tx, subscription_ids: Iterable[str]) -> list[Row]:
    """Those of these subscriptions that there are, of whichever account."""
    return await tx.rows(_FIND, {"ids": json_set(subscription_ids)})


async def counts(tx: Tx, account_ids: Iterable[str]) -> dict[str, int]:
    """How many subscriptions these accounts have, by account; one that has none is left out."""
    return {row["account_id"]: row["n"] for row in await tx.rows(_COUNT, {"accounts": json_set(account_ids)})}


def insert(tx: Tx, rows: Sequence[Params]) -> None:
    """Write new subscriptions."""
    tx.write(_INSERT, rows, expect=len(rows))


def update(tx: Tx, columns: Iterable[str], row: Params, *, untried: bool, unnamed: bool) -> None:
    """Change these columns of one subscription.

    Args:
        tx: Of the writer.
        columns: As the table names them.
        row: Their values, and the `id`.
        untried: Whether it leads to another address.
        unnamed: Whether its headers go.
    """
    changes = ", ".join(f"{name} = :{name}" for name in columns)
    if untried:
        changes += _UNTRIED
    if unnamed:
        changes += _UNNAMED
    tx.write(f"UPDATE subscriptions SET {changes} WHERE id = :id", [row], expect=1)


def add_key(tx: Tx, subscription_id: str, sealed_seed: bytes) -> None:
    """Give a key to a subscription that has none."""
    tx.write(_ADD_KEY, [{"id": subscription_id, "signing_key": sealed_seed}])


def delete(tx: Tx, subscription_ids: Iterable[str]) -> None:
    """Remove subscriptions that are there."""
    gone = [{"id": each} for each in subscription_ids]
    tx.write("DELETE FROM subscriptions WHERE id = :id", gone, expect=len(gone))


def enable(tx: Tx, subscription_ids: Iterable[str]) -> None:
    """Enable those that are disabled."""
    tx.write(_ENABLE, [{"id": each} for each in subscription_ids])


def disable(tx: Tx, ended: Sequence[Params]) -> None:
    """Disable enabled ones (`id`), each for its `reason`."""
    tx.write(_DISABLE, ended, expect=len(ended))


def rotate(tx: Tx, replaced: Sequence[Params]) -> None:
    """Replace secrets and keys."""
    tx.write(_ROTATE, replaced, expect=len(replaced))


def skip(tx: Tx, subscription_ids: Iterable[str], reason: str) -> None:
    """What they were to have and was not sent yet becomes `skipped`.

    A backlog larger than `SKIPPED_AT_ONCE` goes the ordinary way, and is skipped where it would have been sent: a hundred
    thousand rows in one statement would hold everybody up.
    """
    ids = list(subscription_ids)
    tx.write(_SKIP, [{"id": each, "reason": reason, "now": tx.now_ms, "count": SKIPPED_AT_ONCE} for each in ids])
    settle_lanes(tx, ids)


def insert_event(tx: Tx, row: Params) -> None:
    """Write an event that is about a subscription."""
    tx.write(_INSERT_EVENT, [row], expect=1)
