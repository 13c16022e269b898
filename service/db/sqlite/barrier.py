"""The barrier between reads and the cutting of the log: SQLite can start the log anew only while nobody reads from it.

Owns who may read now. It must not know what is read, or why the log is cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Barrier:
    """Reads pass it, one by one; while it is shut they wait, and those under way come to their end."""

    def __init__(self) -> None:
        self._reading = 0
        self._idle: asyncio.Event | None = None  # while it is shut: set once nobody reads …
        self._opened: asyncio.Event | None = None  # … and once it is open again

    async def enter(self) -> None:
        """Begin a read, with a connection: a read that still waits for one has not begun."""
        while self._opened is not None:
            await self._opened.wait()
        self._reading += 1

    def leave(self) -> None:
        """End a read."""
        self._reading -= 1
        if self._idle is not None and not self._reading:
            self._idle.set()

    @asynccontextmanager
    async def shut(self, within_s: float) -> AsyncIterator[bool]:
        """Keep new reads waiting while the block runs; one caller at a time.

        Args:
            within_s: How long to wait for the reads that run.

        Yields:
            Whether none runs any more.
        """
        self._idle, self._opened = idle, opened = asyncio.Event(), asyncio.Event()
        if not self._reading:
            idle.set()
        try:
            try:
                await asyncio.wait_for(idle.wait(), within_s)
            except TimeoutError:
                yield False
            else:
                yield True
        finally:
            self._idle = self._opened = None
            opened.set()
