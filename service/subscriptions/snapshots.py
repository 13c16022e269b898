"""What is known of an account's subscriptions at one moment: immutable, and replaced as a whole.

Whoever holds a snapshot across an await sees one state, whatever happens meanwhile. It must not know the store: `destinations` reads, and
keeps the latest snapshot of each account.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from types import MappingProxyType
from typing import Final

from service.signing import Signer
from service.subscriptions.matching import Index
from service.subscriptions.sealed import Sealed

PER_KNOWN: Final = 1_500  # bytes of a subscription beside its headers, and of an account that has none
MAX_ALONE: Final = 4_096  # subscriptions of an account that are known although not all are
MAX_OUTDATED: Final = 1_000  # subscriptions of an account that are read one by one; beyond, all are read


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


@dataclass(frozen=True)
class Snapshot:
    """An account's subscriptions.

    Args:
        version: Another one whenever something changed: what was read before that is not kept.
        known: By id, in the order of their making.
        whole: All are known, but for the outdated.
        outdated: To be read again; only where all others are known.
        changing: By the open transaction: what is known of them is its own view.
    """

    version: int
    known: Mapping[str, Destination] = field(default_factory=lambda: MappingProxyType({}))
    whole: bool = False
    outdated: frozenset[str] = frozenset()
    changing: frozenset[str] = frozenset()

    def settled(self, subscription_id: str) -> bool:
        """Whether what is known of it, or that nothing is, is what is committed."""
        known = self.whole or subscription_id in self.known
        return known and subscription_id not in self.outdated and subscription_id not in self.changing

    def outdate(self, subscription_ids: Iterable[str], version: int, *, most: int = MAX_OUTDATED) -> Snapshot:
        """What is known of these is so no longer."""
        ids = frozenset(subscription_ids)
        if self.whole and len(self.outdated | ids) <= most:
            return replace(self, version=version, outdated=self.outdated | ids)
        known = {} if self.whole else {name: each for name, each in self.known.items() if name not in ids}
        return replace(self, version=version, known=MappingProxyType(known), whole=False, outdated=frozenset())

    def begun(self, subscription_ids: Iterable[str]) -> Snapshot:
        """The open transaction changes these."""
        return replace(self, changing=self.changing | frozenset(subscription_ids))

    def ended(self, subscription_ids: Iterable[str]) -> Snapshot:
        """It is committed or rolled back."""
        return replace(self, changing=self.changing - frozenset(subscription_ids))

    def read(self, found: Mapping[str, Destination | None]) -> Snapshot:
        """These were read; None where there is none."""
        known = {**self.known, **found} if self.whole else {**dict(self._latest(len(found))), **found}
        there = {name: each for name, each in known.items() if each is not None}
        return replace(self, known=MappingProxyType(there), outdated=self.outdated - found.keys())

    def read_whole(self, destinations: Mapping[str, Destination]) -> Snapshot:
        """All were read."""
        return replace(self, known=MappingProxyType(dict(destinations)), whole=True, outdated=frozenset())

    @cached_property
    def enabled(self) -> Index[Destination]:
        """Those that get events."""
        return Index(each for each in self.known.values() if each.enabled)

    @cached_property
    def disabled(self) -> Index[Destination]:
        """Those that get none for now."""
        return Index(each for each in self.known.values() if not each.enabled)

    @cached_property
    def size(self) -> int:
        """Bytes in memory, roughly."""
        return PER_KNOWN + sum(each.size for each in self.known.values())

    def _latest(self, more: int) -> Iterable[tuple[str, Destination]]:
        """Of what is known alone, as much as leaves room for so many more."""
        return islice(self.known.items(), max(0, len(self.known) + more - MAX_ALONE), None)
