"""The books: what moves when, told by the transfers of real histories; the amounts are written out by hand."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from service.errors import Invalid, NotFound
from service.jobs.transitions.facts import (
    CallbackHeard,
    CancelAnswered,
    CancelAsked,
    DeadlinePassed,
    Polled,
    ResubmitAsked,
    SubmitAnswered,
)
from service.ledger.transfers import Credit
from service.providers.client import PollOutcome, PollVerdict, SubmitOutcome, Verdict
from service.providers.mapping import Money, Observation, Seen
from service.states import JobStatus
from tests.accounts.till import Till

HOLD = ("hold", 10_000)
RUNNING = Observation(Seen.RUNNING)
FAILED = Observation(Seen.FAILED)


def done(cost: int | None = None) -> Observation:
    """The task is completed, and this is what the provider says that it costs."""
    money = None if cost is None else Money(cost, "provider", str(cost))
    return Observation(Seen.COMPLETED, urls=("https://files.example/1.png",), cost=money)


@pytest_asyncio.fixture
async def till(tmp_path: Path) -> AsyncIterator[Till]:
    """An open till."""
    made = Till(tmp_path)
    await made.open()
    yield made
    assert made.breaches() == []
    await made.close()


async def _hear(till: Till, job: str, observation: Observation, place: int = -1) -> None:
    submission = till.submissions[job][place]
    await till.tell(CallbackHeard(job, submission, observation, evidence=True, at_ms=till.clock.now_ms()))


async def _answer(till: Till, job: str, verdict: Verdict, observation: Observation | None = None) -> None:
    fact = SubmitAnswered(
        job, till.submissions[job][-1], till.job(job).lease_epoch, SubmitOutcome(verdict, observation)
    )
    await till.tell(fact)


async def _running(till: Till, price: int | None = 10_000, ceiling: int | None = None) -> str:
    job = await till.take(await till.account(), price, ceiling=ceiling)
    await till.submit(job)
    await _answer(till, job, Verdict.ACCEPTED, RUNNING)
    return job


@pytest.mark.parametrize(
    ("price", "cost", "moves"),
    [
        (10_000, None, [HOLD, ("charge", 10_000)]),
        (10_000, 10_000, [HOLD, ("charge", 10_000)]),
        (10_000, 7_000, [HOLD, ("charge", 7_000), ("release", 3_000)]),
        (10_000, 13_000, [HOLD, ("charge", 10_000), ("excess", 3_000)]),
        (10_000, 0, [HOLD, ("release", 10_000)]),
        (None, None, []),
        (None, 4_000, [("excess", 4_000)]),
        (0, None, []),
        (0, 4_000, [("excess", 4_000)]),
    ],
)
async def test_completion_settles_what_was_held(
    till: Till, price: int | None, cost: int | None, moves: list[tuple[str, int]]
) -> None:
    """The provider's figure counts, else the price list's; what nobody knows moves nothing."""
    job = await _running(till, price)
    await _hear(till, job, done(cost))
    await _hear(till, job, done(999_999))  # the same again, with a lie

    assert till.moves(job) == moves
    assert till.job(job).status is JobStatus.COMPLETED
    assert till.standing(till.job(job).account_id)["held"] == 0


@pytest.mark.parametrize(
    ("cost", "moves"),
    [
        (4_000, [HOLD, ("charge", 4_000), ("release", 6_000)]),
        (13_000, [HOLD, ("charge", 10_000), ("excess", 3_000)]),
        (None, [HOLD, ("release", 10_000)]),
    ],
)
async def test_ceiling_is_held_and_never_charged(till: Till, cost: int | None, moves: list[tuple[str, int]]) -> None:
    """Of a price that nobody knew, what the completion says is charged; a completion that says nothing charges nothing."""
    job = await _running(till, None, ceiling=10_000)
    estimated = till.job(job).cost_estimated
    await _hear(till, job, done(cost))

    assert till.moves(job) == moves
    assert (estimated, till.job(job).cost_charged) == (None, cost)


async def test_job_without_success_costs_nothing(till: Till) -> None:
    """Failed, cancelled and expired let go of everything."""
    failed, cancelled, expired = [await _running(till) for _ in range(3)]
    await _hear(till, failed, FAILED)
    await till.tell(CancelAnswered(cancelled, till.job(cancelled).account_id, cancelled=True))
    till.clock.advance(90_000)
    await till.tell(DeadlinePassed(expired))

    for job in (failed, cancelled, expired):
        assert till.moves(job) == [HOLD, ("release", 10_000)]
        assert till.standing(till.job(job).account_id)["balance"] == 0


async def test_unknown_submission_keeps_its_hold_until_it_is_decided(till: Till) -> None:
    """Also over a crash, and over an operator's further submission, which is held for once."""
    job = await till.take(await till.account(), 10_000)
    await till.submit(job)
    await till.crash()
    await till.abandon()
    assert (till.job(job).status, till.moves(job)) == (JobStatus.SUBMIT_UNKNOWN, [HOLD])
    await till.tell(ResubmitAsked(job, till.job(job).account_id))
    await till.submit(job)
    assert till.moves(job) == [HOLD]
    await _answer(till, job, Verdict.ACCEPTED, done())

    assert till.moves(job) == [HOLD, ("charge", 10_000)]


async def test_completion_after_the_end_is_charged_once(till: Till) -> None:
    """After expired and after cancelled: marked as late, and not repeated by callbacks or polls."""
    expired, cancelled = [await _running(till) for _ in range(2)]
    till.clock.advance(90_000)
    await till.tell(DeadlinePassed(expired))
    await till.tell(CancelAnswered(cancelled, till.job(cancelled).account_id, cancelled=True))
    for job in (expired, cancelled):
        await _hear(till, job, done(12_000))
        await _hear(till, job, done(12_000))
        await till.tell(Polled(job, till.submissions[job][-1], 0, PollOutcome(PollVerdict.OBSERVED, done(5))))

        assert till.moves(job) == [HOLD, ("release", 10_000), ("late", 12_000)]
        assert till.standing(till.job(job).account_id)["balance"] == -12_000
    assert [till.job(job).status for job in (expired, cancelled)] == [JobStatus.COMPLETED, JobStatus.CANCELLED]


async def test_completion_after_a_free_failure_is_late(till: Till) -> None:
    """The provider said "failed, free", and then that it is completed: that is paid for, once."""
    job = await _running(till, None)
    await _hear(till, job, Observation(Seen.FAILED, cost=Money(0, "price_list")))
    assert till.moves(job) == []
    for _ in range(2):
        await _hear(till, job, done(20_000))

    assert till.moves(job) == [("late", 20_000)]
    assert (till.job(job).status, till.job(job).cost_charged) == (JobStatus.FAILED, 20_000)


async def test_cost_told_when_it_was_taken_is_charged(till: Till) -> None:
    """No price list knows the job, and its completion says nothing: the submit's answer did, and it is kept."""
    job = await till.take(await till.account(), None)
    await till.submit(job)
    await _answer(till, job, Verdict.ACCEPTED, Observation(Seen.RUNNING, cost=Money(4_000, "provider", "40")))
    await _hear(till, job, done())

    assert till.moves(job) == [("excess", 4_000)]


async def test_replaced_submission_takes_the_hold_with_it(till: Till) -> None:
    """What the first submission cost is booked when it is heard; the second one then is not charged again."""
    job = await till.take(await till.account(), 10_000)
    await till.submit(job)
    await _answer(till, job, Verdict.UNKNOWN)
    await till.tell(ResubmitAsked(job, till.job(job).account_id))
    await till.submit(job)
    await _answer(till, job, Verdict.ACCEPTED, RUNNING)
    await _hear(till, job, done(), place=0)
    assert till.moves(job) == [HOLD, ("charge", 10_000)]
    await _hear(till, job, done())

    assert till.job(job).status is JobStatus.COMPLETED
    assert till.moves(job) == [HOLD, ("charge", 10_000)]


async def test_job_from_before_the_books_is_charged_without_a_hold(till: Till) -> None:
    """An older database's active jobs have none: their cost is all excess."""
    job = await _running(till)
    till.raw.execute("DELETE FROM transfers")
    till.raw.execute("UPDATE accounts SET held = 0")
    till.raw.execute("UPDATE jobs SET cost_held = NULL")
    await _hear(till, job, done())

    assert till.moves(job) == [("excess", 10_000)]


async def test_forced_cancel_lets_go(till: Till) -> None:
    """A caller gives an unknown submission up; if it was made all the same, its cost is late."""
    job = await till.take(await till.account(), 10_000)
    await till.submit(job)
    await _answer(till, job, Verdict.UNKNOWN)
    await till.tell(CancelAsked(job, till.job(job).account_id, force=True))
    assert till.moves(job) == [HOLD, ("release", 10_000)]
    await _hear(till, job, done())

    assert till.moves(job)[2:] == [("late", 10_000)]


async def test_credit_counts_once_for_its_key(till: Till) -> None:
    """A doubled top-up is money: the same again changes nothing, another one with the key is refused."""
    mine, other = await till.account(), await till.account()
    first = await till.at_once([Credit(mine, 5_000_000, "invoice", "key_1", "k")] * 3)
    [changed] = await till.at_once([Credit(mine, 6_000_000, "invoice", "key_1", "k")])
    foreign = await till.at_once([Credit(other, 6_000_000, None, None, "k"), Credit(other, -1, None, None)])
    [nobody] = await till.at_once([Credit("acc_nobody", 1, None, None)])

    assert first == [False, True, True]
    assert isinstance(changed, Invalid)
    assert changed.code == "idempotency_key_reused"
    assert foreign == [False, False]
    assert isinstance(nobody, NotFound)
    assert [till.standing(each)["balance"] for each in (mine, other)] == [5_000_000, 5_999_999]


async def test_balance_stays_within_what_the_store_can_count(till: Till) -> None:
    """A million credits of a billion are refused before integers become floating."""
    account = await till.account()
    till.raw.execute("UPDATE accounts SET balance = 999999999999999999")
    [refused] = await till.at_once([Credit(account, 2, None, None)])
    till.raw.execute("UPDATE accounts SET balance = 0")

    assert isinstance(refused, Invalid)
    assert refused.errors[0].pointer == "/amount"


@pytest.mark.parametrize(
    "row",
    [
        ("hold", "available", "held", 0, "job_1"),
        ("hold", "available", "held", -1, "job_1"),
        ("hold", "held", "available", 1, "job_1"),
        ("hold", "held", "held", 1, "job_1"),
        ("gift", "funding", "available", 1, None),
        ("credit", "funding", "available", 1, "job_1"),
        ("charge", "held", "spent", 1, None),
    ],
)
async def test_engine_itself_refuses_a_wrong_transfer(till: Till, row: tuple[str | int | None, ...]) -> None:
    """No amount, no move that there is not, no job where one belongs."""
    account = await till.account()
    sql = "INSERT INTO transfers (account_id, kind, debit, credit, amount, job_id, at) VALUES (?, ?, ?, ?, ?, ?, 1)"
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        till.raw.execute(sql, (account, *row))


async def test_engine_itself_refuses_a_second_charge(till: Till) -> None:
    """Of one kind a job has one."""
    job = await _running(till)
    await _hear(till, job, done())
    for kind in ("hold", "charge"):
        with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
            till.raw.execute(
                "INSERT INTO transfers (account_id, job_id, kind, debit, credit, amount, at) "
                "SELECT account_id, job_id, kind, debit, credit, amount, at FROM transfers WHERE job_id = ? AND kind = ?",
                (job, kind),
            )
