"""Which destinations want an event: an account's, by what they ask for, so that an event is not held against each of them.

It must not know where destinations come from. Of ten thousand with a tag of their own an event looks at those of its tags.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Generic, Protocol, TypeVar


class Wanting(Protocol):
    """What is looked at of a destination."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def events(self) -> frozenset[str]:
        """The event types that it gets."""

    @property
    def tags(self) -> frozenset[str]:
        """One of these has to be the job's; empty: whatever it has."""

    def wants(self, event_type: str, provider: str | None, operation: str | None, tags: AbstractSet[str]) -> bool:
        """Whether an event passes all filters."""


D = TypeVar("D", bound=Wanting)


class Index(Generic[D]):
    """Destinations, in an order that stays; made anew when one of them changes."""

    def __init__(self, destinations: Iterable[D]) -> None:
        self.all = list(destinations)
        self._by_id = {each.id: each for each in self.all}
        self._any_tag: dict[str, list[D]] = defaultdict(list)  # by event type
        self._tagged: dict[tuple[str, str], list[D]] = defaultdict(list)  # by event type and tag
        for each in self.all:
            for event_type in each.events:
                if not each.tags:
                    self._any_tag[event_type].append(each)
                for tag in each.tags:
                    self._tagged[event_type, tag].append(each)

    def only(self, destination_id: str) -> list[D]:
        """That one, if it is here, whatever it wants."""
        found = self._by_id.get(destination_id)
        return [] if found is None else [found]

    def wanting(self, event_type: str, provider: str | None, operation: str | None, tags: AbstractSet[str]) -> list[D]:
        """Those that want an event; `provider` is None where it is about no job, and filters on jobs do not matter."""
        if not self.all:
            return []
        if provider is None:
            return [each for each in self.all if each.wants(event_type, None, None, tags)]
        found = {each.id: each for each in self._candidates(event_type, tags)}
        return [each for each in found.values() if each.wants(event_type, provider, operation, tags)]

    def _candidates(self, event_type: str, tags: AbstractSet[str]) -> Iterator[D]:
        yield from self._any_tag.get(event_type, ())
        for tag in sorted(tags):
            yield from self._tagged.get((event_type, tag), ())
