"""Where the sender looks up secrets and standing destinations."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from service.accounts.secrets import signing_secrets
from service.clock import Clock
from service.db.reader import Reader
from service.db.sealing import SecretBox
from service.db.writer import Writer
from service.deliveries.statistics.backlog_queries import waiting
from service.subscriptions.destinations import DestinationCache
from service.subscriptions.snapshots import Destination
from service.subscriptions.subscription_commands import DisableSubscription

#: How long an account's secrets are kept in memory. A rotation by this process is known at once; this is for one that was
#: made by another program (a restored backup, an operator's shell).
REMEMBERED_S: Final = 5.0
MAX_REMEMBERED: Final = 10_000  # accounts


@dataclass(slots=True)
class StoreDirectory:
    """The store's word, with the accounts' secrets remembered for some seconds."""

    reader: Reader
    writer: Writer
    box: SecretBox
    cache: DestinationCache
    clock: Clock
    _secrets: OrderedDict[str, tuple[float, Sequence[bytes]]] = field(default_factory=OrderedDict)  # the oldest first
    _rotations: int = 0  # so that a read that began before the last one keeps nothing

    async def account_secrets(self, account_id: str) -> Sequence[bytes]:
        """The account's signing secrets, newest first; more than one during a rotation."""
        now, rotations = self.clock.monotonic(), self._rotations
        known = self._secrets.get(account_id)
        if known is not None and now - known[0] < REMEMBERED_S:
            return known[1]
        secrets = await signing_secrets(self.reader, self.box, account_id, self.clock.now_ms())
        if rotations == self._rotations:
            self._secrets[account_id] = (now, secrets)
            self._secrets.move_to_end(account_id)
            if len(self._secrets) > MAX_REMEMBERED:
                self._secrets.popitem(last=False)
        return secrets

    def forget_secrets(self, account_id: str) -> None:
        """The account's secret was rotated, durably: whatever is signed from now on is signed with the new one."""
        self._rotations += 1
        self._secrets.pop(account_id, None)

    async def destination(self, account_id: str, subscription_id: str) -> Destination | None:
        """The subscription as it is now; None if it was deleted or disabled."""
        return await self.cache.find(self.reader, account_id, subscription_id)

    async def waiting(self, lane_id: str) -> int:
        """How many deliveries wait in the lane, `COUNTED` at most."""
        return (await waiting(self.reader, [lane_id]))[lane_id].pending

    async def disable(self, account_id: str, subscription_id: str, reason: str, url: str) -> None:
        """The destination at this address said that it is gone for good."""
        await self.writer.run(DisableSubscription(subscription_id, account_id, reason, url))
