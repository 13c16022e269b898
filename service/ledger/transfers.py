"""The books: every movement of money, as double entries, with the balances that they add up to beside them.

An account has four books: `funding` (where credit comes from), `available`, `held` and `spent`. A transfer takes an amount
from one and gives it to another, so that the four are always zero together. This file owns which transfers there are,
and what follows for a job's money; `book_store` writes them. It must not know what a job is.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from service.clock import iso
from service.db.transaction import Row
from service.db.writer import Command
from service.money import MICRO, shown
from service.schemas.account_schemas import TransferView


class TransferKind(StrEnum):
    """What a transfer is for."""

    CREDIT = "credit"  # an operator puts money in
    DEBIT = "debit"  # an operator takes some out: a correction
    HOLD = "hold"  # a job was taken whose price is known
    RELEASE = "release"  # of what was held, what the job did not cost
    CHARGE = "charge"  # of what was held, what it cost
    EXCESS = "excess"  # what it cost beyond that; may take the balance below its limit
    LATE = "late"  # the cost of a job that had ended before, and held nothing any more; may do so too


class Book(StrEnum):
    """Where an account's money is."""

    FUNDING = "funding"
    AVAILABLE = "available"
    HELD = "held"
    SPENT = "spent"


#: From which book each kind takes, and to which it gives.
MOVES: Final[dict[TransferKind, tuple[Book, Book]]] = {
    TransferKind.CREDIT: (Book.FUNDING, Book.AVAILABLE),
    TransferKind.DEBIT: (Book.AVAILABLE, Book.FUNDING),
    TransferKind.HOLD: (Book.AVAILABLE, Book.HELD),
    TransferKind.RELEASE: (Book.HELD, Book.AVAILABLE),
    TransferKind.CHARGE: (Book.HELD, Book.SPENT),
    TransferKind.EXCESS: (Book.AVAILABLE, Book.SPENT),
    TransferKind.LATE: (Book.AVAILABLE, Book.SPENT),
}
MAX_BALANCE: Final = 1_000_000_000_000 * MICRO  # either side of zero: far below what the store can count
OWNED: Final = (Book.AVAILABLE, Book.HELD)  # together an account's balance


@dataclass(frozen=True, slots=True)
class Transfer:
    """One movement to be written; the amount in micro-USD is above zero."""

    account_id: str
    kind: TransferKind
    amount: int
    job_id: str | None = None
    seq: int | None = None  # the row of the job's timeline that it goes with
    basis: str | None = None
    reason: str | None = None
    actor: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Credit(Command[bool]):
    """Put money in, or take some out where the amount is negative; answered with whether its key had done so before."""

    account_id: str
    amount: int
    reason: str | None
    actor: str | None
    key: str | None = None

    def lock(self) -> Hashable | None:
        """Each sees the balance and the keys that the one before it left."""
        return self.account_id


def settlement(held: int, charged: int | None, *, is_over: bool, was_over: bool) -> list[tuple[TransferKind, int]]:
    """What follows for a job's money.

    Args:
        held: What is held for it.
        charged: What was found now that it costs; None: nothing was found now.
        is_over: It is in a final state.
        was_over: It was so before.
    """
    if charged is None:
        return [(TransferKind.RELEASE, held)] if is_over and held else []
    beyond = TransferKind.LATE if was_over else TransferKind.EXCESS
    moves = [
        (TransferKind.CHARGE, min(held, charged)),
        (beyond, max(charged - held, 0)),
        (TransferKind.RELEASE, max(held - charged, 0)),
    ]
    return [(kind, amount) for kind, amount in moves if amount]


def credited(account_id: str, amount: int, reason: str | None, actor: str | None, key: str | None = None) -> Transfer:
    """An operator's credit, or his correction where the amount is negative."""
    kind = TransferKind.CREDIT if amount > 0 else TransferKind.DEBIT
    return Transfer(account_id, kind, abs(amount), reason=reason, actor=actor, key=key)


def month_of(now_ms: int) -> int:
    """The month of a moment, UTC, as yyyymm."""
    moment = datetime.fromtimestamp(now_ms / 1000, UTC)
    return moment.year * 100 + moment.month


def shifted(month: int, by: int) -> int:
    """The month so many months later."""
    year, place = divmod(month // 100 * 12 + month % 100 - 1 + by, 12)
    return year * 100 + place + 1


def began(month: int) -> int:
    """When a month began, in ms."""
    return round(datetime(month // 100, month % 100, 1, tzinfo=UTC).timestamp() * 1000)


def transfer_view(shown_id: str, row: Row) -> TransferView:
    """A transfer as it is shown; its own number is not."""
    return {
        "id": shown_id,
        "at": iso(row["at"]),
        "kind": row["kind"],
        "debit": row["debit"],
        "credit": row["credit"],
        "currency": "USD",
        "amount": shown(row["amount"]),
        "job_id": row["job_id"],
        "seq": row["seq"],
        "basis": row["basis"],
        "reason": row["reason"],
        "actor": row["actor"],
    }
