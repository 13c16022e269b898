"""Whether the store takes writes, asked by `/readyz`: a disk that is full shows only to who writes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from service.clock import Clock
from service.db.transaction import Tx
from service.db.writer import Command, Writer
from service.errors import StoreUnavailable

PROBE_S: Final = 2.0  # between two writes, however often somebody asks
ROOM_BYTES: Final = 64 * 1024  # that a store in trouble must take before it counts as well: more than a job needs
_PROBE: Final = (
    "INSERT INTO meta (key, value) @rows('last_probe', :now) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)


@dataclass(frozen=True, slots=True)
class Probe(Command[None]):
    """A small write; `size` bytes more where it is to need room."""

    size: int = 0


class Readiness:
    """Writes now and then while somebody asks, so that a store that cannot be written is noticed, and also that it can again.

    On a full disk some writes succeed all the same, where the log has room or nothing is written at all.
    """

    def __init__(self, writer: Writer, clock: Clock) -> None:
        self._writer = writer
        self._clock = clock
        self._lock = asyncio.Lock()
        self._next = 0.0  # monotonic
        writer.handle(Probe, handle_probe)

    async def trouble(self) -> str | None:
        """Why nothing can be written now; None where it can."""
        async with self._lock:  # those who ask meanwhile share the answer
            if self._clock.monotonic() >= self._next:
                with suppress(StoreUnavailable):
                    await self._writer.run(Probe(ROOM_BYTES if self._writer.trouble is not None else 0))
                    self._writer.recovered()
                self._next = self._clock.monotonic() + PROBE_S
        if self._writer.failed.done():
            return f"the store failed: {self._writer.failed.result()}"
        return self._writer.trouble

    async def run_once(self) -> None:
        """Try whether a store in trouble is well again, also while nobody asks."""
        if self._writer.trouble is not None:
            await self.trouble()


async def handle_probe(tx: Tx, commands: Sequence[Probe]) -> list[Exception | None]:
    """The writer's handler for `Probe`."""
    tx.write(_PROBE, [{"now": str(tx.now_ms).encode().ljust(max(command.size for command in commands))}])
    return [None for _ in commands]
