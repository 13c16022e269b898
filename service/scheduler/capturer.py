"""Finds results that are due to be fetched and that nobody holds: retries, what did not fit, what a crash left behind."""

from __future__ import annotations

from dataclasses import dataclass

from service.db.writer import Writer
from service.results.capture_claim_store import ClaimCaptures
from service.results.captures import LEASE_MS, QUEUE_PER_HOST, Captures


@dataclass(slots=True)
class CapturerDuty:
    """Claims as many as this process has room for."""

    writer: Writer
    captures: Captures
    owner: str

    async def run_once(self) -> int:
        """Claim what is due now; returns how many were claimed."""
        self.captures.go_on()
        room = self.captures.room()
        if room <= 0:
            return 0
        claimed = await self.writer.run(
            ClaimCaptures(self.owner, LEASE_MS, room, QUEUE_PER_HOST, self.captures.waiting())
        )
        for capture in claimed:
            self.captures.take(capture)
        return len(claimed)
