"""Ends what has passed its deadline, and notices what is overdue and what was left in flight.

Each kind of job is walked through in the order of its index, page by page. A walk goes on behind the job that it looked at
last, whether that could be written or not, and begins again when it came to the end: a job that cannot be written is
passed, and hides no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from service.clock import Clock
from service.db.reader import Reader
from service.db.transaction import Row
from service.db.writer import Writer
from service.errors import StoreUnavailable
from service.jobs import queries
from service.jobs.queries import START, Place
from service.jobs.track import Track
from service.jobs.transitions.facts import DeadlinePassed, Fact, OverdueNoticed, SubmitAbandoned

BATCH = 200  # jobs of one kind at a time, abandoned submits of all providers together …
BATCHES = 50  # … and so many of them in one sweep, so that ten thousand jobs do not hold up the end of others


@dataclass(slots=True)
class Walk:
    """The way through one kind of job.

    Args:
        find: What is due of it at a moment, behind a place: so many jobs, with `at` and `id`.
        fact: What happened to one of them.
        after: The last one that was looked at.
    """

    find: Callable[[int, Place, int], Awaitable[Sequence[Row]]]
    fact: Callable[[Row], Fact]
    after: Place = START


@dataclass(slots=True)
class Expirer:
    """Sweeps in batches; due times live in the store, so a stepped clock or a missed tick loses nothing."""

    writer: Writer
    reader: Reader
    clock: Clock
    batch: int = BATCH
    _walks: list[Walk] = field(init=False)
    _abandoned: dict[str, Walk] = field(init=False, default_factory=dict)  # by provider

    def __post_init__(self) -> None:
        """Both begin at the beginning."""
        self._walks = [
            Walk(partial(queries.past_deadline, self.reader), lambda row: DeadlinePassed(row["id"])),
            Walk(partial(queries.newly_overdue, self.reader), lambda row: OverdueNoticed(row["id"])),
        ]

    async def run_once(self) -> int:
        """Sweep until each walk came to its end; returns how many jobs were looked at."""
        abandoned = await self._abandoned_by_provider()
        each = max(1, self.batch // max(1, len(abandoned)))
        walks = [(walk, self.batch) for walk in self._walks] + [(walk, each) for walk in abandoned]
        looked_at = 0
        failures: list[Exception] = []
        for _ in range(BATCHES):
            pages = [await self._page(walk, count) for walk, count in walks]
            await self._write([fact for page in pages for fact in page], failures)
            looked_at += sum(len(page) for page in pages)
            walks = [(walk, count) for (walk, count), page in zip(walks, pages, strict=True) if len(page) == count]
            if not walks:
                break
        if failures:
            raise failures[0]
        return looked_at

    async def _abandoned_by_provider(self) -> list[Walk]:
        """A walk for each provider, so that no provider's jobs stand behind another's."""
        names = await queries.submitting_providers(self.reader)
        self._abandoned = {name: self._abandoned.get(name) or self._abandoned_at(name) for name in sorted(names)}
        return list(self._abandoned.values())

    def _abandoned_at(self, provider: str) -> Walk:
        async def find(now_ms: int, after: Place, count: int) -> Sequence[Row]:
            return await queries.abandoned(self.reader, now_ms, provider, after, count)

        return Walk(find, lambda row: SubmitAbandoned(row["id"], row["submission_id"]))

    async def _page(self, walk: Walk, count: int) -> list[Fact]:
        found = await walk.find(self.clock.now_ms(), walk.after, count)
        walk.after = self._behind(found, count)
        return [walk.fact(row) for row in found]

    def _behind(self, found: Sequence[Row], count: int) -> Place:
        """Where a walk goes on; what falls due meanwhile before that place is found when it begins again."""
        return (found[-1]["at"], found[-1]["id"]) if len(found) == count else START

    async def _write(self, facts: Sequence[Fact], failures: list[Exception]) -> None:
        # All at once, so that the writer takes them as one set; a job that cannot be written must not keep the others.
        answers = await asyncio.gather(*(self.writer.run(Track(fact)) for fact in facts), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, StoreUnavailable):
                raise answer
            if isinstance(answer, Exception):
                failures.append(answer)
