"""Arbitrary histories of the books: takes, submissions, callbacks, polls, cancels, deadlines, crashes, lies about costs.

Run: `python -m tests.accounts.machine --histories 10000`. What must hold is asked of the stored transfers by sums that are
written out here, beside the rules of `db/inspection/invariants.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from service.db.migrate import upgrade
from service.errors import BalanceTooSmall, Invalid, StoreUnavailable
from service.jobs.row import JobRow
from service.jobs.transitions.facts import (
    CallbackHeard,
    CancelAnswered,
    CancelAsked,
    DeadlinePassed,
    Fact,
    Polled,
    ResubmitAsked,
    SubmitAnswered,
)
from service.ledger.spending_limits import SetLimit
from service.ledger.transfers import Credit
from service.providers.client import PollOutcome, PollVerdict, SubmitOutcome, Verdict
from service.providers.mapping import Money, Observation, Seen
from service.schemas.words import LimitKind
from service.states import ACTIVE, ErrorCode, JobStatus
from tests.accounts.till import Till

#: What the price list says, and the ceiling that is held where it says nothing.
PRICES = st.sampled_from(
    [
        (None, None),
        (None, 12_000),
        (None, 1_000_000),
        *((price, None) for price in (0, 1, 9_000, 10_000, 13_000, 2_500_000)),
    ]
)
LIES = st.sampled_from([None, None, 0, 1, 9_000, 10_000, 13_000, 40_000, 10**12])
SEEN = st.sampled_from([Seen.COMPLETED, Seen.COMPLETED, Seen.FAILED, Seen.RUNNING, Seen.CANCELLED])
PART = 500  # histories at once
VERDICTS = st.sampled_from([Verdict.ACCEPTED] * 4 + list(Verdict))

_SPENT = "SELECT coalesce(sum(amount), 0) FROM transfers WHERE account_id = ? AND credit = 'spent' AND at >= ?"
_IN = "SELECT credit, sum(amount) FROM transfers WHERE account_id = ? GROUP BY credit"
_OUT = "SELECT debit, sum(amount) FROM transfers WHERE account_id = ? GROUP BY debit"

total: Counter[str] = Counter()  # what all histories of this process came to


class Books(RuleBasedStateMachine):
    """One history: one store, three accounts, and whatever happens to their jobs."""

    template: Path
    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory()
        self.till = Till.copied(Path(self.directory.name), self.template)
        self.credits: Counter[str] = Counter()
        self.told: dict[str, set[int]] = {}  # by job, what verified completions said that it costs
        self.charged: dict[str, int] = {}  # by job, what it was charged when this was last looked at
        self.keys = 0
        total["histories"] += 1

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Until it is done."""
        total["steps"] += 1
        return self.runner.run(work)

    def teardown(self) -> None:
        """Everything ends; then nothing is held."""
        self.run(self._end())
        self.books_add_up()
        for account_id in self.accounts:
            assert self._books(account_id)["held"] == 0
        for job in self.till.jobs():
            assert job.status not in ACTIVE, job
            total[job.status.value] += 1
        for kind, count in self.till.raw.execute("SELECT kind, count(*) FROM transfers GROUP BY kind").fetchall():
            total[f"transfers of kind {kind}"] += count
        self.run(self.till.close())
        self.runner.close()
        self.directory.cleanup()

    async def _end(self) -> None:
        await self.till.abandon()
        self.till.clock.advance(400 * 86_400)
        await self.till.tell(*(DeadlinePassed(job.id) for job in self.till.jobs()))

    @initialize(credit=st.sampled_from([0, 30_000, 5_000_000]), budget=st.sampled_from([0, 25_000, 3_000_000]))
    def begin(self, credit: int, budget: int) -> None:
        """An account of each kind."""
        self.run(self.till.open())
        self.accounts = [
            self.run(self.till.account()),
            self.run(self.till.account("prepaid", credit)),
            self.run(self.till.account("monthly", credit, budget)),
        ]
        self.credits.update({self.accounts[1]: credit, self.accounts[2]: credit})

    @rule(target=jobs, which=st.integers(0, 2), prices=st.lists(PRICES, min_size=1, max_size=3))
    def take(self, which: int, prices: list[tuple[int | None, int | None]]) -> Any:
        """Several jobs at the same moment: exactly those are taken that fit, in order; none without price and ceiling."""
        account_id = self.accounts[which]
        left = self._left(account_id)
        fits = []
        for price, ceiling in prices:
            held = ceiling if price is None else price
            fits.append(left is None or held == 0 or (held is not None and left >= held))
            if left is not None and held is not None and fits[-1]:
                left -= held
        commands = [self.till.accept(account_id, price, ceiling=ceiling) for price, ceiling in prices]
        answers = self.run(self.till.at_once(commands))
        assert [not isinstance(answer, BalanceTooSmall | Invalid) for answer in answers] == fits
        taken = [answer.job_id for answer in answers if not isinstance(answer, Exception)]
        assert len(taken) == sum(fits)
        assert left is None or left == self._left(account_id)
        total["refused"] += len(prices) - len(taken)
        return multiple(*taken)

    @rule(target=jobs, which=st.integers(0, 2), after=st.integers(0, 4), tries=st.integers(1, 9))
    def take_with_a_full_disk(self, which: int, after: int, tries: int) -> Any:
        """The store fails somewhere on the way: what is not answered is not held for."""
        self.till.connection.full_after, self.till.connection.full_for = after, tries
        commands = [self.till.accept(self.accounts[which], price) for price in (10_000, 0, 13_000)]
        answers = self.run(self.till.at_once(commands))
        self.till.connection.full_for = 0
        stored = {job.id for job in self.till.jobs()}
        for command, answer in zip(commands, answers, strict=True):
            assert (command.job.id in stored) == (not isinstance(answer, StoreUnavailable | BalanceTooSmall))
        return multiple(*(each.job.id for each in commands if each.job.id in stored))

    @rule(job=jobs, seen=SEEN, cost=LIES, verdict=VERDICTS, hint=st.booleans(), hangs=st.booleans())
    def submit(self, *, job: str, seen: Seen, cost: int | None, verdict: Verdict, hint: bool, hangs: bool) -> None:
        """A submission, answered or not, with a callback that comes before the answer."""
        if self.till.job(job).status is not JobStatus.QUEUED or self._is_over(job):
            return
        submission = self.run(self.till.submit(job))
        if hint:
            self._hear(submission, self._observation(job, seen, cost, verified=True), job, copies=2, evidence=True)
        if hangs:
            return
        observation = self._observation(job, seen, cost, verified=verdict is Verdict.ACCEPTED)
        code = ErrorCode.PROVIDER_REJECTED if verdict is Verdict.REJECTED else None
        outcome = SubmitOutcome(verdict, observation if verdict is Verdict.ACCEPTED else None, code, "so it is")
        self.run(self.till.tell(SubmitAnswered(job, submission, self.till.job(job).lease_epoch, outcome)))

    @rule(job=jobs, seen=SEEN, cost=LIES, old=st.booleans(), copies=st.integers(1, 3), evidence=st.booleans())
    def hear(self, *, job: str, seen: Seen, cost: int | None, old: bool, copies: int, evidence: bool) -> None:
        """A callback, once or several times at the same moment, perhaps of a submission that was replaced."""
        submissions = self.till.submissions.get(job)
        if not submissions:
            return
        observation = self._observation(job, seen, cost, verified=evidence)
        self._hear(submissions[0 if old else -1], observation, job, copies=copies, evidence=evidence)

    def _hear(self, submission: str, observation: Observation, job: str, *, copies: int, evidence: bool) -> None:
        fact = CallbackHeard(job, submission, observation, evidence, self.till.clock.now_ms())
        self.run(self.till.tell(*[fact] * copies))

    @rule(job=jobs, seen=SEEN, cost=LIES, old=st.booleans())
    def poll(self, *, job: str, seen: Seen, cost: int | None, old: bool) -> None:
        """The provider is asked, perhaps for a job that has ended, or by one who lost his lease."""
        submissions = self.till.submissions.get(job)
        if not submissions:
            return
        outcome = PollOutcome(PollVerdict.OBSERVED, self._observation(job, seen, cost, verified=True))
        epoch = self.till.job(job).lease_epoch - old
        self.run(self.till.tell(Polled(job, submissions[0 if old else -1], epoch, outcome)))

    @rule(job=jobs, cost=LIES, before=st.sampled_from(["nothing", "nothing", "cancelled", "unknown", "expired"]))
    def go_on(self, job: str, cost: int | None, before: str) -> None:
        """What happens to most jobs; to some of them after something else."""
        if self.till.job(job).status is not JobStatus.QUEUED or self._is_over(job):
            return
        submission = self.run(self.till.submit(job))
        running = self._observation(job, Seen.RUNNING, None, verified=True)
        verdict = Verdict.UNKNOWN if before == "unknown" else Verdict.ACCEPTED
        outcome = SubmitOutcome(verdict, running if verdict is Verdict.ACCEPTED else None)
        self.run(self.till.tell(SubmitAnswered(job, submission, self.till.job(job).lease_epoch, outcome)))
        if before == "cancelled":
            self.run(self.till.tell(CancelAnswered(job, self.till.job(job).account_id, cancelled=True)))
        elif before == "expired":
            self.till.clock.advance(86_400)
            self.run(self.till.tell(DeadlinePassed(job)))
        self._hear(
            submission, self._observation(job, Seen.COMPLETED, cost, verified=True), job, copies=1, evidence=True
        )

    @rule(job=jobs, force=st.booleans(), provider_does=st.booleans())
    def cancel(self, *, job: str, force: bool, provider_does: bool) -> None:
        """A caller wants it cancelled, and the provider may have done so."""
        account_id = self.till.job(job).account_id
        facts: list[Fact] = [CancelAsked(job, account_id, force), CancelAnswered(job, account_id, provider_does)]
        self.run(self.till.tell(*facts) if provider_does else self.till.tell(facts[0]))

    @rule(job=jobs)
    def resubmit(self, job: str) -> None:
        """An operator wants a further submission."""
        self.run(self.till.tell(ResubmitAsked(job, self.till.job(job).account_id)))

    @rule(hours=st.sampled_from([0.1, 0.1, 1, 5, 30, 24 * 20]))
    def wait(self, hours: float) -> None:
        """Time passes, and deadlines with it; also a month may end."""
        self.till.clock.advance(hours * 3600)
        self.run(self.till.tell(*(DeadlinePassed(job.id) for job in self.till.jobs())))

    @rule()
    def crash(self) -> None:
        """The process dies and another one starts."""
        self.run(self.till.crash())
        self.run(self.till.abandon())

    @rule(which=st.integers(0, 2), amount=st.sampled_from([-20_000, 1, 15_000, 2_000_000]), copies=st.integers(1, 3))
    def credit(self, which: int, amount: int, copies: int) -> None:
        """An operator's credit or correction, sent several times with one key."""
        self.keys += 1
        command = Credit(self.accounts[which], amount, "because", None, f"key-{self.keys}")
        answers = self.run(self.till.at_once([command] * copies))
        assert answers == [False] + [True] * (copies - 1)
        self.credits[self.accounts[which]] += amount

    @rule(which=st.integers(1, 2), kind=st.sampled_from(LimitKind), budget=st.sampled_from([0, 12_000, 4_000_000]))
    def relimit(self, which: int, kind: LimitKind, budget: int) -> None:
        """Another limit, at the same moment as a job that it may or may not fit."""
        command = SetLimit(self.accounts[which], kind, budget if kind is LimitKind.MONTHLY else None)
        self.run(self.till.at_once([command, self.till.accept(self.accounts[which], 9_000)]))

    @invariant()
    def books_add_up(self) -> None:
        """Sums of the transfers are what the accounts say, and nobody is charged twice or for nothing."""
        if not hasattr(self, "accounts"):
            return
        assert self.till.breaches() == []
        spent: Counter[str] = Counter()
        for job in self.till.jobs():
            charged = sum(amount for kind, amount in self.till.moves(job.id) if kind in {"charge", "excess", "late"})
            assert charged == 0 or charged in self.told.get(job.id, ()), job
            assert self.charged.get(job.id, charged) in {0, charged}, job  # what was charged stays
            self.charged[job.id] = charged
            spent[job.account_id] += charged
        for account_id in self.accounts:
            books = self._books(account_id)
            assert sum(books.values()) == 0
            assert books["spent"] == spent[account_id]
            assert books["available"] + books["held"] == self.credits[account_id] - spent[account_id]
            assert books["held"] == sum(job.cost_held or 0 for job in self._active(account_id))

    def _active(self, account_id: str) -> list[JobRow]:
        return [job for job in self.till.jobs() if job.account_id == account_id and job.status in ACTIVE]

    def _books(self, account_id: str) -> Counter[str]:
        """What is in each book, by the transfers alone."""
        books: Counter[str] = Counter()
        for sql, sign in ((_IN, 1), (_OUT, -1)):
            for name, amount in self.till.raw.execute(sql, (account_id,)).fetchall():
                books[name] += sign * amount
        return books

    def _left(self, account_id: str) -> int | None:
        """What the account may still spend, by the transfers alone; None: whatever it likes."""
        row = self.till.standing(account_id)
        books = self._books(account_id)
        if row["limit_kind"] == "none":
            return None
        if row["limit_kind"] == "prepaid":
            return books["available"]
        now = datetime.fromtimestamp(self.till.clock.now_ms() / 1000, UTC)
        first_ms = round(datetime(now.year, now.month, 1, tzinfo=UTC).timestamp() * 1000)
        spent = self.till.raw.execute(_SPENT, (account_id, first_ms)).fetchone()[0]
        return int(row["budget"] - spent - books["held"])

    def _observation(self, job_id: str, seen: Seen, cost: int | None, *, verified: bool) -> Observation:
        """What the provider says; what a verified completion says that it costs is remembered."""
        if verified and seen is Seen.COMPLETED:
            price = self.till.job(job_id).cost_estimated
            self.told.setdefault(job_id, set()).add((price or 0) if cost is None else cost)
        urls = ("https://files.example/1.png",) if seen is Seen.COMPLETED else ()
        return Observation(seen, urls=urls, cost=None if cost is None else Money(cost, "provider", str(cost)))

    def _is_over(self, job_id: str) -> bool:
        return self.till.job(job_id).expires_at <= self.till.clock.now_ms()


def check(histories: int, steps: int = 30) -> None:
    """Run so many histories; raises with the shortest one found that breaks a rule."""
    with tempfile.TemporaryDirectory() as directory:
        Books.template = Path(directory) / "template.db"
        upgrade(Books.template)
        chosen = settings(
            max_examples=histories,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        run_state_machine_as_test(Books, settings=chosen)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--histories", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=30, help="at most, of one history")
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))  # thousands of lines
    began = time.monotonic()
    while total["histories"] < asked.histories:  # in parts: Hypothesis remembers every history of one
        check(min(PART, asked.histories - total["histories"]), asked.steps)
    seconds = time.monotonic() - began
    counted = ", ".join(f"{count} {name}" for name, count in sorted(total.items()))
    sys.stdout.write(f"no rule was broken in {seconds:.0f} s: {counted}\n")


if __name__ == "__main__":
    _main()
