"""The books: every movement of money, as double entries, with the balances that they add up to beside them.

An account has four books: `funding` (where credit comes from), `available`, `held` and `spent`. A transfer takes an amount
from one and gives it to another, so that the four are always zero together. This file owns which transfers there are,
what follows for a job's money, and how they are written; it must not know what a job is.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from service.clock import iso
from service.db.reader import Reader
from service.db.transaction import Params, Row, Tx
from service.db.writer import Command, Writer
from service.errors import FieldError, Invalid, NotFound
from service.ledger.money import MICRO, shown


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
_OWNED: Final = (Book.AVAILABLE, Book.HELD)  # together an account's balance


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


_FIND_KEY: Final = "SELECT kind, amount, reason FROM transfers WHERE account_id = :account AND key = :key"
_INSERT: Final = """
INSERT INTO transfers (account_id, job_id, seq, kind, debit, credit, amount, at, basis, reason, actor, key)
@rows(:account_id, :job_id, :seq, :kind, :debit, :credit, :amount, :at, :basis, :reason, :actor, :key)
"""
#: What an account spent since a moment; of all its transfers, and so asked only where the month's sum is in doubt.
SPENT_SINCE: Final = (
    "SELECT coalesce(sum(amount), 0) AS spent FROM transfers WHERE account_id = {} AND credit = 'spent' AND at >= {}"
)
# A month that is over counts no more once the first cost of a new one comes; a clock that is stepped back a little opens no
# month. One that is further away than the next or the last one was opened by a clock that was wrong, or nothing moved for
# long: then the transfers tell.
_ADD: Final = f"""
UPDATE accounts SET balance = balance + v.owned, held = held + v.in_hold,
    month_spent = CASE WHEN month IN (v.of_month, v.following) THEN month_spent + v.gone WHEN month = v.former THEN v.gone
        ELSE ({SPENT_SINCE.format("v.account", "v.began")}) END,
    month = CASE WHEN month = v.following THEN month ELSE v.of_month END
FROM @given(account text = :account_id, owned bigint = :owned, in_hold bigint = :held, gone bigint = :spent,
    of_month bigint = :month, former bigint = :former, following bigint = :following, began bigint = :began) AS v
WHERE accounts.id = v.account
"""


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


def book(tx: Tx, transfers: Sequence[Transfer]) -> None:
    """Write transfers, and what they add up to: one statement for all of them, and one row for each account."""
    if not transfers:
        return
    rows: list[Params] = []
    sums: dict[str, dict[str, Any]] = {}
    month = month_of(tx.now_ms)
    months = {
        "month": month,
        "former": shifted(month, -1),
        "following": shifted(month, 1),
        "began": began(month),
    }
    for each in transfers:
        debit, credit = MOVES[each.kind]
        rows.append(
            {
                "account_id": each.account_id,
                "job_id": each.job_id,
                "seq": each.seq,
                "kind": each.kind.value,
                "debit": debit.value,
                "credit": credit.value,
                "amount": each.amount,
                "at": tx.now_ms,
                "basis": each.basis,
                "reason": each.reason,
                "actor": each.actor,
                "key": each.key,
            }
        )
        total = sums.get(each.account_id)
        if total is None:
            total = sums[each.account_id] = {
                "account_id": each.account_id,
                "owned": 0,
                "held": 0,
                "spent": 0,
                **months,
            }
        total["owned"] += each.amount * ((credit in _OWNED) - (debit in _OWNED))
        total["held"] += each.amount * ((credit is Book.HELD) - (debit is Book.HELD))
        total["spent"] += each.amount * (credit is Book.SPENT)
    tx.write(_INSERT, rows)
    tx.write(_ADD, list(sums.values()), expect=len(sums))


def register(writer: Writer) -> None:
    """Name the handler of this module's command."""
    writer.handle(Credit, handle_credit)


async def handle_credit(tx: Tx, commands: Sequence[Credit]) -> list[bool | Exception]:
    """The writer's handler for `Credit`."""
    return [await _credit(tx, each) for each in commands]


async def _credit(tx: Tx, command: Credit) -> bool | Exception:
    account = await tx.rows("SELECT balance FROM accounts WHERE id = :id", {"id": command.account_id})
    if not account:
        return NotFound("there is no such account")
    transfer = credited(command.account_id, command.amount, command.reason, command.actor, command.key)
    if command.key is not None and (
        first := await tx.rows(_FIND_KEY, {"account": command.account_id, "key": command.key})
    ):
        said = (first[0]["kind"], first[0]["amount"], first[0]["reason"])
        if said == (transfer.kind, transfer.amount, transfer.reason):
            return True
        msg = "this Idempotency-Key was used for another credit of this account; use a new key for a new one"
        return Invalid(msg, code="idempotency_key_reused")
    if abs(account[0]["balance"] + command.amount) > MAX_BALANCE:
        return Invalid.of([FieldError("/amount", f"would take the balance beyond {shown(MAX_BALANCE)} USD")])
    book(tx, [transfer])
    return False


async def statement(reader: Reader, account_id: str, before_id: int | None, limit: int) -> list[Row]:
    """An account's transfers, newest first."""
    return await reader.rows(
        "SELECT id, job_id, seq, kind, debit, credit, amount, at, basis, reason, actor FROM transfers "
        "WHERE account_id = :account AND id < coalesce(:before, 9223372036854775807) ORDER BY id DESC LIMIT :limit",
        {"account": account_id, "before": before_id, "limit": limit},
    )


def transfer_view(row: Row) -> dict[str, Any]:
    """A transfer as it is shown, without its number."""
    return {
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
