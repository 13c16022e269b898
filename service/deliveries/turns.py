"""Beginning requests in turns, a few in each round of the event loop, so that a thousand that are due at once hold nobody up.

Destinations that answered promptly the last time go first; the others have a share of every round all the same. It must
not know what is begun.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

PROMPT: Final = 32  # of a round, for destinations that answer promptly
OTHERS: Final = 4  # and for those that do not, or are not known yet
REMEMBERED: Final = 50_000  # prompt destinations


class Turns(Generic[T]):
    """What is due to begin.

    Args:
        begin: Begins one.
    """

    def __init__(self, begin: Callable[[T], None]) -> None:
        self._begin = begin
        self._prompt: deque[T] = deque()
        self._others: deque[T] = deque()
        self._known: OrderedDict[str, None] = OrderedDict()
        self._coming = False

    def __len__(self) -> int:
        """How many wait."""
        return len(self._prompt) + len(self._others)

    def add(self, lane_id: str, one: T) -> None:
        """Begin this when it is its turn."""
        (self._prompt if lane_id in self._known else self._others).append(one)
        if not self._coming:
            self._coming = True
            asyncio.get_running_loop().call_soon(self._turn)

    def note(self, lane_id: str, *, prompt: bool) -> None:
        """How a destination answered."""
        if not prompt:
            self._known.pop(lane_id, None)
        elif lane_id not in self._known:
            self._known[lane_id] = None
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)

    def clear(self) -> None:
        """Begin none of what waits."""
        self._prompt.clear()
        self._others.clear()

    def _turn(self) -> None:
        for waiting, share in ((self._prompt, PROMPT), (self._others, OTHERS)):
            for _ in range(min(share, len(waiting))):
                self._begin(waiting.popleft())
        self._coming = bool(self._prompt or self._others)
        if self._coming:
            asyncio.get_running_loop().call_soon(self._turn)
