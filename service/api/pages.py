"""Long pages: read and made one at a time, in pieces, so that whoever asks for many of them keeps nobody else waiting.

It must not know what the entries are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

import msgspec

from service.clock import Clock

T = TypeVar("T")

PIECE: Final = 16  # entries that are made at once: half a millisecond; a page that is no longer waits for nobody
REST: Final = 4  # times as long as a part took, where another page waits: all of them together have a fifth of the time


class LongPages:
    """The turns of those who ask for long pages: the accounts take turns, and within each whoever came first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._turn = asyncio.Lock()
        self._of_account: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._asked = 0
        self._began = 0.0  # the part of a page that is being read or made

    @asynccontextmanager
    async def turn(self, account_id: str, limit: int) -> AsyncIterator[None]:
        """Wait for one's turn, where so many entries are asked for; for as long as they are read and made."""
        if limit <= PIECE:
            yield
            return
        self._asked += 1
        try:
            async with self._of_account.setdefault(account_id, asyncio.Lock()), self._turn:
                self._began = self._clock.monotonic()
                yield
        finally:
            self._asked -= 1

    async def encoded(self, entries: Sequence[T], view: Callable[[T], Any]) -> list[msgspec.Raw]:
        """Each entry as it is shown, in JSON; within a turn."""
        made: list[msgspec.Raw] = []
        for at in range(0, len(entries), PIECE):
            if len(entries) > PIECE:
                rest = REST if self._asked > 1 else 0
                await self._clock.sleep(rest * (self._clock.monotonic() - self._began))
                self._began = self._clock.monotonic()
            made += [msgspec.Raw(msgspec.json.encode(view(each))) for each in entries[at : at + PIECE]]
        return made
