"""Accounts: made by an admin with a first key, listed, and given a new signing secret.

Every secret is shown once, by whoever made it. Limits and money come with the ledger.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from service.accounts.keys import KeyRow, KeyText, insert
from service.accounts.secrets import SHOWN_CHARS
from service.clock import iso
from service.db.reader import Reader
from service.db.transaction import Row, Tx
from service.db.writer import Command, Writer
from service.errors import NotFound

SECRET_GRACE_MS: Final = 24 * 3_600_000  # how long the previous signing secret co-signs after a rotation


@dataclass(frozen=True, slots=True)
class AccountRow:
    """An account as it is stored, but for its secrets."""

    id: str
    name: str
    status: str
    limit_kind: str
    secret_prefix: str
    created_at: int


def account_view(row: AccountRow) -> dict[str, Any]:
    """An account as it is shown."""
    return {
        "id": row.id,
        "name": row.name,
        "status": row.status,
        "webhook_secret_prefix": row.secret_prefix,
        "balance": {
            "currency": "USD",
            "limit": row.limit_kind,
            "balance": "0.000000",
            "held": "0.000000",
            "available": "0.000000",
        },
        "created_at": iso(row.created_at),
    }


@dataclass(frozen=True, slots=True)
class CreateAccount(Command[tuple[AccountRow, KeyRow]]):
    """Store an account with its sealed signing secret and its first key."""

    id: str
    name: str
    limit_kind: str
    sealed: bytes = field(repr=False)
    secret_prefix: str
    key_id: str
    key: KeyText
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RotateSecret(Command[int]):
    """Replace an account's signing secret; answered with the time until which the previous one co-signs."""

    account_id: str
    sealed: bytes = field(repr=False)
    secret_prefix: str

    def lock(self) -> Hashable | None:
        """The second of two rotations must keep the first one's secret as the previous one."""
        return self.account_id


_INSERT: Final = """
INSERT INTO accounts (id, name, status, limit_kind, secret, secret_prefix, created_at)
VALUES (:id, :name, 'active', :limit_kind, :sealed, :secret_prefix, :now)
"""
# The previous secret stays sealed for the same place, so that moving it within the row is all it takes.
_ROTATE: Final = """
UPDATE accounts SET previous_secret = secret, previous_secret_until = :until, secret = :sealed, secret_prefix = :prefix
WHERE id = :id
"""
_COLUMNS: Final = "id, name, status, limit_kind, secret_prefix, created_at"


def prefix_of(secret: str) -> str:
    """The beginning of a signing secret, by which its owner tells it from others."""
    return secret[:SHOWN_CHARS]


def register(writer: Writer) -> None:
    """Name the handlers of this module's commands."""
    writer.handle(CreateAccount, handle_create)
    writer.handle(RotateSecret, handle_rotate)


async def handle_create(tx: Tx, commands: Sequence[CreateAccount]) -> list[tuple[AccountRow, KeyRow] | Exception]:
    """The writer's handler for `CreateAccount`."""
    tx.write(
        _INSERT,
        [
            {
                "id": each.id,
                "name": each.name,
                "limit_kind": each.limit_kind,
                "sealed": each.sealed,
                "secret_prefix": each.secret_prefix,
                "now": tx.now_ms,
            }
            for each in commands
        ],
        expect=len(commands),
    )
    keys = [KeyRow(each.key_id, each.id, "first", each.key.shown, each.scopes, tx.now_ms) for each in commands]
    insert(tx, [(key, each.key) for key, each in zip(keys, commands, strict=True)])
    return [
        (AccountRow(each.id, each.name, "active", each.limit_kind, each.secret_prefix, tx.now_ms), key)
        for each, key in zip(commands, keys, strict=True)
    ]


async def handle_rotate(tx: Tx, commands: Sequence[RotateSecret]) -> list[int | Exception]:
    """The writer's handler for `RotateSecret`."""
    until = tx.now_ms + SECRET_GRACE_MS
    answers: list[int | Exception] = []
    for each in commands:
        found = await tx.rows("SELECT 1 FROM accounts WHERE id = :id", {"id": each.account_id})
        if found:
            row = {"id": each.account_id, "sealed": each.sealed, "prefix": each.secret_prefix, "until": until}
            tx.write(_ROTATE, [row], expect=1)
        answers.append(until if found else NotFound("there is no such account"))
    return answers


async def find(reader: Reader, account_id: str) -> AccountRow | None:
    """One account."""
    row = await reader.row(f"SELECT {_COLUMNS} FROM accounts WHERE id = :id", {"id": account_id})
    return None if row is None else _from_row(row)


async def list_accounts(reader: Reader, before_id: str | None, limit: int) -> list[AccountRow]:
    """All accounts, newest first; for admins."""
    rows = await reader.rows(
        f"SELECT {_COLUMNS} FROM accounts WHERE :before IS NULL OR id < :before ORDER BY id DESC LIMIT :limit",
        {"before": before_id, "limit": limit},
    )
    return [_from_row(row) for row in rows]


def _from_row(row: Row) -> AccountRow:
    return AccountRow(**dict(row))
