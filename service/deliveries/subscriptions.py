"""Subscriptions: what may be done to them, and how the hot path sees them: filters, limits and opened secrets, in memory.

The writer of this process is the only one who changes subscriptions, so that what is kept here stays true until a
command of the same account runs. What the commands do stands in `changes`, how a subscription is shown in `queries`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from service.accounts.secrets import Rows
from service.db.reader import Reader
from service.db.secrets import SecretBox
from service.db.transaction import Params, Row, Tx, json_set
from service.db.writer import Command
from service.signing import Signer, decode_secret, signing_key
from service.states import FINAL_EVENT_TYPES

_SELECT: Final = """
SELECT id, account_id, url, events, providers, operations, tags, headers, rate_per_s, max_in_flight, schedule, signatures,
    stop_at_expiry, status, secret, previous_secret, previous_secret_until, signing_key, previous_signing_key FROM subscriptions
"""
_OF_ACCOUNTS: Final = f"{_SELECT} WHERE account_id IN (SELECT value FROM json_each(:accounts)) ORDER BY id"


def secret_place(subscription_id: str) -> str:
    """The place that a subscription's secret is sealed for; the previous one keeps it when it moves."""
    return f"subscriptions/{subscription_id}/secret"


def key_place(subscription_id: str) -> str:
    """The place that the seed of a subscription's `v1a` key is sealed for; the previous one keeps it when it moves."""
    return f"subscriptions/{subscription_id}/signing_key"


def headers_place(subscription_id: str) -> str:
    """The place that a subscription's own headers are sealed for."""
    return f"subscriptions/{subscription_id}/headers"


def effective_events(stored: Sequence[str]) -> tuple[str, ...]:
    """The event types that a subscription gets: what it names, or the final ones."""
    return tuple(stored) or FINAL_EVENT_TYPES


def open_headers(box: SecretBox, subscription_id: str, sealed: bytes | None) -> dict[str, str]:
    """A subscription's own headers in the clear."""
    if sealed is None:
        return {}
    return msgspec.json.decode(box.open(bytes(sealed), headers_place(subscription_id)), type=dict[str, str])


def open_keys(box: SecretBox, row: Row) -> tuple[tuple[Ed25519PrivateKey, int | None], ...]:
    """The keys of a subscription that asks for `v1a`, newest first, with the ms until which each signs; else none."""
    if "v1a" not in _texts(row["signatures"]):
        return ()
    place = key_place(row["id"])
    kept = ((row["signing_key"], None), (row["previous_signing_key"], row["previous_secret_until"]))
    return tuple((signing_key(box.open(bytes(sealed), place)), until) for sealed, until in kept if sealed is not None)


@dataclass(frozen=True, slots=True)
class Destination:
    """One subscription, ready to be matched and sent to; neither its secrets nor its headers are shown by `repr`."""

    id: str
    account_id: str
    url: str
    events: frozenset[str]
    providers: frozenset[str]  # empty: every provider; the same for the next two
    operations: frozenset[str]
    tags: frozenset[str]
    max_in_flight: int
    rate_per_s: float | None
    schedule_s: tuple[float, ...] | None  # None: the service's own
    headers: Mapping[str, str] = field(repr=False)
    # Newest first, with the ms until which each signs; behind the secrets for v1 the keys for v1a.
    secrets: tuple[tuple[Signer, int | None], ...] = field(repr=False)
    stop_at_expiry: bool = False  # nothing is sent after the event's results have expired

    def wants(self, event_type: str, provider: str | None, operation: str | None, tags: AbstractSet[str]) -> bool:
        """Whether an event passes the filters; those on jobs leave events alone that are about none."""
        if event_type not in self.events:
            return False
        return provider is None or (
            (not self.providers or provider in self.providers)
            and (not self.operations or operation in self.operations)
            and (not self.tags or not self.tags.isdisjoint(tags))
        )

    def signers(self, now_ms: int) -> list[Signer]:
        """What signs now, for `signature_headers`; a previous secret and key do until their grace is over."""
        return [signer for signer, until in self.secrets if until is None or until > now_ms]


@dataclass(frozen=True, slots=True)
class _Account:
    """An account's subscriptions, in the order of their making."""

    enabled: dict[str, Destination]
    disabled: dict[str, Destination]


class DestinationCache:
    """The subscriptions of the accounts that were asked for, until one of an account's changes."""

    def __init__(self, box: SecretBox) -> None:
        self._box = box
        self._accounts: dict[str, _Account] = {}
        self._changes = 0  # raised by every drop, so that a read that began before it keeps nothing

    async def of(self, tx: Tx, account_ids: AbstractSet[str]) -> dict[str, list[Destination]]:
        """The enabled subscriptions of each account, as this transaction sees them."""
        await self._load_missing(tx, account_ids)
        return {each: list(self._accounts[each].enabled.values()) for each in account_ids}

    async def disabled_of(self, tx: Tx, account_ids: AbstractSet[str]) -> dict[str, list[Destination]]:
        """The disabled ones: what they miss is kept as `skipped`."""
        await self._load_missing(tx, account_ids)
        return {each: list(self._accounts[each].disabled.values()) for each in account_ids}

    async def find(self, reader: Reader, account_id: str, subscription_id: str) -> Destination | None:
        """One enabled subscription of the account as it is committed; None if it was disabled or deleted."""
        account = self._accounts.get(account_id)
        if account is None:
            changes = self._changes
            loaded = await self._load(reader, {account_id})
            if changes == self._changes:
                self._accounts |= loaded
            account = loaded[account_id]
        return account.enabled.get(subscription_id)

    def changing(self, tx: Tx, account_ids: AbstractSet[str]) -> None:
        """Forget these accounts now, when the transaction is committed, and when it comes to nothing.

        Now, since what follows in the transaction must see the change; at its end, since a reader may have brought
        back meanwhile what was there before, or the transaction itself what never came to be.
        """
        self.drop(account_ids)
        tx.after_commit(lambda: self.drop(account_ids))
        tx.on_rollback(lambda: self.drop(account_ids))

    def drop(self, account_ids: AbstractSet[str]) -> None:
        """Forget these accounts."""
        self._changes += 1
        for each in account_ids:
            self._accounts.pop(each, None)

    async def _load_missing(self, tx: Tx, account_ids: AbstractSet[str]) -> None:
        missing = {each for each in account_ids if each not in self._accounts}
        if missing:
            self._accounts |= await self._load(tx, missing)

    async def _load(self, source: Rows, account_ids: AbstractSet[str]) -> dict[str, _Account]:
        loaded = {each: _Account({}, {}) for each in account_ids}
        for row in await source.rows(_OF_ACCOUNTS, {"accounts": json_set(account_ids)}):
            account = loaded[row["account_id"]]
            group = account.enabled if row["status"] == "enabled" else account.disabled
            group[row["id"]] = self._destination(row)
        return loaded

    def _destination(self, row: Row) -> Destination:
        return Destination(
            id=row["id"],
            account_id=row["account_id"],
            url=row["url"],
            events=frozenset(effective_events(_texts(row["events"]))),
            providers=frozenset(_texts(row["providers"])),
            operations=frozenset(_texts(row["operations"])),
            tags=frozenset(_texts(row["tags"])),
            max_in_flight=row["max_in_flight"],
            rate_per_s=row["rate_per_s"],
            schedule_s=None
            if row["schedule"] is None
            else msgspec.json.decode(row["schedule"], type=tuple[float, ...]),
            headers=open_headers(self._box, row["id"], row["headers"]),
            secrets=self._secrets(row) + open_keys(self._box, row),
            stop_at_expiry=bool(row["stop_at_expiry"]),
        )

    def _secrets(self, row: Row) -> tuple[tuple[Signer, int | None], ...]:
        place = secret_place(row["id"])
        kept = [(row["secret"], None), (row["previous_secret"], row["previous_secret_until"])]
        return tuple(
            (decode_secret(self._box.open(bytes(sealed), place).decode()), until)
            for sealed, until in kept
            if sealed is not None
        )


def _texts(stored: str) -> list[str]:
    return msgspec.json.decode(stored, type=list[str])


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

    No change if it is disabled or gone: several requests that are out at once may bring the same news.
    """

    reason: str


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
