"""Where the sender looks up secrets and standing destinations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from service.accounts.secrets import signing_secrets
from service.clock import Clock
from service.db.reader import Reader
from service.db.secrets import SecretBox
from service.db.writer import Writer
from service.deliveries.subscriptions import Destination, DestinationCache, DisableSubscription

REMEMBERED_MS = 5_000  # how long an account's secrets are kept in memory; a rotated one co-signs far longer
MAX_REMEMBERED = 10_000  # accounts


@dataclass(slots=True)
class StoreDirectory:
    """The store's word, with the accounts' secrets remembered for some seconds."""

    reader: Reader
    writer: Writer
    box: SecretBox
    cache: DestinationCache
    clock: Clock
    _secrets: dict[str, tuple[int, Sequence[bytes]]] = field(default_factory=dict)

    async def account_secrets(self, account_id: str) -> Sequence[bytes]:
        """The account's signing secrets, newest first; more than one during a rotation."""
        now_ms = self.clock.now_ms()
        known = self._secrets.get(account_id)
        if known is not None and abs(now_ms - known[0]) < REMEMBERED_MS:
            return known[1]
        secrets = await signing_secrets(self.reader, self.box, account_id, now_ms)
        if len(self._secrets) >= MAX_REMEMBERED:
            self._secrets.clear()
        self._secrets[account_id] = (now_ms, secrets)
        return secrets

    async def destination(self, account_id: str, subscription_id: str) -> Destination | None:
        """The subscription as it is now; None if it was deleted or disabled."""
        return await self.cache.find(self.reader, account_id, subscription_id)

    async def disable(self, account_id: str, subscription_id: str, reason: str, url: str) -> None:
        """The destination at this address said that it is gone for good."""
        await self.writer.run(DisableSubscription(subscription_id, account_id, reason, url))
