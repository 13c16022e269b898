"""Long pages: an account reads one at a time, and one of all accounts is made at a time, in pieces and with rests.

So other requests keep their pace, however many pages are asked for. It must not know what the entries are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

import msgspec

from service.clock import Clock
from service.errors import Unavailable

T = TypeVar("T")

WAIT_S: Final = 10.0  # for one's turn
RETRY_AFTER_S: Final = 1  # told to those who waited too long for a page
PIECE: Final = 16  # entries that are made at once: half a millisecond; a page that is no longer waits for nobody
PART_S: Final = 0.01  # of a part that counts for the rest behind it, at most: a slow disk is no reason to rest
REST: Final = 19  # times as long as a part took, at most: a crowd of pages has a twentieth of the time


class LongPages:
    """The turns of those who ask for long pages. An account reads one at a time, and one of all accounts is made at a time.

    Args:
        clock: Measures how long a part took, and rests.
        hurry: Whether the service is stopping, and nobody is kept waiting by those who still read.
        wait_s: For one's turn.
    """

    def __init__(self, clock: Clock, hurry: Callable[[], bool], wait_s: float = WAIT_S) -> None:
        self._clock = clock
        self._hurry = hurry
        self._wait_s = wait_s
        self._making = asyncio.Lock()
        self._reading: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by account
        self._asked = 0

    @asynccontextmanager
    async def turn(self, account_id: str, limit: int) -> AsyncIterator[float]:
        """Wait for one's turn among the account's, where so many entries are asked for.

        Yields:
            When it began, for `encoded`.

        Raises:
            Unavailable: It did not come in time.
        """
        if limit <= PIECE:
            yield self._clock.monotonic()
            return
        self._asked += 1
        try:
            async with self._held(self._reading.setdefault(account_id, asyncio.Lock())):
                yield self._clock.monotonic()
        finally:
            self._asked -= 1

    async def encoded(self, entries: Sequence[T], view: Callable[[T], Any], began: float) -> list[msgspec.Raw]:
        """Each entry as it is shown, in JSON; within a turn.

        Raises:
            Unavailable: Others' pages took too long.
        """
        if len(entries) <= PIECE:
            return _encoded(entries, view)
        made: list[msgspec.Raw] = []
        async with self._held(self._making):
            took = self._clock.monotonic() - began
            for at in range(0, len(entries), PIECE):
                # The more of them wait, the longer; two or three readers are no crowd.
                rest = 0 if self._hurry() else min(REST, self._asked - 1)
                await self._clock.sleep(rest * min(took, PART_S))
                began = self._clock.monotonic()
                made += _encoded(entries[at : at + PIECE], view)
                took = self._clock.monotonic() - began
        return made

    @asynccontextmanager
    async def _held(self, lock: asyncio.Lock) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._wait_s):
                await lock.acquire()
        except TimeoutError as error:
            raise _busy() from error
        try:
            yield
        finally:
            lock.release()


def _encoded(entries: Sequence[T], view: Callable[[T], Any]) -> list[msgspec.Raw]:
    return [msgspec.Raw(msgspec.json.encode(view(each))) for each in entries]


def _busy() -> Unavailable:
    return Unavailable(
        f"too many long pages are asked for at once; ask for one after the other, or with limit={PIECE}",
        code="busy",
        retry_after_s=RETRY_AFTER_S,
    )
