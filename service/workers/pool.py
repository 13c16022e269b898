"""A worker pool: this process's share of one kind of work, each piece in a task of its own, within the limits of each provider.

Work for which there is no slot waits in the store and not here, since a lease must not lapse while its holder waits. Which
work that is and in which order it is taken is `dispatch`'s to say.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

import structlog

from service.errors import StoreUnavailable
from service.jobs.row import JobRow, about
from service.providers.limiter import Slot
from service.tasks import finish
from service.workers.job_claim_store import Share, Stage

_log = structlog.get_logger(__name__)


class ProviderLimits(Protocol):
    """What a provider takes of one kind of work."""

    def room(self, provider: str) -> int:
        """How many pieces may begin now."""

    def share(self, provider: str) -> Share:
        """How the room is shared between accounts."""

    def note(self, job: JobRow) -> None:
        """A job came, whether there is room for it or not."""

    def wait_s(self, provider: str) -> float | None:
        """Seconds after which there may be room although nothing ended; None: something has to end first."""

    def enter(self, job: JobRow) -> Slot:
        """Begin with a piece; ended by `leave`."""

    def leave(self, job: JobRow, slot: Slot) -> None:
        """The piece ended, or never began."""


class Observer(Protocol):
    """Who counts failures (telemetry)."""

    def work_failed(self, kind: str) -> None:
        """A piece of work ended in an error that it did not expect."""


class WorkerPool:
    """Work in tasks.

    Args:
        kind: What the work is.
        work: Does one job's piece of work; it must not raise for anything a provider does.
        limits: Of the providers.
        accepts: Whether this kind of work can be done for the job at all.
        lease_ms: How long a lease lasts; longer than the work can take.
        closing: Set when nothing new begins any more; the work may look at it, too.
    """

    def __init__(
        self,
        kind: Stage,
        work: Callable[[JobRow, Slot], Awaitable[None]],
        limits: ProviderLimits,
        *,
        accepts: Callable[[JobRow], bool],
        lease_ms: int,
        observer: Observer,
        closing: asyncio.Event | None = None,
    ) -> None:
        self.kind: Stage = kind
        self.lease_ms = lease_ms
        self.wake = asyncio.Event()  # something may be claimed for a provider that is behind
        self._work = work
        self._limits = limits
        self._accepts = accepts
        self._observer = observer
        self._slots: dict[str, Slot] = {}  # of jobs that were reserved, by id
        self._held: Counter[str] = Counter()  # room that a claim under way may fill
        self._behind: set[str] = set()  # providers whose jobs wait in the store
        self._left: Counter[str] = Counter()  # how often a job was left there
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = closing or asyncio.Event()

    @property
    def closed(self) -> bool:
        """Whether nothing new begins any more."""
        return self._closing.is_set()

    def free(self, provider: str) -> int:
        """How many more pieces this provider may have now."""
        return max(0, self._limits.room(provider) - self._held[provider]) if not self.closed else 0

    def share(self, provider: str) -> Share:
        """How a provider's room is shared between accounts."""
        return self._limits.share(provider)

    def note(self, jobs: Iterable[JobRow]) -> None:
        """After a start: jobs of late, of which it can be told which accounts use a provider."""
        for job in jobs:
            self._limits.note(job)

    def wait_s(self) -> float | None:
        """Seconds after which a provider that is behind may have room again; None: no time makes any."""
        waits = [wait for each in self._behind if (wait := self._limits.wait_s(each)) is not None]
        return min(waits, default=None)

    def reserve(self, job: JobRow) -> bool:
        """See `Workers`. While earlier jobs of the provider wait in the store, new ones queue behind them."""
        self._limits.note(job)
        if not self._accepts(job):
            return False
        if job.provider in self._behind:
            self._left[job.provider] += 1
            return False
        if not self.share(job.provider).admits(job.account_id, self.free(job.provider)):
            self._behind.add(job.provider)
            self._left[job.provider] += 1
            self.wake.set()  # so that somebody looks when time makes room
            return False
        self._slots[job.id] = self._limits.enter(job)
        return True

    def release(self, job: JobRow) -> None:
        """See `Workers`."""
        self._limits.leave(job, self._slots.pop(job.id))
        self.freed(job.provider)

    def give(self, job: JobRow) -> None:
        """See `Workers`."""
        task = asyncio.create_task(self._run(job, self._slots.pop(job.id)), name=f"{self.kind}-{job.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def take(self, job: JobRow) -> None:
        """Begin with a job that was claimed for this process, within what was held for it."""
        self._slots[job.id] = self._limits.enter(job)
        self.give(job)

    def freed(self, provider: str) -> None:
        """There may be room for the provider; if its jobs wait in the store, they are looked for."""
        if provider in self._behind:
            self.wake.set()

    @contextmanager
    def held(self, free: dict[str, int]) -> Iterator[None]:
        """Keep room for what is about to be claimed, so that nobody else takes it meanwhile."""
        self._held.update(free)
        try:
            yield
        finally:
            self._held.subtract(free)

    def behind(self) -> set[str]:
        """Providers whose jobs wait in the store, as far as is known."""
        return set(self._behind)

    def stamp(self, provider: str) -> int:
        """A number that is another one once a further job was left in the store; see `claimed`."""
        return self._left[provider]

    def claimed(self, provider: str, *, count: int, more: bool, stamp: int) -> None:
        """Jobs of the provider were claimed.

        Args:
            provider: Its name.
            count: How many.
            more: Others wait in the store.
            stamp: What `stamp` gave before the store was asked: it may not have seen what was left there since.
        """
        left = self._left[provider] != stamp
        (self._behind.add if more or left else self._behind.discard)(provider)
        if left or (more and count):
            self.wake.set()  # there may be room left, or time may make some

    @property
    def out(self) -> int:
        """How many pieces of work run."""
        return len(self._tasks)

    async def drain(self, timeout_s: float) -> list[str]:
        """Take nothing new, let what runs finish, and cut off what does not finish in time; returns the jobs of that."""
        self._closing.set()
        return [name.removeprefix(f"{self.kind}-") for name in await finish(self._tasks, timeout_s)]

    async def settle(self) -> None:
        """Wait until nothing runs any more; for tests and simulations."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _run(self, job: JobRow, slot: Slot) -> None:
        try:
            await self._work(job, slot)
        except StoreUnavailable as error:  # it is claimed again when its lease ends
            _log.warning("work_postponed", kind=self.kind, **about(job), reason=str(error))
        except Exception:  # a pool's outermost guard: the lease runs out and the job is claimed again
            self._observer.work_failed(self.kind)
            _log.exception("work_failed", kind=self.kind, **about(job))
        finally:
            self._limits.leave(job, slot)
            self.freed(job.provider)
