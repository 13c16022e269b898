"""The SQL of money: transfers with the sums that they add up to, and the columns of accounts that limits are judged by.

Which transfers there are stands in `transfers`, how an account is limited in `spending_limits`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from service.db.reader import Reader
from service.db.transaction import Params, Row, Tx, json_set
from service.db.writer import Writer
from service.errors import FieldError, Invalid, NotFound
from service.ledger.transfers import (
    MAX_BALANCE,
    MOVES,
    OWNED,
    Book,
    Credit,
    Transfer,
    began,
    credited,
    month_of,
    shifted,
)
from service.money import shown

#: The columns of an account that a `AccountStanding` is made of, in its order.
STANDING: Final = ("limit_kind", "balance", "held", "budget", "month", "month_spent")

_FIND_KEY: Final = "SELECT kind, amount, reason FROM transfers WHERE account_id = :account AND key = :key"
_INSERT: Final = """
INSERT INTO transfers (account_id, job_id, seq, kind, debit, credit, amount, at, basis, reason, actor, key)
@rows(:account_id, :job_id, :seq, :kind, :debit, :credit, :amount, :at, :basis, :reason, :actor, :key)
"""
#: What an account spent since a moment; of all its transfers, and so asked only where the month's sum is in doubt.
_SPENT_SINCE: Final = (
    "SELECT coalesce(sum(amount), 0) AS spent FROM transfers WHERE account_id = {} AND credit = 'spent' AND at >= {}"
)
# A month that is over counts no more once the first cost of a new one comes; a clock that is stepped back a little opens no
# month. One that is further away than the next or the last one was opened by a clock that was wrong, or nothing moved for
# long: then the transfers tell.
_ADD: Final = f"""
UPDATE accounts SET balance = balance + v.owned, held = held + v.in_hold,
    month_spent = CASE WHEN month IN (v.of_month, v.following) THEN month_spent + v.gone WHEN month = v.former THEN v.gone
        ELSE ({_SPENT_SINCE.format("v.account", "v.began")}) END,
    month = CASE WHEN month = v.following THEN month ELSE v.of_month END
FROM @given(account text = :account_id, owned bigint = :owned, in_hold bigint = :held, gone bigint = :spent,
    of_month bigint = :month, former bigint = :former, following bigint = :following, began bigint = :began) AS v
WHERE accounts.id = v.account
"""


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
        total["owned"] += each.amount * ((credit in OWNED) - (debit in OWNED))
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


async def spent_since(source: Reader | Tx, account_id: str, began_ms: int) -> int:
    """What an account was charged from a moment on (ms UTC)."""
    [row] = await source.rows(_SPENT_SINCE.format(":account", ":began"), {"account": account_id, "began": began_ms})
    return int(row["spent"])


async def standing(reader: Reader, account_id: str) -> Row | None:
    """The columns of `STANDING` of one account."""
    return await reader.row(f"SELECT {', '.join(STANDING)} FROM accounts WHERE id = :id", {"id": account_id})


async def standings(tx: Tx, account_ids: Iterable[str]) -> list[Row]:
    """The columns of `STANDING` of these accounts, with their ids."""
    sql = f"SELECT id, {', '.join(STANDING)} FROM accounts WHERE id IN @set(:ids)"
    return await tx.rows(sql, {"ids": json_set(account_ids)})


def set_month(tx: Tx, account_id: str, month: int, spent: int) -> None:
    """Keep what was counted anew of an account's month."""
    row = {"id": account_id, "month": month, "spent": spent}
    tx.write("UPDATE accounts SET month = :month, month_spent = :spent WHERE id = :id", [row])


async def known(tx: Tx, account_ids: Iterable[str]) -> set[str]:
    """Those of these accounts that there are."""
    found = await tx.rows("SELECT id FROM accounts WHERE id IN @set(:ids)", {"ids": json_set(account_ids)})
    return {row["id"] for row in found}


def set_limits(tx: Tx, limits: Sequence[Params]) -> None:
    """Give accounts (`id`) other limits (`kind`, `budget`)."""
    tx.write("UPDATE accounts SET limit_kind = :kind, budget = :budget WHERE id = :id", limits)
