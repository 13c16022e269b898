"""How many jobs there are in each state, for the metrics: counted at most so often that it takes a small share of the time.

Counting looks at an entry of an index for every job that is kept (measured: 0.15 s for a million).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from service.clock import Clock
from service.db.reader import Reader
from service.errors import Unavailable
from service.jobs.queries import count_by_status

LEAST_S: Final = 5.0  # between two counts
SHARE: Final = 20.0  # times as long as counting took, at least, until it is counted again


@dataclass(slots=True)
class JobCounts:
    """The last count, and when there is to be a new one."""

    reader: Reader
    clock: Clock
    _known: Mapping[str, int] = field(default_factory=dict)
    _until: float = float("-inf")
    _counting: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def now(self) -> Mapping[str, int]:
        """The jobs in each state as they were counted last; a count that takes too long leaves what is known."""
        async with self._counting:
            began = self.clock.monotonic()
            if began >= self._until:
                with contextlib.suppress(Unavailable):
                    self._known = await count_by_status(self.reader)
                now = self.clock.monotonic()
                self._until = now + max(LEAST_S, SHARE * (now - began))
            return self._known
