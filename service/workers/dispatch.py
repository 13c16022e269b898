"""Filling a worker pool from the store: what is due is claimed when a tick comes, and as soon as there is room for a provider whose jobs wait.

One for submissions and one for polls. It must not know what the work is.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import structlog

from service.clock import Clock
from service.db.writer import Writer
from service.errors import StoreUnavailable
from service.jobs.row import JobRow
from service.jobs.track import Track
from service.jobs.transitions.facts import Fact
from service.workers.job_claim_store import ClaimJobs, ProviderRoom
from service.workers.pool import WorkerPool

AT_ONCE: Final = 100  # jobs of one provider in one claim

_log = structlog.get_logger(__name__)


class Observer(Protocol):
    """Who counts failures (telemetry)."""

    def loop_failed(self, loop: str) -> None:
        """A run of a loop ended in an error that it did not expect."""


class Dispatcher:
    """Claims jobs for the providers that have room and hands them to the pool.

    Args:
        pool: Of submissions, or of polls.
        providers: Names of those that jobs may wait for.
        settled: What is to be recorded of a due job instead of work for the pool, such as a deadline; None: it is work.
    """

    def __init__(
        self,
        pool: WorkerPool,
        *,
        writer: Writer,
        clock: Clock,
        owner: str,
        providers: Iterable[str],
        observer: Observer,
        settled: Callable[[JobRow], Fact | None] = lambda _: None,
    ) -> None:
        self.pool = pool
        self._writer = writer
        self._clock = clock
        self._owner = owner
        self._providers = set(providers)
        self._observer = observer
        self._settled = settled
        self._turns: dict[str, str] = {}  # the account that was served last, by provider

    def look_for(self, providers: Iterable[str]) -> None:
        """Jobs may wait for these providers, too: those of an earlier process whose cards are gone."""
        self._providers.update(providers)

    async def run_once(self) -> int:
        """Claim what is due now for all providers; returns how many jobs were claimed."""
        return await self._claim(self._providers)

    async def run_forever(self) -> None:
        """Claim for the providers that are behind whenever there may be room again."""
        while True:
            await self._woken()
            try:
                await self._claim(self.pool.behind())
            except StoreUnavailable as error:
                _log.warning(
                    "claim_postponed", stage=self.pool.kind, error=str(error)
                )  # the next tick comes back to it
            except Exception:  # the loop's outermost guard: what is behind would wait for the tick for ever
                self._observer.loop_failed(f"{self.pool.kind}-dispatcher")
                _log.exception("claim_broke", stage=self.pool.kind)

    async def _woken(self) -> None:
        """Until a slot was given back, or time makes room."""
        wait_s = self.pool.wait_s()
        if wait_s is None:
            await self.pool.wake.wait()
        else:
            waits = [asyncio.ensure_future(each) for each in (self.pool.wake.wait(), self._clock.sleep(wait_s))]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in waits:
                    each.cancel()
        self.pool.wake.clear()

    async def _claim(self, providers: Iterable[str]) -> int:
        free = {name: room for name in sorted(providers) if (room := self.pool.free(name))}
        if not free:
            return 0
        rooms = tuple(self._room(name, places) for name, places in free.items())
        stamps = {name: self.pool.stamp(name) for name in free}
        facts: list[Fact] = []
        with self.pool.held({room.provider: room.count for room in rooms}):
            claimed = await self._writer.run(ClaimJobs(self.pool.kind, self._owner, self.pool.lease_ms, rooms))
            for job in claimed.jobs:
                if (fact := self._settled(job)) is None:
                    self.pool.take(job)
                else:
                    facts.append(fact)
        self._turns.update(claimed.turns)
        taken = Counter(job.provider for job in claimed.jobs)
        for name in free:
            self.pool.claimed(name, count=taken[name], more=name in claimed.more, stamp=stamps[name])
        # All at once, so that the writer takes them as one set.
        await asyncio.gather(*(self._writer.run(Track(fact)) for fact in facts))
        return len(claimed.jobs)

    def _room(self, provider: str, free: int) -> ProviderRoom:
        count = min(AT_ONCE, free)
        return ProviderRoom(provider, count, self._turns.get(provider, ""), self.pool.share(provider), free - count)
