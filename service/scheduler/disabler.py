"""Disables subscriptions whose destination has done nothing but fail for days, and so tells the account's others."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog

from service.db.reader import Reader
from service.db.writer import Writer
from service.deliveries import queries
from service.deliveries.subscriptions import DisableSubscription

PATIENCE: Final = timedelta(days=5)
BATCH: Final = 100  # subscriptions of one run; the next tick goes on

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Disabler:
    """Looks from time to time; what it needs to know stands in the subscriptions' rows."""

    writer: Writer
    reader: Reader

    async def run_once(self) -> int:
        """Disable what has failed for too long; returns how many."""
        failing = await queries.failing_for(self.reader, PATIENCE // timedelta(milliseconds=1), BATCH)
        for account_id, subscription_id in failing:
            reason = f"nothing but failures for {PATIENCE.days} days"
            await self.writer.run(DisableSubscription(subscription_id, account_id, reason))
            _log.warning("subscription_disabled", subscription=subscription_id, reason=reason)
        return len(failing)
