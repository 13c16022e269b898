"""Finds work that is due and that nobody holds: jobs to submit, and deliveries; also what a lapsed lease left behind."""

from __future__ import annotations

from dataclasses import dataclass

from service.db.writer import Writer
from service.deliveries.send import Sender
from service.jobs.claims import ClaimQueued
from service.jobs.hands import TaskHand
from service.providers.registry import Registry

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
        """Claim queued jobs; returns how many."""
        free = tuple(
            (provider.name, min(BATCH, room))
            for provider in self.registry.all()
            if (room := self.submitter.free(provider.name))
        )
        jobs = await self.writer.run(ClaimQueued(self.owner, self.submitter.lease_ms, free))
        for job in jobs:
            self.submitter.take(job)
        return len(jobs)
