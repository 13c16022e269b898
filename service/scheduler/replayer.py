"""Replays in the background: claims those that want to go on, and lets each queue a batch at a time, in turns."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from service.clock import Clock
from service.db.reader import Reader
from service.db.transaction import Row
from service.db.writer import Writer
from service.deliveries.replays.replay import next_batch
from service.deliveries.replays.replay_claim_store import ClaimReplays, VoidReplayLeases
from service.deliveries.replays.replay_queries import any_due

AT_ONCE: Final = 8  # replays of one claim
ROUNDS: Final = 20  # claims of one run; the next tick goes on
LEASE_MS: Final = 30_000  # of a claim; a batch takes milliseconds


@dataclass(slots=True)
class Replayer:
    """Looks on a reader and writes batch by batch; one that has to wait is asked again later and holds up no other."""

    writer: Writer
    reader: Reader
    clock: Clock
    owner: str
    _voided: bool = False  # what an earlier process held
    _after: str = ""  # the account that was served last

    async def run_once(self) -> int:
        """Go on with what is due; returns how many batches that were."""
        if not self._voided:
            await self.writer.run(VoidReplayLeases())
            self._voided = True
        batches = 0
        for _ in range(ROUNDS):
            if not await any_due(self.reader, self.clock.now_ms()):
                break
            claimed = await self.writer.run(ClaimReplays(self.owner, LEASE_MS, AT_ONCE, self._after))
            batches += sum(await asyncio.gather(*(self._go_on(row) for row in claimed)))
            if not claimed:
                break
            self._after = claimed[-1]["account_id"]
        return batches

    async def _go_on(self, claimed: Row) -> bool:
        return await self.writer.run(await next_batch(self.reader, claimed))
