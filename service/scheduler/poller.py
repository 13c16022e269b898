"""Asks providers for tasks whose time has come: the fallback for lost callbacks, and the way for providers without any."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from service.clock import Clock
from service.db.writer import Writer
from service.jobs.claims import ClaimDue
from service.jobs.facts import CannotAsk, DeadlinePassed, SubmitAbandoned
from service.jobs.fetch import Fetcher
from service.jobs.hands import TaskHand
from service.jobs.row import JobRow
from service.jobs.track import Track
from service.states import JobStatus

BATCH = 100  # jobs at a time


@dataclass(slots=True)
class Poller:
    """Claims due jobs and hands them to the fetcher; jobs that were left in flight become submit_unknown."""

    writer: Writer
    fetcher: Fetcher
    hand: TaskHand
    clock: Clock
    owner: str

    async def run_once(self) -> int:
        """Claim what is due now; returns how many jobs were claimed."""
        room = BATCH - self.hand.running()
        if room <= 0:
            return 0
        jobs = await self.writer.run(ClaimDue(self.owner, self.hand.lease_ms, room))
        # All at once, so that the writer takes what follows as one set.
        await asyncio.gather(*(self._dispatch(job) for job in jobs))
        return len(jobs)

    async def _dispatch(self, job: JobRow) -> None:
        if job.status is JobStatus.SUBMITTING:
            await self.writer.run(Track(SubmitAbandoned(job.id, job.submission_id)))
        elif job.expires_at <= self.clock.now_ms() and job.is_active:
            await self.writer.run(Track(DeadlinePassed(job.id)))
        elif self.fetcher.can_ask(job):
            self.hand.take(job)
        else:
            await self.writer.run(Track(CannotAsk(job.id, job.lease_epoch, for_ever=self.fetcher.never_asks(job))))
