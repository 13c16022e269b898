"""The provider's tasks and their life: pending, processing, and an end.

Owns what a task is, how long it takes and where it stands. It must not know HTTP, dialects' words or callbacks: who
wants to hear of a task's steps hands in a `Witness`, who wants ids of its own kind a way to make them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from random import Random
from typing import Any, Final, Protocol

from service.clock import Clock
from service.picture import ImageFormat
from service.sandbox.faults import Channel, Plan
from service.sandbox.record import Record

#: A task takes that long at speed 1, queue and work together: within what sharkai-images.txt states (10-180 s). The 30-120 s
#: of sharkapi-image.txt are left to a lower speed, so that a trial of several cards does not wait for one of them.
DURATION_S: Final = (10.0, 30.0)
_QUEUE_SHARE: Final = 0.2  # of the duration
_KEPT: Final = 50_000  # tasks; the oldest are forgotten


class State(StrEnum):
    """Where a task stands; a dialect has its own words for them."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


_ENDS: Final = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})

#: Makes the next id in a dialect's shape. The time goes in so that ids stay apart when the sandbox is started again.
MakeID = Callable[[int, Random], str]


@dataclass(frozen=True, slots=True)
class Draft:
    """What a dialect read from a submit: the picture that is wanted, who is to be told, and what the dialect notes."""

    prompt: str
    model: str
    width: int
    height: int
    callback_url: str | None
    origin: str  # scheme, host and port under which the caller reaches our files
    channels: frozenset[Channel]  # none to poll: the submit's answer is the end
    count: int = 1  # of pictures
    image_format: ImageFormat = "jpeg"
    links_live_s: int | None = None  # None: the files' URLs are unsigned and live as long as their task
    duration_s: tuple[float, float] = DURATION_S
    notes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Task:
    """One task at one moment."""

    id: str
    dialect: str  # by its name; other dialects do not know the task
    draft: Draft
    plan: Plan
    state: State
    created_ms: int
    queue_s: float  # seconds from created to processing
    work_s: float  # seconds from processing to the end
    started_ms: int | None = None
    finished_ms: int | None = None
    fail_message: str | None = None
    polls: int = 0
    cancels: int = 0

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state in _ENDS

    @property
    def is_sync(self) -> bool:
        """Whether its submit is answered at its end only."""
        return Channel.POLL not in self.draft.channels


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

    def create(self, draft: Draft, plan: Plan, dialect: str, make_id: MakeID) -> Task:
        """A new pending task; its life begins with `live`."""
        now_ms = self._clock.now_ms()
        duration_s = self._rng.uniform(*draft.duration_s) / self._speed
        while (task_id := make_id(now_ms, self._rng)) in self._tasks:
            continue
        task = Task(
            id=task_id,
            dialect=dialect,
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

    def start(self, task: Task) -> Task:
        """Take the task to work, if nobody did."""
        current = self._tasks.get(task.id, task)
        if current.state is not State.PENDING:
            return current
        return self._put(replace(current, state=State.PROCESSING, started_ms=self._clock.now_ms()))

    def finish(self, task: Task) -> Task:
        """Bring the task to the end that its faults ask for."""
        current = self.start(task)
        message = _fail_message(task.plan)
        state = State.FAILED if message else State.COMPLETED
        return self._put(replace(current, state=state, finished_ms=self._clock.now_ms(), fail_message=message))

    def asked_to_cancel(self, task: Task) -> Task:
        """Count one wish to cancel it."""
        return self._put(replace(task, cancels=task.cancels + 1))

    def cancel(self, task: Task) -> Task:
        """End the pending task; its life sees it and stops."""
        return self._put(replace(task, state=State.CANCELLED, finished_ms=self._clock.now_ms()))

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
        current = self.start(task)
        if current.ended:
            return
        await witness.at_work(current)
        await self._clock.sleep(task.work_s)
        if not task.plan.has("stuck"):
            await witness.ended(self.finish(task))

    def _put(self, task: Task) -> Task:
        self._tasks[task.id] = task
        self._record.notify()
        return task


def _fail_message(plan: Plan) -> str | None:
    if plan.has("moderated"):
        return "Content policy violation"  # apimodels-sparkpix.txt, "Failed Response"
    return "The model could not generate an image" if plan.has("failed") else None
