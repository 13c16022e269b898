"""Disables subscriptions whose destination has done nothing but fail for days, and so tells the account's others."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from service.db.reader import Reader
from service.db.writer import Writer
from service.deliveries.subscribing import queries
from service.subscriptions.subscription_commands import DisableSubscription

PATIENCE: Final = timedelta(days=5)
BATCH: Final = 100  # subscriptions of one run; the next tick goes on


@dataclass(slots=True)
class Disabler:
    """Looks from time to time; what it needs to know stands in the subscriptions' rows."""

    writer: Writer
    reader: Reader

    async def run_once(self) -> int:
        """Disable what has failed for too long; returns how many were found, of which one may just have succeeded."""
        patience_ms = PATIENCE // timedelta(milliseconds=1)
        failing = await queries.failing_for(self.reader, patience_ms, BATCH)
        reason = f"nothing but failures for {PATIENCE.days} days"
        # All at once: one that fails comes first again at the next tick, and must not keep the others.
        await asyncio.gather(
            *(
                self.writer.run(DisableSubscription(subscription_id, account_id, reason, failing_ms=patience_ms))
                for account_id, subscription_id in failing
            )
        )
        return len(failing)
