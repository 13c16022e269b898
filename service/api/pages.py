"""Long pages: read and made one at a time, in pieces, so that whoever asks for many of them keeps nobody else waiting.

It must not know what the entries are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

import msgspec

from service.clock import Clock
from service.errors import Unavailable

T = TypeVar("T")

WAIT_S: Final = 10.0  # for one's turn
RETRY_AFTER_S: Final = 1
PIECE: Final = 16  # entries that are made at once: half a millisecond; a page that is no longer waits for nobody
REST: Final = 9  # times as long as a part took, at most: a crowd of pages has a tenth of the time


class LongPages:
    """The turns of those who ask for long pages: the accounts take turns, and within each whoever came first.

    Args:
        clock: Measures how long a part took, and rests.
        hurry: Whether the service is stopping, and nobody is kept waiting by those who still read.
        wait_s: For one's turn.
    """

    def __init__(self, clock: Clock, hurry: Callable[[], bool], wait_s: float = WAIT_S) -> None:
        self._clock = clock
        self._hurry = hurry
        self._wait_s = wait_s
        self._turn = asyncio.Lock()
        self._of_account: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._asked = 0
        self._began = 0.0  # the part of a page that is being read or made

    @asynccontextmanager
    async def turn(self, account_id: str, limit: int) -> AsyncIterator[None]:
        """Wait for one's turn, where so many entries are asked for; for as long as they are read and made.

        Raises:
            Unavailable: It did not come in time.
        """
        if limit <= PIECE:
            yield
            return
        mine = self._of_account.setdefault(account_id, asyncio.Lock())
        self._asked += 1
        try:
            async with AsyncExitStack() as held:
                try:
                    async with asyncio.timeout(self._wait_s):
                        await held.enter_async_context(mine)
                        await held.enter_async_context(self._turn)
                except TimeoutError as error:
                    raise _busy() from error
                self._began = self._clock.monotonic()
                yield
        finally:
            self._asked -= 1

    async def encoded(self, entries: Sequence[T], view: Callable[[T], Any]) -> list[msgspec.Raw]:
        """Each entry as it is shown, in JSON; within a turn."""
        made: list[msgspec.Raw] = []
        for at in range(0, len(entries), PIECE):
            if len(entries) > PIECE:
                # The more of them wait, the longer; two or three readers are no crowd.
                rest = 0 if self._hurry() else min(REST, self._asked - 1)
                await self._clock.sleep(rest * (self._clock.monotonic() - self._began))
                self._began = self._clock.monotonic()
            made += [msgspec.Raw(msgspec.json.encode(view(each))) for each in entries[at : at + PIECE]]
        return made


def _busy() -> Unavailable:
    return Unavailable(
        f"too many long pages are asked for at once; ask for one after the other, or with limit={PIECE}",
        code="busy",
        retry_after_s=RETRY_AFTER_S,
    )
