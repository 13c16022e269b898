"""Beginning requests in turns, a few in each round of the event loop, so that a thousand that are due at once hold nobody up.

Destinations that answered promptly the last time go first; the others have a share of every round all the same. A path of
which nothing is known counts as its origin does. Owns the tasks of what was begun; it must not know what they do.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, TypeVar

from service.tasks import finish

T = TypeVar("T")

PROMPT: Final = 32  # of a round, for destinations that answer promptly
OTHERS: Final = 4  # and for those that do not, or are not known yet
REMEMBERED: Final = 50_000  # destinations


class Turns(Generic[T]):
    """What is due to begin, and what has begun.

    Args:
        run: What a task does.
    """

    def __init__(self, run: Callable[[T], Coroutine[Any, Any, None]]) -> None:
        self._run = run
        self._prompt: deque[T] = deque()
        self._others: deque[T] = deque()
        self._is_prompt: OrderedDict[str, bool] = OrderedDict()
        self._coming = False
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """How many wait or run."""
        return len(self._prompt) + len(self._others) + len(self._tasks)

    def add(self, lane_id: str, origin: str, one: T) -> None:
        """Begin this when it is its turn."""
        (self._prompt if self._was_prompt(lane_id, origin) else self._others).append(one)
        if not self._coming:
            self._coming = True
            asyncio.get_running_loop().call_soon(self._turn)

    def note(self, lane_id: str, origin: str, *, prompt: bool) -> None:
        """How a destination answered; that a path was slow says nothing of its origin."""
        if prompt and lane_id != origin:
            self._is_prompt.pop(lane_id, None)
        if self._was_prompt(lane_id, origin) is not prompt:
            self._is_prompt[origin if prompt else lane_id] = prompt
            if len(self._is_prompt) > REMEMBERED:
                self._is_prompt.popitem(last=False)

    async def drain(self, timeout_s: float) -> None:
        """Begin none of what waits, and let what runs come to its end, or cancel it."""
        self._prompt.clear()
        self._others.clear()
        await finish(self._tasks, timeout_s)

    async def settle(self) -> None:
        """Wait until nothing waits or runs; for tests and simulations."""
        while len(self):
            await (asyncio.wait(set(self._tasks)) if self._tasks else asyncio.sleep(0))

    def _was_prompt(self, lane_id: str, origin: str) -> bool:
        return self._is_prompt.get(lane_id, self._is_prompt.get(origin, False))

    def _turn(self) -> None:
        for waiting, share in ((self._prompt, PROMPT), (self._others, OTHERS)):
            for _ in range(min(share, len(waiting))):
                task = asyncio.create_task(self._run(waiting.popleft()))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        self._coming = bool(self._prompt or self._others)
        if self._coming:
            asyncio.get_running_loop().call_soon(self._turn)
