"""Removes what is older than it has to be kept, in small commands with pauses, so that nobody waits for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

import structlog

from service.clock import Clock
from service.db.writer import Writer
from service.deliveries.retention.retention_store import RemoveAttempts, RemovePayloads
from service.errors import StoreUnavailable
from service.jobs.retention_store import ForgetKeys, RemoveCallbacks, RemoveJobs, Sweep
from service.notation import Retention

BUDGET_S = 45.0  # of one run; the next tick goes on
PAUSE_FACTOR = 8  # pauses are so many times as long as the command before took, so a busy writer is asked more rarely
PAUSE_S = (0.002, 1.0)  # the shortest and the longest

_log = structlog.get_logger(__name__)


class Observer(Protocol):
    """Who counts what was removed (telemetry)."""

    def swept(self, what: str, count: int) -> None:
        """So many of a kind were removed for their age; committed."""


@dataclass(slots=True)
class Cleaner:
    """Sends one command after the other. What is left when the time is over, or after a crash, is found again."""

    writer: Writer
    clock: Clock
    retention: Retention
    observer: Observer
    erased: Callable[[], None] = lambda: None  # something was: what still holds it must go
    closing: bool = False  # the service stops: the run should end soon
    _left: dict[str, Sweep] = field(default_factory=dict)  # where the last run had to stop, by kind

    async def run_once(self) -> Counter[str]:
        """Clean until nothing is left or the time is over; returns what was removed, by kind."""
        until = self.clock.monotonic() + BUDGET_S
        removed: Counter[str] = Counter()
        failure: Exception | None = None
        for kind, first in self._kinds():
            try:
                if not await self._sweep(kind, first, until, removed):
                    break
            except StoreUnavailable:
                raise
            except Exception as error:  # this kind's outermost guard: it must not keep the others; raised behind them
                failure = failure or error
        if removed := +removed:
            _log.info("retention_removed", **removed)
            self.erased()
        if failure is not None:
            raise failure
        return removed

    def _kinds(self) -> Iterator[tuple[str, Callable[[], Sweep]]]:
        """What is removed, in order: what refers to others before them, whatever the settings say of each."""
        kept = self.retention
        payloads = min(kept.payloads, kept.jobs)
        attempts = min(kept.attempts, payloads)
        yield "keys", ForgetKeys
        yield "attempts", lambda: RemoveAttempts(self._before(attempts))
        yield "payloads", lambda: RemovePayloads(self._before(payloads))
        yield "callbacks", lambda: RemoveCallbacks(self._before(payloads))
        yield "jobs", lambda: RemoveJobs(self._before(kept.jobs))

    def _before(self, age: timedelta) -> int:
        return max(0, self.clock.now_ms() - round(age.total_seconds() * 1000))

    async def _sweep(self, kind: str, first: Callable[[], Sweep], until: float, removed: Counter[str]) -> bool:
        """Everything of one kind; False when the time is over."""
        command: Sweep | None = self._left.pop(kind, None) or first()
        while command is not None:
            began = self.clock.monotonic()
            if self.closing or began >= until:
                self._left[kind] = command
                return False
            swept = await self.writer.run(command)
            for what, count in swept.removed.items():
                removed[what] += count
                self.observer.swept(what, count)
            command = swept.then
            if command is not None:
                shortest, longest = PAUSE_S
                pause_s = PAUSE_FACTOR * (self.clock.monotonic() - began)
                await self.clock.sleep(min(max(pause_s, shortest), longest))
        return True
