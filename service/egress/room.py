"""How much memory the large answers of the process may have together: who comes when it is full waits for its turn.

It must not know what is read.
"""

from __future__ import annotations

import asyncio
from collections import deque


class AnswerRoom:
    """So many bytes, given out in the order of asking."""

    def __init__(self, size_bytes: int) -> None:
        self._size = size_bytes
        self._free = size_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, size_bytes: int) -> int:
        """Wait for so much room, or for all of it where that is less; gives back what to `leave` afterwards."""
        wanted = min(size_bytes, self._size)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, turn))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(wanted)  # it came together with the end
            self._admit()
            raise
        return wanted

    def leave(self, size_bytes: int) -> None:
        """Give room back."""
        self._free += size_bytes
        self._admit()

    def _admit(self) -> None:
        while self._waiting:
            wanted, turn = self._waiting[0]
            if not turn.done():
                if wanted > self._free:
                    return
                self._free -= wanted
                turn.set_result(None)
            self._waiting.popleft()
