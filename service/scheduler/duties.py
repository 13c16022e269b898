"""The timed duties and their ticks. What is due lives in the store; APScheduler only ticks.

Every duty has `run_once()`, so that tests and simulations run it without any clock of APScheduler's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger

from service.clock import Clock
from service.errors import StoreUnavailable

WATCHDOG_S = 1.0  # how often the watchdog looks
STEP_S = 0.5  # a step of the wall clock that is told, and after which ticks are timed anew
STALL_TICKS = 30  # ticks without a run after which the scheduler counts as stopped

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Duty:
    """Something to be done again and again; `run_once` does what is due now. `first_s`: the first time sooner than the others."""

    name: str
    every_s: float
    run_once: Callable[[], Awaitable[object]]
    first_s: float | None = None


class Observer(Protocol):
    """Who counts failures (telemetry)."""

    def loop_failed(self, loop: str) -> None:
        """A run of a loop ended in an error that it did not expect."""


class _Every(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """The next tick, counted from now.

    APScheduler's own interval counts from the tick before, and lists every one that was missed: after a step of the
    clock by 30 days ahead these are five million for each duty, on the event loop.
    """

    def __init__(self, every: timedelta) -> None:
        self._every = every

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        """See `BaseTrigger`."""
        return now + self._every


class Ticker:
    """Runs duties on APScheduler's ticks, and notices when the wall clock is stepped or the ticks stop.

    APScheduler waits on the wall clock: stepped back an hour, it stops for an hour. The watchdog measures on clocks that
    never step, times the ticks anew, and runs what was missed.
    """

    def __init__(self, duties: list[Duty], clock: Clock, observer: Observer) -> None:
        self._duties = duties
        self._clock = clock
        self._observer = observer
        self._scheduler = AsyncIOScheduler(timezone="UTC")
        now = clock.monotonic()
        self._last_run = {
            duty.name: now - duty.every_s + min(duty.every_s, duty.first_s or duty.every_s) for duty in duties
        }
        self._running: dict[str, asyncio.Task[None]] = {}
        self._postponed: set[str] = set()  # duties that the store could not serve when they ran last
        self._watchdog: asyncio.Task[None] | None = None
        self._open = True

    def start(self) -> None:
        """Begin to tick."""
        for duty in self._duties:
            self._scheduler.add_job(
                self._tick,
                _Every(timedelta(seconds=duty.every_s)),
                next_run_time=self._next_run(duty),
                args=(duty,),
                id=duty.name,
                # The defaults drop a run that is a second late, and pile up runs of a slow duty.
                misfire_grace_time=None,
                coalesce=True,
                max_instances=1,
            )
        self._scheduler.start()
        self._watchdog = asyncio.create_task(self._watch(), name="scheduler-watchdog")

    async def stop(self) -> None:
        """Stop ticking, and wait for what runs: shutdown(wait=True) would cancel it."""
        self._open = False
        if self._watchdog is not None:
            self._watchdog.cancel()
            await asyncio.gather(self._watchdog, return_exceptions=True)
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    def alive(self) -> bool:
        """Whether every duty ran lately."""
        now = self._clock.monotonic()
        return all(now - self._last_run[duty.name] < max(STALL_TICKS * duty.every_s, 30) for duty in self._duties)

    async def _tick(self, duty: Duty) -> None:
        self._begin(duty)

    def _begin(self, duty: Duty) -> None:
        if self._open and duty.name not in self._running:
            task = asyncio.create_task(self._run(duty), name=f"duty-{duty.name}")
            self._running[duty.name] = task
            task.add_done_callback(lambda _: self._running.pop(duty.name, None))

    async def _run(self, duty: Duty) -> None:
        try:
            await duty.run_once()
            self._postponed.discard(duty.name)
        except StoreUnavailable as error:
            if duty.name not in self._postponed:  # once until it succeeds: the store may be away for hours
                _log.warning("duty_postponed", duty=duty.name, error=str(error))
            self._postponed.add(duty.name)
        except Exception:  # a duty's outermost guard: it runs again at the next tick
            self._observer.loop_failed(duty.name)
            _log.exception("duty_failed", duty=duty.name)
        finally:
            self._last_run[duty.name] = self._clock.monotonic()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCHDOG_S)
            self.look()

    def look(self) -> None:
        """Let the time for due work follow the wall clock, and begin what should have run by now."""
        stepped_s = self._clock.slew()
        now = self._clock.monotonic()
        if abs(stepped_s) >= STEP_S:
            apart_s = round((self._clock.wall_ms() - self._clock.now_ms()) / 1000, 1)
            _log.warning("clock_stepped", by_s=round(stepped_s, 1), offset_s=apart_s)
            for duty in self._duties:
                self._scheduler.modify_job(duty.name, next_run_time=self._next_run(duty))
        for duty in self._duties:
            if now - self._last_run[duty.name] > max(5 * duty.every_s, 5) and duty.name not in self._running:
                _log.warning("tick_missed", duty=duty.name)
                self._begin(duty)

    def _next_run(self, duty: Duty) -> datetime:
        """As far from its last run as it should be, on the wall clock as it is now."""
        wait_s = self._last_run[duty.name] + duty.every_s - self._clock.monotonic()
        return datetime.now(UTC) + timedelta(seconds=max(0.0, wait_s))
