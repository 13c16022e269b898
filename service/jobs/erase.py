"""Erasing a final job: its prompt, inputs and files go, and every copy of them; the row, its timeline and its money stay.

Events that held the prompt leave the feed and cannot be sent again (docs/decisions tells why). What lies in tables of later
stages is theirs to erase: they hand in followers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field

import msgspec

from service.db.transaction import Tx
from service.db.writer import Command
from service.jobs import store
from service.jobs.track import Tracker
from service.jobs.transitions.facts import Answer, EraseAsked
from service.jobs.view import job_view

Follower = Callable[[Tx, Sequence[str]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Erase(Command[Answer]):
    """Erase a job, again where that was done before; answered with False where there is none."""

    job_id: str
    account_id: str

    def lock(self) -> Hashable | None:
        """The second of two finds the first one's work."""
        return self.job_id


@dataclass(slots=True)
class Eraser:
    """The handler of `Erase`."""

    tracker: Tracker
    followers: list[Follower] = field(default_factory=list)

    async def handle(self, tx: Tx, commands: Sequence[Erase]) -> list[Answer | Exception]:
        """See `Erase`."""
        answers = await self.tracker.apply(tx, [EraseAsked(each.job_id, each.account_id) for each in commands])
        erased = [each.job_id for each, answer in zip(commands, answers, strict=True) if answer is True]
        if erased:
            for follower in self.followers:
                await follower(tx, erased)
            await self._erase(tx, erased)
        return list(answers)

    async def _erase(self, tx: Tx, job_ids: Sequence[str]) -> None:
        jobs = await store.load(tx, job_ids)
        results = await store.load_results(tx, job_ids)
        for job in jobs.values():
            job.input = "{}"
        answers = {
            job.id: msgspec.json.encode(job_view(job, results.get(job.id, ()), self.tracker.links))
            for job in jobs.values()
        }
        store.erase(tx, list(jobs.values()), answers)
