"""Subscriptions: what may be done to them, and how the hot path sees them: filters, limits and addresses, in memory.

The writer of this process is the only one who changes subscriptions, so that what is kept here stays true until a
command changes it. What the commands do stands in `deliveries.subscribing.changes`, how a subscription is shown in the queries beside it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import msgspec

from service.db.reader import Reader
from service.db.sealing import SecretBox
from service.db.transaction import Params, Row, Tx
from service.db.writer import Command
from service.signing import Signer
from service.states import FINAL_EVENT_TYPES
from service.subscriptions import queries
from service.subscriptions.matching import Index
from service.subscriptions.sealed import Pair, Sealed

MAX_OPENED: Final = 4_096  # secrets, keys and headers that are kept in the clear; one takes up to 80 KB
MAX_KNOWN: Final = 64 << 20  # bytes of all subscriptions that are known, roughly
PER_KNOWN: Final = 1_500  # bytes of one beside its headers, and of an account that has none
MAX_OUTDATED: Final = 1_000  # see `DestinationCache`
ROWS_AT_ONCE: Final = 500  # that are made ready before others have their turn: some 4 ms


def effective_events(stored: Sequence[str]) -> tuple[str, ...]:
    """The event types that a subscription gets: what it names, or the final ones."""
    return tuple(stored) or FINAL_EVENT_TYPES


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
    sealed: Sealed = field(repr=False)
    stop_at_expiry: bool = False  # nothing is sent after the event's results have expired
    enabled: bool = True

    @property
    def size(self) -> int:
        """Bytes that it takes in memory, roughly."""
        filters = len(self.providers) + len(self.operations) + len(self.tags)
        return PER_KNOWN + len(self.url) + len(self.sealed.own_headers or b"") + 100 * filters

    @property
    def headers(self) -> dict[str, str]:
        """Its own, which go along with every request."""
        return self.sealed.headers()

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
        return self.sealed.signers(now_ms)


@dataclass(slots=True)
class _Account:
    """What is known of an account's subscriptions."""

    most_outdated: int
    known: dict[str, Destination] = field(default_factory=dict)  # in the order of their making
    whole: bool = False  # all are known, but for the outdated
    outdated: set[str] = field(default_factory=set)  # to be read again; only while the account is whole
    changing: set[str] = field(default_factory=set)  # by the open transaction: what is known of them is its own view
    changes: int = 0  # so that a read that began before the last one keeps nothing
    groups: tuple[Index[Destination], Index[Destination]] | None = None  # enabled and disabled

    def settled(self, subscription_id: str) -> bool:
        """Whether what is known of it, or that nothing is, is what is committed."""
        known = self.whole or subscription_id in self.known
        return known and subscription_id not in self.outdated and subscription_id not in self.changing

    def keep(self, subscription_id: str, destination: Destination | None) -> None:
        """It was read; None if there is none."""
        self.outdated.discard(subscription_id)
        self.groups = None
        if destination is None:
            self.known.pop(subscription_id, None)
        else:
            self.known[subscription_id] = destination

    def size(self) -> int:
        """Bytes in memory, roughly."""
        return PER_KNOWN + sum(each.size for each in self.known.values())

    def outdate(self, subscription_id: str) -> None:
        """What is known of it is so no longer."""
        self.changes += 1
        if self.whole and len(self.outdated) < self.most_outdated:
            self.outdated.add(subscription_id)
        elif self.whole:
            self.known, self.outdated, self.whole, self.groups = {}, set(), False, None
        else:
            self.known.pop(subscription_id, None)

    def grouped(self) -> tuple[Index[Destination], Index[Destination]]:
        """The enabled and the disabled ones."""
        if self.groups is None:
            all_of_them = self.known.values()
            self.groups = (
                Index(each for each in all_of_them if each.enabled),
                Index(each for each in all_of_them if not each.enabled),
            )
        return self.groups


class DestinationCache:
    """The subscriptions that were asked for, each until it changes.

    The fan-out needs all of an account, which are read once; the sender needs one, which is read alone. A change makes
    one of them outdated, never its neighbours. Accounts that were not asked for the longest make room.

    Args:
        box: Opens what is sealed.
        most_outdated: Subscriptions of an account that are read one by one; beyond, all are read.
        limit: Bytes, roughly; the account that was asked for last is kept whatever it takes.
    """

    def __init__(self, box: SecretBox, *, most_outdated: int = MAX_OUTDATED, limit: int = MAX_KNOWN) -> None:
        self._opens = lru_cache(MAX_OPENED)(box.open)
        self._most_outdated = most_outdated
        self._limit = limit
        self._grown = 0  # bytes since all was counted
        self._accounts: OrderedDict[str, _Account] = OrderedDict()  # those that were not asked for the longest first

    def count(self) -> int:
        """Accounts that are known."""
        return len(self._accounts)

    async def of(self, tx: Tx, account_ids: AbstractSet[str]) -> dict[str, Index[Destination]]:
        """The enabled subscriptions of each account, as this transaction sees them."""
        accounts = await self._up_to_date(tx, account_ids)
        return {each: account.grouped()[0] for each, account in accounts.items()}

    async def disabled_of(self, tx: Tx, account_ids: AbstractSet[str]) -> dict[str, Index[Destination]]:
        """The disabled ones: what they miss is kept as `skipped`."""
        accounts = await self._up_to_date(tx, account_ids)
        return {each: account.grouped()[1] for each, account in accounts.items()}

    async def find(self, reader: Reader, account_id: str, subscription_id: str) -> Destination | None:
        """One enabled subscription of the account as it is committed; None if it was disabled or deleted."""
        account = self._account(account_id)
        if account.settled(subscription_id):
            found = account.known.get(subscription_id)
        else:
            changes = account.changes
            row = await queries.one(reader, account_id, subscription_id)
            found = None if row is None else self._destination(row)
            if changes == account.changes and subscription_id not in account.changing:
                account.keep(subscription_id, found)
                if self._grown * 8 >= self._limit:
                    self._make_room()
        return found if found is not None and found.enabled else None

    def changing(self, tx: Tx, account_id: str, subscription_ids: Iterable[str]) -> None:
        """These are outdated now, when the transaction is committed, and when it is rolled back.

        Now, since what follows in the transaction must see the change; at its end, since the transaction may have brought
        in what never came to be. In between, readers are given what is committed, and keep none of it.
        """
        account, changed = self._account(account_id), tuple(subscription_ids)
        account.changing.update(changed)
        for each in changed:
            account.outdate(each)

        def ended() -> None:
            account.changing.difference_update(changed)
            for each in changed:
                account.outdate(each)

        tx.after_commit(ended)
        tx.on_rollback(ended)

    def _account(self, account_id: str) -> _Account:
        account = self._accounts.get(account_id)
        if account is None:
            account = self._accounts[account_id] = _Account(self._most_outdated)
            self._grown += PER_KNOWN
        else:
            self._accounts.move_to_end(account_id)
        return account

    def _make_room(self) -> None:
        """Forget accounts, but none that is being changed; asked once an eighth of what is allowed has come since."""
        self._grown = 0
        total = sum(account.size() for account in self._accounts.values())
        for account_id in list(self._accounts)[:-1]:
            if total <= self._limit:
                return
            account = self._accounts[account_id]
            if not account.changing:
                total -= account.size()
                del self._accounts[account_id]

    async def _up_to_date(self, tx: Tx, account_ids: AbstractSet[str]) -> dict[str, _Account]:
        accounts = {each: self._account(each) for each in account_ids}
        missing = {each: account for each, account in accounts.items() if not account.whole}
        if missing:
            await self._load(tx, missing)
        outdated = {each: account for account in accounts.values() for each in account.outdated}
        if outdated:
            rows = {row["id"]: row for row in await queries.these(tx, outdated)}
            for subscription_id in sorted(outdated):
                row = rows.get(subscription_id)
                outdated[subscription_id].keep(subscription_id, None if row is None else self._destination(row))
        if self._grown * 8 >= self._limit:
            self._make_room()
        return accounts

    async def _load(self, tx: Tx, accounts: Mapping[str, _Account]) -> None:
        loaded: dict[str, dict[str, Destination]] = {each: {} for each in accounts}
        rows = await queries.of_accounts(tx, accounts)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            for row in rows[start : start + ROWS_AT_ONCE]:
                loaded[row["account_id"]][row["id"]] = self._destination(row)
            await asyncio.sleep(0)
        for account_id, known in loaded.items():
            account = accounts[account_id]
            account.known, account.outdated, account.whole, account.groups = known, set(), True, None

    def _destination(self, row: Row) -> Destination:
        until, keyed = row["previous_secret_until"], "v1a" in _texts(row["signatures"])
        made = Destination(
            id=row["id"],
            account_id=row["account_id"],
            url=row["url"],
            events=_events(row["events"]),
            providers=_texts(row["providers"]),
            operations=_texts(row["operations"]),
            tags=_texts(row["tags"]),
            max_in_flight=row["max_in_flight"],
            rate_per_s=row["rate_per_s"],
            schedule_s=None
            if row["schedule"] is None
            else msgspec.json.decode(row["schedule"], type=tuple[float, ...]),
            sealed=Sealed(
                subscription_id=row["id"],
                opens=self._opens,
                secrets=Pair(row["secret"], row["previous_secret"], until),
                keys=Pair(row["signing_key"], row["previous_signing_key"], until) if keyed else Pair(),
                own_headers=row["headers"],
            ),
            stop_at_expiry=bool(row["stop_at_expiry"]),
            enabled=row["status"] == "enabled",
        )
        self._grown += made.size
        return made


# Thousands of subscriptions have the same few lists.
@lru_cache(4_096)
def _texts(stored: str) -> frozenset[str]:
    return frozenset(msgspec.json.decode(stored, type=list[str]))


@lru_cache(4_096)
def _events(stored: str) -> frozenset[str]:
    return frozenset(effective_events(msgspec.json.decode(stored, type=list[str])))


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
