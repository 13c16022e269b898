"""A till: the production code that takes jobs, hears facts and keeps the books, on an inline store under a virtual clock.

There is no network: a test brings the facts itself, in any order, and may cut the power at any moment.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from service.accounts import accounts
from service.accounts.accounts import CreateAccount
from service.accounts.keys import KeyText
from service.clock import SeededRandomness, VirtualClock
from service.db.inspection.invariants import RULES
from service.db.macros import sqlite_text
from service.db.migrate import upgrade
from service.db.sqlite.inline_store import InlineConnection, InlineReader
from service.db.writer import Command, Writer
from service.egress import Answer, Call
from service.errors import EgressNotSent, FieldError
from service.ids import Ids
from service.jobs.inputs import Inputs
from service.jobs.intake import AcceptJob, Intake
from service.jobs.row import SELECT_JOB, JobRow, from_row
from service.jobs.track import Track, Tracker
from service.jobs.transitions.facts import Fact, SubmitAbandoned, SubmitBegun
from service.jobs.waiters import Waiters
from service.ledger import book_store
from service.ledger.spending_limits import SpendingLimits
from service.polling.pace import Rules
from service.providers.registry import Registry
from service.states import JobStatus
from service.workers import job_claim_store
from service.workers.job_claim_store import VoidLeases

T = TypeVar("T")

DAY_MS = 86_400_000
RULES_OF_JOBS = Rules(can_poll=True, called_back=True, fallback_after_ms=60_000, poll_every_ms=3_000)


class Nowhere:
    """No network."""

    async def check(self, url: str, *, unresolved_ok: bool = False) -> None:
        """Every URL may be reached."""

    async def call(self, call: Call, *, timeout_s: float, read_bytes: int, fresh: bool = False) -> Answer:
        """Nobody answers."""
        raise EgressNotSent("connect_refused", "there is no network")

    async def deliver(
        self, url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float, read_bytes: int
    ) -> Answer:
        """Nobody answers."""
        raise EgressNotSent("connect_refused", "there is no network")


class Willing:
    """A pool that has a slot for everything and does nothing: the test itself does the work."""

    lease_ms = 60_000

    def reserve(self, job: JobRow) -> bool:
        """See `Workers`."""
        return True

    def release(self, job: JobRow) -> None:
        """See `Workers`."""

    def give(self, job: JobRow) -> None:
        """See `Workers`."""

    def freed(self, provider: str) -> None:
        """See `Workers`."""


class Frail(InlineConnection):
    """A disk that is full, `full_for` times, after so much work has passed; undoing what was done is always possible."""

    full_after = 0
    full_for = 0

    async def on_thread(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run the work, or fail instead."""
        if not self.full_for or "rollback" in work.__qualname__:
            return work(self.raw)
        if self.full_after:
            self.full_after -= 1
            return work(self.raw)
        self.full_for -= 1
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error


class Till:
    """One process on one store; `open` first, and again after `crash`."""

    def __init__(self, directory: Path) -> None:
        self.clock = VirtualClock()
        self.randomness = SeededRandomness(1)
        self.ids = Ids(self.clock, self.randomness)
        self.path = directory / "remora.db"
        self.submissions: dict[str, list[str]] = {}  # by job, the latest last
        upgrade(self.path)

    @classmethod
    def copied(cls, directory: Path, template: Path) -> Till:
        """One on a copy of a store that is up to date already."""
        shutil.copy(template, directory / "remora.db")
        made = cls.__new__(cls)
        made.clock = VirtualClock()
        made.randomness = SeededRandomness(1)
        made.ids = Ids(made.clock, made.randomness)
        made.path = directory / "remora.db"
        made.submissions = {}
        return made

    async def open(self) -> None:
        """Start a process."""
        self.connection = Frail(self.path)
        self.writer = Writer(self.connection, self.clock)
        self.reader = InlineReader(self.connection)
        tracker = Tracker(
            ids=self.ids,
            clock=self.clock,
            links=lambda job_id, idx: f"https://remora.example/r/{job_id}/{idx}",
            rules=lambda _provider, _operation: RULES_OF_JOBS,
            owner="till",
            waiters=Waiters(),
            submitter=Willing(),
            fetcher=Willing(),
        )
        self.writer.handle(Track, tracker.handle)
        limits = SpendingLimits()
        for register in (accounts.register, book_store.register, limits.register, job_claim_store.register):
            register(self.writer)
        nowhere = Nowhere()
        Intake(
            writer=self.writer,
            reader=self.reader,
            registry=_registry(nowhere),
            egress=nowhere,
            tracker=tracker,
            limits=limits,
            ids=self.ids,
            clock=self.clock,
            links=tracker.links,
            job_ttl_ms=DAY_MS,
            inputs=Inputs(self.reader),
        )
        self.writer.start()
        await self.writer.run(VoidLeases())

    async def close(self) -> None:
        """Stop as one should."""
        await self.writer.close()

    async def crash(self) -> None:
        """The process is gone, and whatever it had not committed with it; another one starts."""
        task = self.writer._task
        assert task is not None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if self.raw.in_transaction:
            self.raw.execute("ROLLBACK")
        self.raw.close()
        await self.open()

    @property
    def raw(self) -> sqlite3.Connection:
        """The database as it is."""
        return self.connection.raw

    async def account(self, limit: str = "none", credit: int = 0, budget: int | None = None) -> str:
        """A new account; returns its id."""
        account_id = self.ids.new("acc")
        text = self.randomness.bytes(8).hex()
        command = CreateAccount(
            account_id,
            "shop",
            limit,
            b"sealed",
            "whsec_",
            self.ids.new("key"),
            KeyText(text),
            ("jobs:write",),
            budget,
            credit,
        )
        await self.writer.run(command)
        return account_id

    def accept(
        self, account_id: str, price: int | None, key: str | None = None, *, ceiling: int | None = None
    ) -> AcceptJob:
        """A job of that price, or of a price that nobody knows: with what is held for it, or without."""
        now_ms = self.clock.now_ms()
        job = JobRow(
            id=self.ids.new("job"),
            account_id=account_id,
            provider="sandbox",
            operation="generate",
            status=JobStatus.QUEUED,
            seq=0,
            created_at=now_ms,
            expires_at=now_ms + DAY_MS,
            due_at=now_ms,
            cost_estimated=price,
            cost_basis="unknown" if price is None else "price_list",
            cost_held=price or ceiling,
        )
        unpriced = () if price is not None or ceiling else (FieldError("/input/model", "has no known price"),)
        return AcceptJob(job, b"{}", key, unpriced=unpriced)

    async def take(self, account_id: str, price: int | None, *, ceiling: int | None = None) -> str:
        """Take a job; returns its id."""
        return (await self.writer.run(self.accept(account_id, price, ceiling=ceiling))).job_id

    async def at_once(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Several at the same time, which the writer takes as one batch."""
        return await asyncio.gather(*map(self.writer.run, commands), return_exceptions=True)

    async def tell(self, *facts: Fact) -> list[Any]:
        """Facts, all at the same time; one that is refused is answered with why."""
        return await self.at_once([Track(fact) for fact in facts])

    async def submit(self, job_id: str) -> str:
        """A request to the provider leaves; returns its submission's id."""
        number = sum(map(len, self.submissions.values()))
        submission = f"sbm_{number}"
        self.submissions.setdefault(job_id, []).append(submission)
        began = await self.tell(
            SubmitBegun(job_id, self.job(job_id).lease_epoch, submission, b"%d" % number, lease_ms=60_000)
        )
        assert began == [True]
        return submission

    async def abandon(self) -> None:
        """What a start of the service does about requests that were in flight."""
        for job in self.jobs():
            if job.status is JobStatus.SUBMITTING:
                await self.tell(SubmitAbandoned(job.id, job.submission_id))

    def job(self, job_id: str) -> JobRow:
        """A job as it is stored."""
        return from_row(self.raw.execute(f"{SELECT_JOB} WHERE id = ?", (job_id,)).fetchone())

    def jobs(self) -> list[JobRow]:
        """All jobs."""
        return [from_row(row) for row in self.raw.execute(f"{SELECT_JOB} ORDER BY id").fetchall()]

    def standing(self, account_id: str) -> dict[str, Any]:
        """An account as it is stored."""
        return dict(self.raw.execute("SELECT * FROM accounts WHERE id = ?", (account_id,)).fetchone())

    def moves(self, job_id: str) -> list[tuple[str, int]]:
        """What moved for a job, in order."""
        sql = "SELECT kind, amount FROM transfers WHERE job_id = ? ORDER BY id"
        return [(row["kind"], row["amount"]) for row in self.raw.execute(sql, (job_id,)).fetchall()]

    def breaches(self) -> list[tuple[str, list[str]]]:
        """What is wrong with the books."""
        asked = (
            (says, self.raw.execute(sqlite_text(question)).fetchall()) for rule, says, question in RULES if rule == "I6"
        )
        return [(says, [str(row[0]) for row in rows]) for says, rows in asked if rows]


_registries: list[Registry] = []


def _registry(nowhere: Nowhere) -> Registry:
    """The built-in cards, read once: nothing here asks them."""
    if not _registries:
        _registries.append(Registry.load({}, None, nowhere, VirtualClock()))
    return _registries[0]
