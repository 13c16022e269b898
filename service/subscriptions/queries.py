"""Reading subscriptions for sending: all of what the hot path needs of them. How a subscription is shown it must not know."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from service.db.reader import Reader
from service.db.transaction import Row, Tx, json_set

_SELECT: Final = """
SELECT id, account_id, url, events, providers, operations, tags, headers, rate_per_s, max_in_flight, schedule, signatures,
    stop_at_expiry, status, secret, previous_secret, previous_secret_until, signing_key, previous_signing_key FROM subscriptions
"""
_OF_ACCOUNTS: Final = f"{_SELECT} WHERE account_id IN @set(:accounts) ORDER BY id"
_THESE: Final = f"{_SELECT} WHERE id IN @set(:ids) ORDER BY id"
_ONE: Final = f"{_SELECT} WHERE id = :id AND account_id = :account"


async def of_accounts(tx: Tx, account_ids: Iterable[str]) -> list[Row]:
    """All subscriptions of these accounts, in the order of their making."""
    return await tx.rows(_OF_ACCOUNTS, {"accounts": json_set(account_ids)})


async def these(tx: Tx, subscription_ids: Iterable[str]) -> list[Row]:
    """Those of these subscriptions that there are, in the order of their making."""
    return await tx.rows(_THESE, {"ids": json_set(subscription_ids)})


async def one(reader: Reader, account_id: str, subscription_id: str) -> Row | None:
    """One subscription of the account, as it is committed."""
    return await reader.row(_ONE, {"id": subscription_id, "account": account_id})
