"""A hand: runs this process's share of a kind of work, each piece in a task of its own, and lets them finish when it drains."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import structlog

from service.jobs.row import JobRow

_log = structlog.get_logger(__name__)


class TaskHand:
    """Work in tasks, with a number of places for each provider.

    Args:
        work: Does one job's piece of work; it must not raise for anything a provider does.
        places: How many pieces may run at once for a provider.
        willing: Whether this kind of work can be done for the job at all.
        lease_ms: How long a lease lasts; longer than the work can take.
        in_order: New work queues behind what waits in the store; whoever claims says `caught_up`.
    """

    def __init__(
        self,
        work: Callable[[JobRow], Awaitable[None]],
        *,
        places: Callable[[str], int],
        willing: Callable[[JobRow], bool],
        lease_ms: int,
        in_order: bool = False,
    ) -> None:
        self._in_order = in_order
        self.lease_ms = lease_ms
        self._work = work
        self._places = places
        self._willing = willing
        self._taken: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = True
        self._behind: set[str] = set()  # providers whose jobs wait in the store
        self.wake = asyncio.Event()  # a place is free for a provider that is behind

    def free(self, provider: str) -> int:
        """How many more pieces this provider may have now."""
        return max(0, self._places(provider) - self._taken[provider]) if self._open else 0

    def running(self) -> int:
        """How many pieces run now, over all providers."""
        return len(self._tasks)

    def reserve(self, job: JobRow) -> bool:
        """See `Hand`. While earlier jobs of the provider wait in the store, new ones queue behind them."""
        if job.provider in self._behind or not self._willing(job):
            return False
        if not self.free(job.provider):
            if self._in_order:
                self._behind.add(job.provider)
            return False
        self._taken[job.provider] += 1
        return True

    def release(self, job: JobRow) -> None:
        """See `Hand`."""
        self._taken[job.provider] -= 1

    def give(self, job: JobRow) -> None:
        """See `Hand`."""
        task = asyncio.create_task(self._run(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def take(self, job: JobRow) -> None:
        """Begin with a job that was claimed for this process, over the limit if need be."""
        self._taken[job.provider] += 1
        self.give(job)

    def caught_up(self, provider: str) -> None:
        """Nothing of this provider waits in the store any more."""
        self._behind.discard(provider)

    async def drain(self, timeout_s: float) -> None:
        """Take nothing new, let what runs finish, and cut off what does not finish in time."""
        self._open = False
        if not self._tasks:
            return
        _, late = await asyncio.wait(set(self._tasks), timeout=timeout_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def settle(self) -> None:
        """Wait until nothing runs any more; for tests and simulations."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _run(self, job: JobRow) -> None:
        try:
            await self._work(job)
        except Exception:  # a hand's outermost guard: the lease runs out and the rescuer takes over
            _log.exception("work_failed", job=job.id)
        finally:
            self._taken[job.provider] -= 1
            if job.provider in self._behind:
                self.wake.set()
