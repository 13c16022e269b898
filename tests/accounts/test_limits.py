"""Limits: what fits is taken, what does not is told what is missing, and a month begins anew."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio

from service.accounts import accounts
from service.errors import BalanceTooSmall, Invalid, NotFound
from service.jobs.intake import Taken
from service.jobs.transitions.facts import CallbackHeard, DeadlinePassed, SubmitAnswered
from service.ledger.spending_limits import AccountStanding, SetLimit
from service.ledger.transfers import Credit
from service.providers.client import SubmitOutcome, Verdict
from service.providers.mapping import Observation, Seen
from service.schemas.words import LimitKind
from tests.accounts.till import Till


def ms(*moment: int) -> int:
    """A moment in UTC."""
    return round(datetime(*moment, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc, arg-type]


@pytest_asyncio.fixture
async def till(tmp_path: Path) -> AsyncIterator[Till]:
    """An open till, in the middle of a month."""
    made = Till(tmp_path)
    made.clock.advance((ms(2026, 12, 15) - made.clock.now_ms()) / 1000)
    await made.open()
    yield made
    assert made.breaches() == []
    await made.close()


async def _complete(till: Till, job: str) -> None:
    submission = await till.submit(job)
    accepted = SubmitOutcome(Verdict.ACCEPTED, Observation(Seen.RUNNING))
    done = Observation(Seen.COMPLETED, urls=("https://files.example/1.png",))
    await till.tell(SubmitAnswered(job, submission, till.job(job).lease_epoch, accepted))
    await till.tell(CallbackHeard(job, submission, done, evidence=True, at_ms=till.clock.now_ms()))


async def _refusal(till: Till, account: str, price: int | None) -> BalanceTooSmall:
    [answer] = await till.at_once([till.accept(account, price)])
    assert isinstance(answer, BalanceTooSmall), answer
    return answer


async def test_two_hundred_takes_at_once_stop_at_the_limit(till: Till) -> None:
    """The balance pays for 37 of them: 37 are taken, in order, and not a micro-dollar more."""
    account = await till.account("prepaid", 37 * 13_000 + 12_999)
    answers = await till.at_once([till.accept(account, 13_000) for _ in range(200)])

    assert [isinstance(answer, Taken) for answer in answers] == [True] * 37 + [False] * 163
    row = till.standing(account)
    assert (row["balance"] - row["held"], row["held"]) == (12_999, 37 * 13_000)
    assert len(till.jobs()) == 37


async def test_refusal_says_what_is_missing(till: Till) -> None:
    """For a person and for a program; a later credit makes the same job fit."""
    account = await till.account("prepaid", 4_000)
    refusal = await _refusal(till, account, 10_000)

    assert (refusal.status, refusal.code) == (402, "insufficient_balance")
    assert refusal.more == {
        "limit": "prepaid",
        "currency": "USD",
        "needed": "0.010000",
        "available": "0.004000",
        "missing": "0.006000",
    }
    assert "needs 0.010000 USD, and 0.004000 USD of the balance" in refusal.detail
    assert f"POST /v1/accounts/{account}/credit" in refusal.detail
    await till.at_once([Credit(account, 6_000, None, None)])
    assert (await till.take(account, 10_000)).startswith("job_")


async def test_unknown_price_is_refused_where_there_is_a_limit(till: Till) -> None:
    """However much is available, nobody knows whether it fits; without a limit it is taken."""
    prepaid = await till.account("prepaid", 5_000_000)
    monthly = await till.account("monthly", budget=5_000_000)
    [free, rich, budgeted] = await till.at_once(
        [till.accept(account, None) for account in (await till.account(), prepaid, monthly)]
    )

    assert isinstance(free, Taken)
    for refused in (rich, budgeted):
        assert isinstance(refused, Invalid)
        assert (refused.code, refused.errors[0].pointer) == ("price_unknown", "/input/model")
    assert till.standing(prepaid)["held"] == 0


async def test_ceiling_has_to_be_available(till: Till) -> None:
    """It is held as a price would be, so that jobs at once cannot pass the limit."""
    account = await till.account("prepaid", 25_000)
    answers = await till.at_once([till.accept(account, None, ceiling=10_000) for _ in range(3)])

    assert [isinstance(answer, Taken) for answer in answers] == [True, True, False]
    assert isinstance(answers[2], BalanceTooSmall)
    assert answers[2].more["needed"] == "0.010000"


async def test_free_job_fits_a_balance_below_zero(till: Till) -> None:
    """What costs nothing passes no limit."""
    account = await till.account("prepaid")
    await till.at_once([Credit(account, -5, None, None)])

    assert await till.take(account, 0)


async def test_refused_key_can_be_used_again(till: Till) -> None:
    """A refusal is not remembered."""
    account = await till.account("prepaid", 0)
    command = till.accept(account, 10_000, "order-1")
    [refused] = await till.at_once([command])
    await till.at_once([Credit(account, 10_000, None, None)])
    taken, again = await till.at_once([command]) + await till.at_once([command])

    assert isinstance(refused, BalanceTooSmall)
    assert isinstance(taken, Taken)
    assert isinstance(again, Taken)
    assert (taken.replayed, again.replayed) == (False, True)
    assert till.standing(account)["held"] == 10_000


@pytest.mark.parametrize("years", [40, -5])
async def test_moment_of_a_wrong_clock_locks_nobody(till: Till, years: int) -> None:
    """A job taken while the clock was years off; afterwards the month is this one, with what was spent in it."""
    account = await till.account("monthly", budget=30_000)
    await _complete(till, await till.take(account, 10_000))
    right = till.clock.now_ms()
    till.clock.advance(years * 365 * 86_400)
    await till.at_once([Credit(account, 1, None, None)])
    till.clock.advance((right - till.clock.now_ms()) / 1000)
    shown = await accounts.find(till.reader, account, right)
    refusal = await _refusal(till, account, 20_001)
    await till.take(account, 20_000)

    assert shown is not None
    assert (shown.standing.available(right), shown.standing.spent(right)) == (20_000, 10_000)
    assert (refusal.more["available"], refusal.more["resets_at"]) == ("0.020000", "2027-01-01T00:00:00.000Z")
    assert (till.standing(account)["month"], till.standing(account)["month_spent"]) == (202612, 10_000)


async def test_cost_of_a_wrong_clock_counts_in_the_month_that_it_was(till: Till) -> None:
    """The job was charged in 2066, it says; the next cost, in December 2026, finds both in December."""
    account = await till.account("monthly", budget=30_000)
    right = till.clock.now_ms()
    till.clock.advance(40 * 365 * 86_400)
    await _complete(till, await till.take(account, 10_000))
    till.clock.advance((right - till.clock.now_ms()) / 1000)
    await _complete(till, await till.take(account, 5_000))

    assert (await _refusal(till, account, 15_001)).more["available"] == "0.015000"


async def test_month_begins_anew(till: Till) -> None:
    """December's budget is used up; on January 1st, 0:00 UTC, there is a new one. What is held counts in both."""
    account = await till.account("monthly", budget=25_000)
    first, second = [await till.take(account, 10_000) for _ in range(2)]
    await _complete(till, first)
    refusal = await _refusal(till, account, 10_000)
    assert refusal.more["available"] == "0.005000"
    assert refusal.more["resets_at"] == "2027-01-01T00:00:00.000Z"
    till.clock.advance((ms(2027, 1, 1) - till.clock.now_ms()) / 1000 - 0.001)
    await _refusal(till, account, 10_000)
    till.clock.advance(0.001)

    await till.take(account, 15_000)
    await _refusal(till, account, 1)
    await till.tell(DeadlinePassed(second))  # December's hold is let go in January
    await till.take(account, 10_000)
    await _refusal(till, account, 1)


async def test_cost_counts_in_the_month_in_which_it_is_charged(till: Till) -> None:
    """Held in December, charged in January: January's budget pays."""
    account = await till.account("monthly", budget=25_000)
    till.clock.advance((ms(2027, 1, 1) - till.clock.now_ms()) / 1000 - 1)
    job = await till.take(account, 10_000)
    till.clock.advance(1)
    await _complete(till, job)

    row = till.standing(account)
    assert (row["month"], row["month_spent"], row["held"]) == (202701, 10_000, 0)
    assert (await _refusal(till, account, 15_001)).more["missing"] == "0.000001"


def test_clock_stepped_back_opens_no_earlier_month() -> None:
    """Else the budget of January could be spent twice."""
    january = AccountStanding("monthly", budget=25_000, month=202701, month_spent=20_000)

    assert january.available(ms(2026, 12, 31)) == 5_000
    assert january.resets_at(ms(2026, 12, 31)) == ms(2027, 2, 1)
    assert january.available(ms(2027, 2, 1)) == 25_000
    assert AccountStanding("monthly", budget=1, month=202612).resets_at(ms(2026, 12, 31)) == ms(2027, 1, 1)


async def test_changed_limit_holds_for_the_next_job(till: Till) -> None:
    """Also for one that comes in the same batch, and whatever was known of the account before."""
    account = await till.account()
    await till.take(account, 10_000)  # from now on it is known as unlimited
    _, refused = await till.at_once([SetLimit(account, LimitKind.PREPAID), till.accept(account, 10_000)])
    refused_first, _ = await till.at_once([till.accept(account, 10_000), SetLimit(account, LimitKind.NONE)])
    [taken] = await till.at_once([till.accept(account, 10_000)])
    [nobody] = await till.at_once([SetLimit("acc_nobody", LimitKind.NONE)])

    assert isinstance(refused, BalanceTooSmall)
    assert isinstance(refused_first, BalanceTooSmall)
    assert isinstance(taken, Taken)
    assert isinstance(nobody, NotFound)


async def test_full_disk_leaves_nothing_held(till: Till) -> None:
    """Whichever step fails: a job that was not taken holds nothing, and what is left of the balance is exact."""
    account = await till.account("prepaid", 100_000)
    for step in range(4):
        till.connection.full_after, till.connection.full_for = step, 1
        await till.at_once([till.accept(account, 10_000) for _ in range(2)])
        till.connection.full_for = 0

        assert till.standing(account)["held"] == 10_000 * len(till.jobs())
