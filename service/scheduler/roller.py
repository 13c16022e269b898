"""Counts the jobs that ended into the usage of their day, some seconds after they ended and in batches."""

from __future__ import annotations

from dataclasses import dataclass

from service.db.reader import Reader
from service.db.writer import Writer
from service.usage import counting
from service.usage import store as usage_store
from service.usage.store import CountIn, ForgetCounted

EVENTS = 500  # looked at in one batch: some milliseconds of the writer's time
FORGOTTEN = 500  # of one cleaning


@dataclass(slots=True)
class Roller:
    """Goes on where it stopped: how far it came is written together with what it counted."""

    writer: Writer
    reader: Reader

    async def run_once(self) -> int:
        """Count everything that has ended by now; returns how many jobs were counted."""
        jobs = 0
        while not (batch := await usage_store.uncounted(self.reader, EVENTS)).is_nothing:
            names = await usage_store.names(self.reader, batch.jobs)
            await self.writer.run(CountIn(batch, counting.changes(batch.jobs, names)))
            jobs += len(batch.jobs)
        return jobs

    async def clean(self) -> None:
        """Forget as what jobs were counted that are gone."""
        await self.writer.run(ForgetCounted(FORGOTTEN))
