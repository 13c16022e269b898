"""Limits: what an account may spend, and whether a job still fits.

`none` takes every job, `prepaid` what the balance pays for, `monthly` what is left of the month's budget (UTC). Judging is
done where the job is stored, by the writer, which is alone: what one job of a batch takes, the next one does not find.
What a job will cost has to be known: a limit that a job could pass by having no price would be none.
This file owns limits and how they are changed. It must not know how money moves (`transfers` does) nor what a job is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from service.clock import iso
from service.db.reader import Reader
from service.db.transaction import Row, Tx
from service.db.writer import Command, Writer
from service.errors import BalanceTooSmall, FieldError, Invalid, NotFound, Problem
from service.ledger import book_store
from service.ledger.transfers import began, month_of, shifted
from service.money import shown
from service.schemas.words import LimitKind

MAX_REMEMBERED: Final = 100_000  # accounts that are known to have no limit


@dataclass(frozen=True, slots=True)
class AccountStanding:
    """How an account stands; money in micro-USD, see `db.tables.Account`."""

    limit_kind: str
    balance: int = 0
    held: int = 0
    budget: int | None = None
    month: int = 0
    month_spent: int = 0

    def spent(self, now_ms: int) -> int:
        """What was charged in the month of this moment."""
        return self.month_spent if self.month >= month_of(now_ms) else 0

    def available(self, now_ms: int) -> int:
        """What is left to spend; where there is no limit, what the books say."""
        if self.limit_kind == LimitKind.MONTHLY:
            return (self.budget or 0) - self.spent(now_ms) - self.held
        return self.balance - self.held

    def resets_at(self, now_ms: int) -> int:
        """When the next month begins; a clock that was stepped back does not bring back an earlier one."""
        return began(shifted(max(self.month, month_of(now_ms)), 1))


def standing_of(row: Row) -> AccountStanding:
    """From a row with the columns of `STANDING`."""
    return AccountStanding(*(row[name] for name in book_store.STANDING))


async def trusted(source: Reader | Tx, account_id: str, standing: AccountStanding, now_ms: int) -> AccountStanding:
    """The standing, its month counted anew where it is in doubt.

    A month further ahead than the next one was opened by a clock that was wrong; after one further back than the last, so
    may the present one have been. Otherwise one moment of a wrong clock would lock an account for years.
    """
    month = month_of(now_ms)
    if not standing.month or shifted(month, -1) <= standing.month <= shifted(month, 1):
        return standing
    spent = await book_store.spent_since(source, account_id, began(month))
    return replace(standing, month=month, month_spent=spent)


@dataclass(frozen=True, slots=True)
class Want:
    """A job that wants to be taken.

    Args:
        price: What is to be held for it, in micro-USD.
        unpriced: Why nobody knows what it will cost, at the fields that decide it; empty: it is known.
    """

    job_id: str
    account_id: str
    price: int
    unpriced: tuple[FieldError, ...] = ()


@dataclass(frozen=True, slots=True)
class SetLimit(Command[None]):
    """Give an account another limit; `budget` belongs to `monthly`."""

    account_id: str
    kind: LimitKind
    budget: int | None = None


class SpendingLimits:
    """Judges jobs by their accounts' limits. Accounts without one are remembered, so that they cost nothing."""

    def __init__(self) -> None:
        self._unlimited: set[str] = set()

    def register(self, writer: Writer) -> None:
        """Name the handler of this module's command."""
        writer.handle(SetLimit, self.handle)

    def concern(self, want: Want) -> bool:
        """Whether a job has to be judged."""
        return bool(want.price or want.unpriced) and want.account_id not in self._unlimited

    async def judge(self, tx: Tx, wants: Sequence[Want]) -> dict[str, Problem]:
        """Say, by job, what does not fit; what does is counted against those behind it, in order."""
        if not wants:
            return {}
        standings = await self._standings(tx, {want.account_id for want in wants})
        left = {account_id: each.available(tx.now_ms) for account_id, each in standings.items()}
        refused: dict[str, Problem] = {}
        for want in wants:
            standing = standings.get(want.account_id)
            if standing is None:
                continue
            refusal = _refusal(standing, want, left[want.account_id], tx.now_ms)
            if refusal is not None:
                refused[want.job_id] = refusal
            else:
                left[want.account_id] -= want.price
        return refused

    async def foresee(self, reader: Reader, want: Want, now_ms: int) -> None:
        """Judge a job before anything is written for it; where it is stored it is judged again.

        Raises:
            BalanceTooSmall: It does not fit now.
            Invalid: `price_unknown`: nobody knows what it will cost.
        """
        if not self.concern(want):
            return
        row = await book_store.standing(reader, want.account_id)
        standing = None if row is None else standing_of(row)
        if standing is None or standing.limit_kind == LimitKind.NONE:
            return
        standing = await trusted(reader, want.account_id, standing, now_ms)
        refusal = _refusal(standing, want, standing.available(now_ms), now_ms)
        if refusal is not None:
            raise refusal

    async def _standings(self, tx: Tx, account_ids: set[str]) -> dict[str, AccountStanding]:
        """Of those accounts that have a limit."""
        standings = {row["id"]: standing_of(row) for row in await book_store.standings(tx, account_ids)}
        unlimited = {account_id for account_id, each in standings.items() if each.limit_kind == LimitKind.NONE}
        if unlimited:
            tx.after_commit(lambda: self._remember(unlimited))
        limited = {account_id: each for account_id, each in standings.items() if account_id not in unlimited}
        return {account_id: await self._trusted(tx, account_id, each) for account_id, each in limited.items()}

    async def _trusted(self, tx: Tx, account_id: str, standing: AccountStanding) -> AccountStanding:
        """What was counted anew is kept, so that it is counted once."""
        found = await trusted(tx, account_id, standing, tx.now_ms)
        if found is not standing:
            book_store.set_month(tx, account_id, found.month, found.month_spent)
        return found

    def _remember(self, unlimited: set[str]) -> None:
        if len(self._unlimited) > MAX_REMEMBERED:
            self._unlimited.clear()
        self._unlimited |= unlimited

    async def handle(self, tx: Tx, commands: Sequence[SetLimit]) -> list[Exception | None]:
        """The writer's handler for `SetLimit`."""
        changed = {each.account_id for each in commands}
        known = await book_store.known(tx, changed)
        book_store.set_limits(
            tx, [{"id": each.account_id, "kind": each.kind.value, "budget": each.budget} for each in commands]
        )
        self._unlimited -= changed  # at once, for jobs of the same batch, and again behind what those remember
        tx.after_commit(lambda: self._unlimited.difference_update(changed))
        return [None if each.account_id in known else NotFound("there is no such account") for each in commands]


def _refusal(standing: AccountStanding, want: Want, available: int, now_ms: int) -> Problem | None:
    """Why a job is not taken by an account that has a limit; None: it fits."""
    if want.unpriced:
        return Invalid.of(want.unpriced, code="price_unknown")
    return _too_small(standing, want, available, now_ms) if available < want.price else None


def _too_small(standing: AccountStanding, want: Want, available: int, now_ms: int) -> BalanceTooSmall:
    missing = want.price - available
    more = {
        "limit": standing.limit_kind,
        "currency": "USD",
        "needed": shown(want.price),
        "available": shown(available),
        "missing": shown(missing),
    }
    if standing.limit_kind == LimitKind.MONTHLY:
        resets_at = iso(standing.resets_at(now_ms)) or ""
        more["resets_at"] = resets_at
        there = f"{shown(available)} USD of this month's budget are available"
        fix = f"wait until {resets_at}, or have an operator raise the budget by {shown(missing)} USD"
    else:
        there = f"{shown(available)} USD of the balance are available"
        fix = f"have an operator add {shown(missing)} USD or more (POST /v1/accounts/{want.account_id}/credit)"
    return BalanceTooSmall(f"the job needs {shown(want.price)} USD, and {there}; {fix}", more=more)
