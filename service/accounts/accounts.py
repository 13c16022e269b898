"""Accounts: made by an admin with a first key, listed, and given a new signing secret.

Every secret is shown once, in the answer to the request that made it. It must not know how money moves nor when it runs out
(`ledger`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from service.accounts import store
from service.accounts.keys import KeyRow, KeyText, insert
from service.accounts.secrets import SHOWN_CHARS
from service.clock import iso
from service.db.reader import Reader
from service.db.transaction import Row, Tx
from service.db.writer import Command, Writer
from service.errors import NotFound
from service.ledger.book_store import book
from service.ledger.spending_limits import AccountStanding, standing_of, trusted
from service.ledger.transfers import credited
from service.money import shown
from service.schemas.account_schemas import AccountView, BalanceView
from service.schemas.words import LimitKind

SECRET_GRACE_MS: Final = 24 * 3_600_000  # how long the previous signing secret co-signs after a rotation


@dataclass(frozen=True, slots=True)
class AccountRow:
    """An account as it is stored, but for its secrets."""

    id: str
    name: str
    status: str
    secret_prefix: str
    created_at: int
    standing: AccountStanding


def account_view(row: AccountRow, now_ms: int) -> AccountView:
    """An account as it is shown, as it stands at that moment."""
    return {
        "id": row.id,
        "name": row.name,
        "status": row.status,
        "webhook_secret_prefix": row.secret_prefix,
        "balance": balance_view(row.standing, now_ms),
        "created_at": iso(row.created_at),
    }


def balance_view(standing: AccountStanding, now_ms: int) -> BalanceView:
    """What an account has and may spend."""
    shape: BalanceView = {
        "currency": "USD",
        "limit": standing.limit_kind,
        "balance": shown(standing.balance),
        "held": shown(standing.held),
        "available": shown(standing.available(now_ms)),
    }
    if standing.limit_kind == LimitKind.MONTHLY:
        shape["budget"] = shown(standing.budget or 0)
        shape["spent"] = shown(standing.spent(now_ms))
        shape["resets_at"] = iso(standing.resets_at(now_ms)) or ""
    return shape


@dataclass(frozen=True, slots=True)
class CreateAccount(Command[tuple[AccountRow, KeyRow]]):
    """Store an account with its sealed signing secret, its first key and its first credit (micro-USD)."""

    id: str
    name: str
    limit_kind: str
    sealed: bytes = field(repr=False)
    secret_prefix: str
    key_id: str
    key: KeyText
    scopes: tuple[str, ...]
    budget: int | None = None
    credit: int = 0
    actor: str | None = None


@dataclass(frozen=True, slots=True)
class RotateSecret(Command[int]):
    """Replace an account's signing secret; answered with the time until which the previous one co-signs."""

    account_id: str
    sealed: bytes = field(repr=False)
    secret_prefix: str

    def lock(self) -> Hashable | None:
        """The second of two rotations must keep the first one's secret as the previous one."""
        return self.account_id


def prefix_of(secret: str) -> str:
    """The beginning of a signing secret, by which its owner tells it from others."""
    return secret[:SHOWN_CHARS]


def register(writer: Writer, rotated: Callable[[str], None] = lambda _account: None) -> None:
    """Name the handlers of this module's commands.

    Args:
        writer: Of the store.
        rotated: Told, once it is committed, of an account that signs with another secret now.
    """

    async def rotate(tx: Tx, commands: Sequence[RotateSecret]) -> list[int | Exception]:
        return await handle_rotate(tx, commands, rotated)

    writer.handle(CreateAccount, handle_create)
    writer.handle(RotateSecret, rotate)


async def handle_create(tx: Tx, commands: Sequence[CreateAccount]) -> list[tuple[AccountRow, KeyRow] | Exception]:
    """The writer's handler for `CreateAccount`."""
    store.insert_accounts(
        tx,
        [
            {
                "id": each.id,
                "name": each.name,
                "limit_kind": each.limit_kind,
                "budget": each.budget,
                "sealed": each.sealed,
                "secret_prefix": each.secret_prefix,
                "now": tx.now_ms,
            }
            for each in commands
        ],
    )
    keys = [KeyRow(each.key_id, each.id, "first", each.key.shown, each.scopes, tx.now_ms) for each in commands]
    insert(tx, [(key, each.key) for key, each in zip(keys, commands, strict=True)])
    book(tx, [credited(each.id, each.credit, "first credit", each.actor) for each in commands if each.credit])
    return [(_created(each, tx.now_ms), key) for each, key in zip(commands, keys, strict=True)]


def _created(command: CreateAccount, now_ms: int) -> AccountRow:
    standing = AccountStanding(command.limit_kind, balance=command.credit, budget=command.budget)
    return AccountRow(command.id, command.name, "active", command.secret_prefix, now_ms, standing)


async def handle_rotate(
    tx: Tx, commands: Sequence[RotateSecret], rotated: Callable[[str], None]
) -> list[int | Exception]:
    """The writer's handler for `RotateSecret`."""
    until = tx.now_ms + SECRET_GRACE_MS
    answers: list[int | Exception] = []
    for each in commands:
        found = await store.has_account(tx, each.account_id)
        if found:
            row = {"id": each.account_id, "sealed": each.sealed, "prefix": each.secret_prefix, "until": until}
            store.rotate_secret(tx, row)
            tx.after_commit(partial(rotated, each.account_id))
        answers.append(until if found else NotFound("there is no such account"))
    return answers


async def find(reader: Reader, account_id: str, now_ms: int) -> AccountRow | None:
    """One account, as it stands at that moment."""
    row = await store.find_account(reader, account_id)
    return None if row is None else await _from_row(reader, row, now_ms)


async def list_accounts(reader: Reader, before_id: str | None, limit: int, now_ms: int) -> list[AccountRow]:
    """All accounts, newest first, as they stand at that moment; for admins."""
    rows = await store.list_accounts(reader, before_id, limit)
    return [await _from_row(reader, row, now_ms) for row in rows]


async def _from_row(reader: Reader, row: Row, now_ms: int) -> AccountRow:
    standing = standing_of(row)
    if standing.limit_kind == LimitKind.MONTHLY:
        standing = await trusted(reader, row["id"], standing, now_ms)
    return AccountRow(**{name: row[name] for name in store.OWN}, standing=standing)
