"""The SQL of accounts, their keys and their signing secrets. What any of it means stands beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from service.db.reader import Reader
from service.db.transaction import Params, Row, Tx, json_set
from service.ledger.book_store import STANDING

#: The columns of an account that it is shown with, beside those of `STANDING`.
OWN: Final = ("id", "name", "status", "secret_prefix", "created_at")
_ACCOUNT_COLUMNS: Final = ", ".join((*OWN, *STANDING))
_INSERT_ACCOUNT: Final = """
INSERT INTO accounts (id, name, status, limit_kind, budget, secret, secret_prefix, created_at)
@rows(:id, :name, 'active', :limit_kind, :budget, :sealed, :secret_prefix, :now)
"""
# The previous secret stays sealed for the same place, so that moving it within the row is all it takes.
_ROTATE: Final = """
UPDATE accounts SET previous_secret = secret, previous_secret_until = :until, secret = :sealed, secret_prefix = :prefix
WHERE id = :id
"""
_INSERT_UNLIMITED: Final = """
INSERT INTO accounts (id, name, status, limit_kind, secret, secret_prefix, created_at)
@rows(:id, :name, 'active', 'none', :sealed, :prefix, :now)
"""
_SECRETS: Final = "SELECT secret, previous_secret, previous_secret_until FROM accounts WHERE id = :id"

_INSERT_KEY: Final = """
INSERT INTO keys (id, account_id, name, prefix, hash, scopes, created_at, expires_at)
@rows(:id, :account_id, :name, :prefix, :hash, :scopes, :created_at, :expires_at)
"""
_KEY_COLUMNS: Final = "id, account_id, name, prefix, scopes, created_at, expires_at, last_used_at, revoked_at"
_FIND_KEY: Final = """
SELECT k.id, k.account_id, k.hash, k.scopes, k.expires_at, k.last_used_at, k.revoked_at, a.status AS account FROM keys k
JOIN accounts a ON a.id = k.account_id
WHERE k.hash = :hash
"""
_IN_FORCE: Final = """
SELECT a.id, (SELECT count(*) FROM keys k WHERE k.account_id = a.id AND k.revoked_at IS NULL
    AND (k.expires_at IS NULL OR k.expires_at > :now)) AS n
FROM accounts a WHERE a.id IN @set(:ids)
"""
# Of keys that have ended the last ones are kept, to be looked at: making and revoking them has no end.
_FORGET_ENDED: Final = """
DELETE FROM keys WHERE id IN (
    SELECT id FROM keys WHERE account_id = :account AND (revoked_at IS NOT NULL OR expires_at <= :now)
    ORDER BY id DESC LIMIT 9223372036854775807 OFFSET :kept)
"""
_IS_ADMIN: Final = "'admin' IN @set(k.scopes)"
_OWNERS: Final = f"""
SELECT k.id, k.account_id, {_IS_ADMIN} AS admin FROM keys k WHERE k.id IN @set(:ids)
"""
_ADMINS: Final = f"""
SELECT k.id, k.expires_at IS NULL AS lasts FROM keys k JOIN accounts a ON a.id = k.account_id
WHERE k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > :now) AND a.status = 'active' AND {_IS_ADMIN}
"""
_USABLE_ADMIN: Final = """
SELECT 1 FROM keys k JOIN accounts a ON a.id = k.account_id
WHERE a.name = :default AND k.name <> :settings_key AND k.revoked_at IS NULL AND k.expires_at IS NULL
    AND 'admin' IN @set(k.scopes)
LIMIT 1
"""
_REVOKE_FORMER: Final = "UPDATE keys SET revoked_at = :now WHERE name = :name AND revoked_at IS NULL AND hash <> :hash"
_REINSTATE: Final = """
UPDATE keys SET account_id = :account, name = :name, scopes = :scopes, revoked_at = NULL, expires_at = NULL
WHERE hash = :hash
"""


def insert_accounts(tx: Tx, rows: Sequence[Params]) -> None:
    """Write new accounts."""
    tx.write(_INSERT_ACCOUNT, rows, expect=len(rows))


def insert_unlimited(tx: Tx, row: Params) -> None:
    """Write a new account that has no limit."""
    tx.write(_INSERT_UNLIMITED, [row])


async def has_account(tx: Tx, account_id: str) -> bool:
    """Whether there is this account."""
    return bool(await tx.rows("SELECT 1 FROM accounts WHERE id = :id", {"id": account_id}))


async def account_named(tx: Tx, name: str) -> str | None:
    """The id of the oldest account of that name."""
    found = await tx.rows("SELECT id FROM accounts WHERE name = :name ORDER BY id LIMIT 1", {"name": name})
    return found[0]["id"] if found else None


async def find_account(reader: Reader, account_id: str) -> Row | None:
    """One account: the columns of `OWN` and `STANDING`."""
    return await reader.row(f"SELECT {_ACCOUNT_COLUMNS} FROM accounts WHERE id = :id", {"id": account_id})


async def list_accounts(reader: Reader, before_id: str | None, limit: int) -> list[Row]:
    """The same of all accounts, newest first."""
    return await reader.rows(
        f"SELECT {_ACCOUNT_COLUMNS} FROM accounts WHERE id < coalesce(:before, '~') ORDER BY id DESC LIMIT :limit",
        {"before": before_id, "limit": limit},
    )


async def sealed_secrets(source: Reader | Tx, account_id: str) -> list[Row]:
    """An account's signing secret and the previous one, sealed; nothing for an account that does not exist."""
    return await source.rows(_SECRETS, {"id": account_id})


def rotate_secret(tx: Tx, row: Params) -> None:
    """Replace an account's signing secret."""
    tx.write(_ROTATE, [row], expect=1)


def insert_keys(tx: Tx, rows: Sequence[Params]) -> None:
    """Write new keys."""
    tx.write(_INSERT_KEY, rows, expect=len(rows))


async def find_by_hash(reader: Reader, digest: bytes) -> Row | None:
    """The key that has this hash, whatever became of it, with its account's status as `account`."""
    return await reader.row(_FIND_KEY, {"hash": digest})


async def find_key(reader: Reader, key_id: str) -> Row | None:
    """One key, of whichever account, without its hash."""
    return await reader.row(f"SELECT {_KEY_COLUMNS} FROM keys WHERE id = :id", {"id": key_id})


async def list_keys(reader: Reader, account_id: str, before_id: str | None, limit: int) -> list[Row]:
    """The same of an account's keys, newest first."""
    return await reader.rows(
        f"SELECT {_KEY_COLUMNS} FROM keys WHERE account_id = :account AND id < coalesce(:before, '~') "
        "ORDER BY id DESC LIMIT :limit",
        {"account": account_id, "before": before_id, "limit": limit},
    )


async def has_key(tx: Tx, digest: bytes) -> bool:
    """Whether there is a key that has this hash, whatever became of it."""
    return bool(await tx.rows("SELECT 1 FROM keys WHERE hash = :hash", {"hash": digest}))


async def has_usable_admin(reader: Reader, default: str, settings_key: str) -> bool:
    """Whether the account `default` has an admin key in force that does not end, beside the settings' own."""
    return bool(await reader.rows(_USABLE_ADMIN, {"default": default, "settings_key": settings_key}))


async def keys_in_force(tx: Tx, account_ids: Iterable[str]) -> dict[str, int]:
    """How many keys of these accounts are in force; an account that does not exist is left out."""
    found = await tx.rows(_IN_FORCE, {"ids": json_set(account_ids), "now": tx.now_ms})
    return {row["id"]: row["n"] for row in found}


async def key_owners(tx: Tx, key_ids: Iterable[str]) -> list[Row]:
    """Whose these keys are, and whether they are `admin` keys."""
    return await tx.rows(_OWNERS, {"ids": json_set(key_ids)})


async def admin_keys(tx: Tx) -> dict[str, bool]:
    """The admin keys in force, and whether they last."""
    return {row["id"]: bool(row["lasts"]) for row in await tx.rows(_ADMINS, {"now": tx.now_ms})}


def forget_ended_keys(tx: Tx, account_ids: Iterable[str], *, kept: int) -> None:
    """Remove keys of these accounts that have ended, all but the last ones."""
    tx.write(_FORGET_ENDED, [{"account": each, "now": tx.now_ms, "kept": kept} for each in account_ids])


def revoke_keys(tx: Tx, key_ids: Iterable[str]) -> None:
    """End keys; one that was revoked before keeps its time."""
    tx.write(
        "UPDATE keys SET revoked_at = :now WHERE id = :id AND revoked_at IS NULL",
        [{"id": each, "now": tx.now_ms} for each in key_ids],
    )


def revoke_named(tx: Tx, name: str, *, but: bytes) -> None:
    """End all keys of that name but the one that has this hash."""
    tx.write(_REVOKE_FORMER, [{"name": name, "hash": but, "now": tx.now_ms}])


def reinstate_key(tx: Tx, row: Params) -> None:
    """Put a key in force again, by its hash, with another name, account and scopes."""
    tx.write(_REINSTATE, [row], expect=1)


def touch_keys(tx: Tx, uses: Sequence[Params]) -> None:
    """Note when keys (`id`) were used last (`at`)."""
    tx.write("UPDATE keys SET last_used_at = :at WHERE id = :id", uses)
