"""Ends what has passed its deadline, and notices what is overdue and what was left in flight."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from service.clock import Clock
from service.db.reader import Reader
from service.db.writer import Writer
from service.errors import StoreUnavailable
from service.jobs import queries
from service.jobs.track import Track
from service.jobs.transitions.facts import DeadlinePassed, Fact, OverdueNoticed, SubmitAbandoned

BATCH = 200  # jobs of one kind at a time …
BATCHES = 50  # … and so many of them in one sweep, so that ten thousand jobs do not hold up the end of others


@dataclass(slots=True)
class Expirer:
    """Sweeps in batches; due times live in the store, so a stepped clock or a missed tick loses nothing."""

    writer: Writer
    reader: Reader
    clock: Clock
    batch: int = BATCH

    async def run_once(self) -> int:
        """Sweep until little is left; returns how many jobs were looked at."""
        looked_at = 0
        failures: list[Exception] = []
        for _ in range(BATCHES):
            found = await self._sweep(failures)
            looked_at += sum(found)
            if max(found) < self.batch:
                break
        if failures:
            raise failures[0]
        return looked_at

    async def _sweep(self, failures: list[Exception]) -> tuple[int, int, int]:
        now_ms = self.clock.now_ms()
        expired = await queries.past_deadline(self.reader, now_ms, self.batch)
        overdue = await queries.newly_overdue(self.reader, now_ms, self.batch)
        abandoned = await queries.abandoned(self.reader, now_ms, self.batch)
        facts: list[Fact] = [DeadlinePassed(job_id) for job_id in expired]
        facts += [OverdueNoticed(job_id) for job_id in overdue]
        facts += [SubmitAbandoned(*each) for each in abandoned]
        # All at once, so that the writer takes them as one set; a job that cannot be written must not keep the others.
        answers = await asyncio.gather(*(self.writer.run(Track(fact)) for fact in facts), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, StoreUnavailable):
                raise answer
            if isinstance(answer, Exception):
                failures.append(answer)
        return len(expired), len(overdue), len(abandoned)
