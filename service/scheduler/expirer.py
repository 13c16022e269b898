"""Ends what has passed its deadline, and notices what is overdue and what was left in flight."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from service.clock import Clock
from service.db.reader import Reader
from service.db.writer import Writer
from service.jobs import queries
from service.jobs.facts import DeadlinePassed, Fact, OverdueNoticed, SubmitAbandoned
from service.jobs.track import Track

BATCH = 200  # jobs of one sweep; the next tick goes on


@dataclass(slots=True)
class Expirer:
    """Sweeps in batches; due times live in the store, so a stepped clock or a missed tick loses nothing."""

    writer: Writer
    reader: Reader
    clock: Clock

    async def run_once(self) -> int:
        """Sweep once; returns how many jobs were looked at."""
        now_ms = self.clock.now_ms()
        expired = await queries.past_deadline(self.reader, now_ms, BATCH)
        overdue = await queries.newly_overdue(self.reader, now_ms, BATCH)
        facts: list[Fact] = [DeadlinePassed(job_id) for job_id in expired]
        facts += [OverdueNoticed(job_id) for job_id in overdue]
        facts += [SubmitAbandoned(*left) for left in await queries.abandoned(self.reader, now_ms, BATCH)]
        # All at once, so that the writer takes them as one set.
        await asyncio.gather(*(self.writer.run(Track(fact)) for fact in facts))
        return len(facts)
