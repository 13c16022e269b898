"""The sole writer of job state: facts in, and in one transaction the states, events, results and whatever the followers add.

Followers (deliveries, the ledger) are handed in by the composition root, so that what must commit together does, and a
stage still imports no later one. Work that is due at once is given to the worker pools of this process after the commit.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from service.clock import Clock
from service.db.transaction import Tx
from service.db.writer import Command
from service.ids import Ids
from service.jobs import costs, store
from service.jobs.row import JobRow, about, duration_of
from service.jobs.state_events import StateEvent
from service.jobs.transitions.decide import decide
from service.jobs.transitions.draft import Draft
from service.jobs.transitions.facts import Answer, Fact
from service.jobs.unfinished import UnfinishedTasks
from service.jobs.view import Links, ResultRow
from service.jobs.waiters import Waiters
from service.ledger.book_store import book
from service.polling.durations import Learned, kind_of
from service.polling.pace import Rules
from service.states import FINAL, ErrorCode, JobStatus, ResolvedBy
from service.telemetry import SparingLog

#: The ends that an operator looks for, as the log tells them; the others are counted only (docs/operations.md).
_TOLD: Final[dict[JobStatus, tuple[Literal["info", "warning"], str]]] = {
    JobStatus.FAILED: ("info", "job_failed"),
    JobStatus.EXPIRED: ("warning", "job_expired"),
    JobStatus.SUBMIT_UNKNOWN: ("warning", "job_submit_unknown"),  # perhaps paid for, and waiting for a decision
}

_OPERATORS: Final = {ErrorCode.PROVIDER_AUTH.value, ErrorCode.PROVIDER_FUNDS.value}
#: Providers explain these with words of the prompt, which no log should have.
_QUOTING: Final = {ErrorCode.CONTENT_MODERATED.value, ErrorCode.INVALID_INPUT.value}
MAX_REASON: Final = 300  # characters

Follower = Callable[[Tx, Sequence[StateEvent]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Track(Command[Answer]):
    """Take a fact; answered with what `decide` answers."""

    fact: Fact


class Workers(Protocol):
    """What does work in this process: submitting, or asking a provider."""

    lease_ms: int

    def reserve(self, job: JobRow) -> bool:
        """Take a slot for this job; False when there is none (the work is then claimed later)."""

    def release(self, job: JobRow) -> None:
        """Give the slot back, since the transaction was rolled back."""

    def give(self, job: JobRow) -> None:
        """Begin; the slot was reserved and the lease is committed."""

    def freed(self, provider: str) -> None:
        """There may be room for the provider again."""


class NoWorkers:
    """Nothing works in this process: everything is left to be claimed. The inline stand-in."""

    lease_ms = 60_000

    def reserve(self, job: JobRow) -> bool:
        """See `Workers`."""
        return False

    def release(self, job: JobRow) -> None:
        """See `Workers`."""

    def give(self, job: JobRow) -> None:
        """See `Workers`."""

    def freed(self, provider: str) -> None:
        """See `Workers`."""


class Keeper(Protocol):
    """Who makes our copies of results."""

    def admit(self, tx: Tx, job: JobRow, results: Sequence[ResultRow]) -> list[ResultRow]:
        """Say of new results when they are to be fetched; what this process has a place for is fetched after the commit."""


class NoKeeper:
    """No copies are made: links lead to the provider's files."""

    def admit(self, tx: Tx, job: JobRow, results: Sequence[ResultRow]) -> list[ResultRow]:
        """See `Keeper`."""
        return list(results)


class Observer(Protocol):
    """Who counts what happens (telemetry)."""

    def moved(self, provider: str, operation: str, old: JobStatus, new: JobStatus) -> None:
        """A job changed its state; committed."""

    def callback_became_event(self, seconds: float) -> None:
        """A final event that a callback brought about is committed, so long after the callback came."""


@dataclass(slots=True)
class Tracker:
    """Applies facts to jobs as sets; `rules` gives what deciding needs to know of a provider's operation."""

    ids: Ids
    clock: Clock
    links: Links
    rules: Callable[[str, str], Rules]
    owner: str
    waiters: Waiters
    observer: Observer | None = None
    followers: Sequence[Follower] = ()
    learned: Learned = field(default_factory=Learned)
    tasks: UnfinishedTasks = field(default_factory=UnfinishedTasks)
    submitter: Workers = field(default_factory=NoWorkers)
    fetcher: Workers = field(default_factory=NoWorkers)
    keeper: Keeper = field(default_factory=NoKeeper)
    _lines: SparingLog = field(init=False)

    def __post_init__(self) -> None:
        """Made from what was given."""
        self._lines = SparingLog(__name__, self.clock)

    async def handle(self, tx: Tx, commands: Sequence[Track]) -> list[Answer | Exception]:
        """The writer's handler for `Track`."""
        return list(await self.apply(tx, [command.fact for command in commands]))

    async def apply(self, tx: Tx, facts: Sequence[Fact]) -> list[Answer]:
        """Take facts in order; for other handlers that bring facts within their own transaction."""
        jobs = await store.load(tx, {fact.job_id for fact in facts})
        drafts: dict[str, Draft] = {}
        answers: list[Answer] = []
        for fact in facts:
            job = jobs.get(fact.job_id)
            if job is None:
                answers.append(False)
                continue
            draft = drafts.get(job.id)
            if draft is None:
                draft = drafts[job.id] = Draft(job, tx.now_ms, self.links)
            kind = kind_of(job.provider, job.operation, job.input)
            rules = self.learned.rules(kind, self.rules(job.provider, job.operation))
            answers.append(decide(draft, fact, rules))
        await self.write(tx, list(drafts.values()))
        return answers

    async def write(self, tx: Tx, drafts: list[Draft]) -> None:
        """Write decided drafts with everything that belongs to them."""
        for draft in drafts:
            self.lease_if_due(tx, draft.job)
            if draft.results and draft.job.erased_at is None:
                draft.results = self.keeper.admit(tx, draft.job, draft.results)
        transfers = costs.settle(drafts)
        store.update(tx, drafts)
        book(tx, transfers)
        await self.follow(tx, drafts)

    async def follow(self, tx: Tx, drafts: list[Draft]) -> None:
        """Write the timelines, let the followers add what belongs to the events, and tell those who wait after the commit."""
        events = store.insert_events(tx, drafts, self.ids)
        if events:
            for follower in self.followers:
                await follower(tx, events)
        moved = [draft for draft in drafts if draft.job.status is not draft.was]
        if moved:
            tx.after_commit(lambda: self._tell(moved))
        overdue = [draft.job for draft in drafts if draft.job.overdue and draft.job.is_active]
        if overdue:
            tx.after_commit(lambda: self._count(overdue))

    def lease_if_due(self, tx: Tx, job: JobRow) -> None:
        """Work that is due now is born leased to this process, while there is a slot for it."""
        if job.due_at is None or job.due_at > tx.now_ms or job.lease_owner is not None:
            return
        workers = self.submitter if job.status is JobStatus.QUEUED else self.fetcher
        if workers.reserve(job):
            job.lease_owner = self.owner
            job.lease_until = tx.now_ms + workers.lease_ms
            job.lease_epoch += 1
            tx.on_rollback(lambda: workers.release(job))
            tx.after_commit(lambda: workers.give(job))

    def _count(self, jobs: Iterable[JobRow]) -> None:
        """Keep count of the tasks at their providers; one that is over makes room for the next."""
        for job in jobs:
            self.tasks.follow(job)
            self.submitter.freed(job.provider)

    def _tell(self, moved: list[Draft]) -> None:
        self._count(draft.job for draft in moved)
        for draft in moved:
            job = draft.job
            if job.status in FINAL:
                self.waiters.notify(job.id)
                self._learn(job)
            if job.status in _TOLD:
                self._note(draft)
            if self.observer is not None:
                self.observer.moved(job.provider, job.operation, draft.was, job.status)
                if draft.heard_at is not None and job.resolved_by == ResolvedBy.CALLBACK:
                    self.observer.callback_became_event((self.clock.now_ms() - draft.heard_at) / 1000)

    def _note(self, draft: Draft) -> None:
        job = draft.job
        level, event = _TOLD[job.status]
        if job.error_code in _OPERATORS:
            level = "warning"  # every job will fail until the key or the purse at the provider is mended
        reason = draft.reason or (None if job.error_code in _QUOTING else job.error_message)
        self._lines.say(
            level,
            event,
            **about(job),
            operation=job.operation,
            code=draft.cause or job.error_code,
            reason=reason and reason[:MAX_REASON],
        )

    def learn_from(self, jobs: Iterable[JobRow]) -> None:
        """After a start: what the store remembers of finished jobs, oldest first."""
        for job in jobs:
            self._learn(job)

    def _learn(self, job: JobRow) -> None:
        """Remember how long the task took: to the moment where a callback told us, else within two polls."""
        taught = duration_of(job)
        if taught is not None:
            kind = kind_of(job.provider, job.operation, job.input)
            self.learned.record(kind, self.rules(job.provider, job.operation), *taught)
