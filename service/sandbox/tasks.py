"""The provider's tasks and their life: pending, processing, and an end.

Owns what a task is, how long it takes and where it stands. It must not know HTTP, dialects' words or callbacks: who
wants to hear of a task's steps hands in a `Witness`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random
from typing import Any, Final, Protocol

from service.clock import Clock
from service.sandbox.faults import Plan
from service.sandbox.record import Record

#: A task takes that long at speed 1, queue and work together: what such providers document.
DURATION_S: Final = (10.0, 30.0)
_QUEUE_SHARE: Final = 0.2  # of the duration
_KEPT: Final = 50_000  # tasks; the oldest are forgotten
_LETTERS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_NOISE_CHARS: Final = 15


class State(StrEnum):
    """Where a task stands; a dialect has its own words for them."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Draft:
    """What a dialect read from a submit: the picture that is wanted and who is to be told."""

    prompt: str
    model: str
    width: int
    height: int
    callback_url: str | None
    origin: str  # scheme, host and port under which the caller reaches our files


@dataclass(frozen=True, slots=True)
class Task:
    """One task at one moment."""

    id: str
    draft: Draft
    plan: Plan
    state: State
    created_ms: int
    queue_s: float  # seconds from created to processing
    work_s: float  # seconds from processing to the end
    finished_ms: int | None = None
    fail_message: str | None = None
    polls: int = 0

    @property
    def file_url(self) -> str:
        """Where its picture is, once it is completed."""
        return f"{self.draft.origin}/files/{self.id}.jpeg"


class Witness(Protocol):
    """Who is told of a task's steps; whatever it does is part of the task's life."""

    async def at_work(self, task: Task) -> None:
        """The task is being processed."""

    async def ended(self, task: Task) -> None:
        """The task is completed or failed."""


class Tasks:
    """All tasks of one server; every life is an asyncio task that `close` ends."""

    def __init__(self, clock: Clock, rng: Random, speed: float, record: Record) -> None:
        self._clock = clock
        self._rng = rng
        self._speed = speed
        self._record = record
        self._tasks: dict[str, Task] = {}
        self._lives: set[asyncio.Task[None]] = set()

    def create(self, draft: Draft, plan: Plan) -> Task:
        """A new pending task; its life begins with `live`."""
        now_ms = self._clock.now_ms()
        duration_s = self._rng.uniform(*DURATION_S) / self._speed
        task = Task(
            id=self._new_id(now_ms),
            draft=draft,
            plan=plan,
            state=State.PENDING,
            created_ms=now_ms,
            queue_s=duration_s * _QUEUE_SHARE,
            work_s=duration_s * (1 - _QUEUE_SHARE),
        )
        while len(self._tasks) >= _KEPT:
            del self._tasks[next(iter(self._tasks))]
        return self._put(task)

    def get(self, task_id: str) -> Task | None:
        """The task as it stands now."""
        return self._tasks.get(task_id)

    def all(self) -> tuple[Task, ...]:
        """Every task, oldest first."""
        return tuple(self._tasks.values())

    def polled(self, task: Task) -> Task:
        """Count one poll."""
        return self._put(replace(task, polls=task.polls + 1))

    def finish(self, task: Task) -> Task:
        """Bring the task to the end that its faults ask for."""
        message = _fail_message(task.plan)
        state = State.FAILED if message else State.COMPLETED
        current = self._tasks.get(task.id, task)
        return self._put(replace(current, state=state, finished_ms=self._clock.now_ms(), fail_message=message))

    def live(self, task: Task, witness: Witness) -> None:
        """Let time pass for the task, in the background."""
        self.spawn(self._live(task, witness))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it in the background until it ends or the server does."""
        life = asyncio.ensure_future(work)
        self._lives.add(life)
        life.add_done_callback(self._lives.discard)

    async def close(self) -> None:
        """End all lives where they are."""
        lives = tuple(self._lives)
        for life in lives:
            life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)

    async def _live(self, task: Task, witness: Witness) -> None:
        await self._clock.sleep(task.queue_s)
        current = self._put(replace(self._tasks.get(task.id, task), state=State.PROCESSING))
        await witness.at_work(current)
        await self._clock.sleep(task.work_s)
        await witness.ended(self.finish(task))

    def _put(self, task: Task) -> Task:
        self._tasks[task.id] = task
        self._record.notify()
        return task

    def _new_id(self, now_ms: int) -> str:
        """An id like the documented `clxxx…`; the time in it keeps ids apart when the sandbox is started again."""
        noise = "".join(self._rng.choices(_LETTERS, k=_NOISE_CHARS))
        return f"cl{_base36(now_ms)}{noise}"


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _LETTERS[digit] + digits
    return digits


def _fail_message(plan: Plan) -> str | None:
    if plan.has("moderated"):
        return "Content policy violation"  # apimodels-sparkpix.txt, "Failed Response"
    return "The model could not generate an image" if plan.has("failed") else None
