"""Finds work that is due and that nobody holds: jobs to submit, and deliveries; also what a lapsed lease left behind."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import structlog

from service.db.writer import Writer
from service.deliveries.send import Sender
from service.errors import StoreUnavailable
from service.jobs.claims import ClaimQueued
from service.jobs.hands import TaskHand
from service.providers.registry import Registry

_log = structlog.get_logger(__name__)

BATCH = 100  # jobs of one provider at a time


@dataclass(slots=True)
class Rescuer:
    """Claims queued jobs for the providers that have room, and due deliveries for the lanes that have."""

    writer: Writer
    registry: Registry
    submitter: TaskHand
    sender: Sender
    owner: str

    async def run_once(self) -> None:
        """Claim what is due now."""
        await self.submit_queued()
        await self.sender.run_once()

    async def submit_queued(self) -> int:
        """Claim queued jobs for the providers that have room; returns how many."""
        free = tuple(
            (provider.name, min(BATCH, room))
            for provider in self.registry.all()
            if (room := self.submitter.free(provider.name))
        )
        if not free:
            return 0
        jobs = await self.writer.run(ClaimQueued(self.owner, self.submitter.lease_ms, free))
        taken = Counter(job.provider for job in jobs)
        for name, room in free:
            if taken[name] < room:
                self.submitter.caught_up(name)
        for job in jobs:
            self.submitter.take(job)
        return len(jobs)

    async def refill_forever(self) -> None:
        """Claim at once whenever a place is free for a provider that is behind, not only at the next tick."""
        while True:
            await self.submitter.wake.wait()
            self.submitter.wake.clear()
            try:
                await self.submit_queued()
            except StoreUnavailable as error:
                _log.warning("claim_postponed", error=str(error))  # the next tick comes back to it
