"""Wishes concerning subscriptions; what they do to the store stands in `deliveries.subscribing.changes`."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from service.db.transaction import Params
from service.db.writer import Command


@dataclass(frozen=True, slots=True)
class SubscriptionCommand(Command[None]):
    """A wish concerning one subscription; NotFound if the account has none of that id."""

    subscription_id: str
    account_id: str

    def lock(self) -> Hashable | None:
        """The second of two equal wishes must see what the first one did."""
        return self.subscription_id


@dataclass(frozen=True, slots=True)
class CreateSubscription(SubscriptionCommand):
    """Store a new subscription; Conflict when the account has too many.

    Args:
        columns: What was asked for, as it is stored.
        sealed_secret: Sealed for `secret_place`.
        sealed_seed: Sealed for `key_place`, where `v1a` is asked for.
    """

    columns: Params = field(repr=False)
    sealed_secret: bytes = field(repr=False)
    sealed_seed: bytes | None = field(default=None, repr=False)

    def lock(self) -> Hashable | None:
        """Each must be counted before the next one."""
        return self.account_id


@dataclass(frozen=True, slots=True)
class UpdateSubscription(SubscriptionCommand):
    """Change the columns that were named, as they are stored.

    Args:
        columns: Those that were named.
        sealed_seed: For a subscription that has none yet, where `v1a` is asked for; one that it has had stays.
    """

    columns: Params = field(repr=False)
    sealed_seed: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class DeleteSubscription(SubscriptionCommand):
    """Forget a subscription; its pending deliveries become `skipped`."""


@dataclass(frozen=True, slots=True)
class EnableSubscription(SubscriptionCommand):
    """Let it have events again; no change if it is enabled."""


@dataclass(frozen=True, slots=True)
class DisableSubscription(SubscriptionCommand):
    """Let it have no more events; its pending deliveries become `skipped`, and the account's others are told.

    No change if it is disabled or gone: several requests that are out at once may bring the same news; nor if what made
    somebody ask for it is so no longer.

    Args:
        reason: As it is told.
        url: Only while it is sent to there; None for wherever.
        failing_ms: Only while it has done nothing but fail for so long.
    """

    reason: str
    url: str | None = None
    failing_ms: int | None = None


@dataclass(frozen=True, slots=True)
class RotateSubscriptionSecret(SubscriptionCommand):
    """Replace the signing secret, and the key if there is one; the old ones co-sign for a grace, down to none."""

    sealed_secret: bytes = field(repr=False)
    sealed_seed: bytes = field(repr=False)
    grace_ms: int


@dataclass(frozen=True, slots=True)
class Ping(SubscriptionCommand):
    """Send a `ping` to this subscription alone, as this event; Conflict if it is disabled."""

    event_id: str
