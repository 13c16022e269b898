"""Keeps SQLite's log small. Owns when it is cut; how reads make way is the barrier's, and the cut is the writer's.

SQLite starts the log anew by itself only at a moment when nobody reads from it. With readers that take turns there is none, and
the log grows and grows; what was erased from the database also stays in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import structlog

from service.clock import Clock
from service.db.sqlite.barrier import Barrier
from service.db.writer import Writer

FIRST_WAIT_S: Final = 0.05  # for the reads that run; twice as long at every further try
FIRST_PAUSE_S: Final = 1.0  # between two tries; twice as long at every further one …
MAX_PAUSE_S: Final = 30.0  # … up to this
TRIES_TO_WARN: Final = 3  # at cutting the log, before the operator is told

_log = structlog.get_logger(__name__)


class Observer(Protocol):
    """Who is told how large the log is (telemetry)."""

    def log_size(self, size_bytes: int) -> None:
        """So many bytes now."""


@dataclass(slots=True)
class LogKeeper:
    """Cuts the log when it is too large, and after erasures.

    Args:
        path: The log.
        most: How large it may become, in bytes.
        longest_wait_s: For the reads that run; none of ours takes longer.
    """

    writer: Writer
    barrier: Barrier
    path: Path
    most: int
    longest_wait_s: float
    clock: Clock
    observer: Observer
    _erased: bool = True  # something, since the log was cut; after a start nobody knows
    _tries: int = 0  # in a row that failed
    _next: float = 0.0  # monotonic
    _warned: bool = False

    def erased(self) -> None:
        """Something was erased: it must not stay in the log."""
        self._erased = True

    async def run_once(self) -> None:
        """Look once; also whether the database is in its place, since nobody may be writing."""
        self.writer.check()
        size = self._size()
        self.observer.log_size(size)
        if not size:
            self._erased = False
        if size <= self.most and not self._erased:
            self._settled()
        elif self.clock.monotonic() >= self._next:
            await self._try(size)

    async def _try(self, size: int) -> None:
        erased, self._erased = self._erased, False  # an erasure that comes meanwhile asks again
        wait_s = min(FIRST_WAIT_S * 2 ** min(self._tries, 9), self.longest_wait_s)
        async with self.barrier.shut(wait_s) as quiet:
            done = quiet and await self.writer.empty_log()
        if done:
            self.observer.log_size(self._size())
            self._settled()
            return
        self._erased |= erased
        self._tries += 1
        self._next = self.clock.monotonic() + min(FIRST_PAUSE_S * 2 ** min(self._tries - 1, 9), MAX_PAUSE_S)
        if size > self.most and self._tries >= TRIES_TO_WARN and not self._warned:
            self._warned = True
            _log.warning("database_log_large", bytes=size, hint=_OTHERS if quiet else _OURS)

    def _settled(self) -> None:
        self._tries, self._next = 0, 0.0
        if self._warned:
            self._warned = False
            _log.info("database_log_cut")

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0


_OTHERS: Final = (
    "another program reads the database: end its transaction (a shell, a backup); the log shrinks by itself then"
)
_OURS: Final = "reads of this service take long; the log shrinks when they are through"
