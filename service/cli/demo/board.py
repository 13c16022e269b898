"""What the demo knows of its jobs, learnt from signed events alone, and whether all is as it should be.

Owns the rows that the screens show and the judgement at the end. It must not know how anything is shown.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from service.cli.demo.script import Errand
from service.cli.demo.subscriber import Arrival
from service.clock import Clock, parse_iso
from service.states import FINAL_EVENT_TYPES

#: The metadata that tells which row a job belongs to.
PLACE = "demo"


@dataclass(slots=True)
class BoardRow:
    """One job on its way."""

    errand: Errand
    began: float  # monotonic seconds
    job_id: str = ""
    status: str = "queued"
    provider_status: str | None = None  # the provider's own word
    final: Arrival | None = None
    latency_ms: int | None = None
    took_s: float | None = None
    times: Counter[str] = field(default_factory=Counter)  # how often each event arrived
    distrusted: int = 0  # arrivals whose signature did not verify

    @property
    def story(self) -> str:
        """How it ended: the lesson where it ended as meant, else what did happen."""
        if self.final is None:
            return ""
        job = self.final.job
        if (self.final.type, job.resolved_by) == (self.errand.event, self.errand.resolved_by):
            return self.errand.lesson
        return f"{job.status}, told by {job.resolved_by}" + (f" ({job.error.code})" if job.error else "")

    @property
    def fault(self) -> str | None:
        """What is wrong with it; None when its one event arrived once, with a good signature."""
        if self.distrusted:
            return "a signature did not verify"
        if self.final is None:
            return f"its event did not arrive (last seen: {self.status})"
        if any(count > 1 for count in self.times.values()):
            return "an event arrived more than once"
        if self.final.type != self.errand.event:
            return f"{self.errand.event} was expected, {self.final.type} came"
        return None


class Board:
    """All rows; `arrived` is handed to the subscriber.

    Args:
        finished_ms: When the provider was finished with a task, by its id; None where it does not know.
        on_arrival: Told of every arrival, with its row and its latency; the row is None for a job that the demo did not send.
    """

    def __init__(
        self,
        errands: list[Errand],
        clock: Clock,
        finished_ms: Callable[[str], int | None],
        on_arrival: Callable[[BoardRow | None, Arrival, int], None],
    ) -> None:
        self.rows = [BoardRow(errand, clock.monotonic()) for errand in errands]
        self._clock = clock
        self._finished_ms = finished_ms
        self._on_arrival = on_arrival
        self._changed = asyncio.Event()

    def arrived(self, arrival: Arrival) -> None:
        """An event came."""
        place = arrival.job.metadata.get(PLACE, "")
        row = self.rows[int(place)] if place.isdecimal() and int(place) < len(self.rows) else None
        latency_ms = max(0, arrival.at_ms - self._since_ms(arrival)) if arrival.verified else 0
        if row is not None:
            self._note(row, arrival, latency_ms)
        self._on_arrival(row, arrival, latency_ms)
        self._changed.set()

    async def until_all_arrived(self, timeout_s: float) -> None:
        """Wait for the last final event, but not longer than that."""
        try:
            async with asyncio.timeout(timeout_s):
                while any(row.final is None for row in self.rows):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return  # the judgement tells what is missing

    def faults(self) -> list[str]:
        """A line for every job that is not as it should be."""
        return [f"{row.errand.title} ({row.job_id}): {row.fault}" for row in self.rows if row.fault]

    def _note(self, row: BoardRow, arrival: Arrival, latency_ms: int) -> None:
        row.job_id = row.job_id or arrival.job.id
        if not arrival.verified:
            row.distrusted += 1
            return
        row.times[arrival.type] += 1
        if arrival.type in FINAL_EVENT_TYPES:
            row.final = row.final or arrival
            row.latency_ms = latency_ms if row.latency_ms is None else row.latency_ms
            row.took_s = row.took_s or self._clock.monotonic() - row.began
        if row.final is None or arrival.type in FINAL_EVENT_TYPES:  # events may overtake each other
            row.status = arrival.job.status
            row.provider_status = arrival.job.provider_status

    def _since_ms(self, arrival: Arrival) -> int:
        """When that happened which the event tells of: for a final one, when the provider was finished."""
        finished = self._finished_ms(arrival.job.provider_task_id or "") if arrival.type in FINAL_EVENT_TYPES else None
        return parse_iso(arrival.timestamp) if finished is None else finished
