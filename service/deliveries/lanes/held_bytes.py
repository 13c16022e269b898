"""How much of the store's deliveries this process holds, in bytes, and how that is shared out.

The body of an event is held and counted once, however many deliveries send it. A lane that holds nothing yet is let in before
those that hold something, and may use a reserve, half of all, of which no account gets more than is left for the others;
beyond the first of each lane an account has at most as much as is left for the others. Who comes last may go over the limit
by one body, so that no delivery is too large to be sent. Must not know lanes, nor the store.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from service.deliveries.lanes.queue import Sending

MEMORY: Final = 128 << 20  # bytes, unless a setting says otherwise
PER_DELIVERY: Final = (  # bytes that a delivery takes beside its body
    1_600  # bytes beside the body, while it waits; the default has room for 40,000 and twice as many firsts
)


@dataclass(slots=True)
class _Body:
    body: bytes
    deliveries: int = 0


class Memory:
    """The deliveries that are held.

    Args:
        limit: Bytes.
    """

    def __init__(self, limit: int = MEMORY) -> None:
        self._limit = limit
        self._ordinary = limit // 2
        self.deliveries = 0
        self.bytes = 0
        self._bytes_by: Counter[str] = Counter()  # by account
        self._bodies: dict[str, _Body] = {}  # by event

    def left(self) -> int:
        """How many deliveries more all accounts together may hold, were their bodies small."""
        return -(-max(0, self._ordinary - self.bytes) // PER_DELIVERY)

    def room(self, account_id: str, *, first: bool) -> int:
        """How many deliveries more the account may hold for a lane, were their bodies small; `first`: it holds none yet."""
        own = self._bytes_by[account_id]
        left = self._ordinary - self.bytes - own
        if left > 0:
            return -(-left // PER_DELIVERY)
        return int(first and may_be_first(self._ordinary, self._limit, self.bytes, own))

    def body_of(self, event_id: str) -> bytes | None:
        """The body of an event of which something is held."""
        known = self._bodies.get(event_id)
        return None if known is None else known.body

    def hold(self, sending: Sending) -> None:
        """One more is held."""
        known = self._bodies.get(sending.event_id)
        cost = PER_DELIVERY
        if known is None:
            known = self._bodies[sending.event_id] = _Body(sending.body)
            cost += len(known.body)
        known.deliveries += 1
        self.deliveries += 1
        self.bytes += cost
        self._bytes_by[sending.account_id] += cost

    def let_go(self, sending: Sending) -> None:
        """One less is held."""
        known = self._bodies[sending.event_id]
        cost = PER_DELIVERY
        known.deliveries -= 1
        if not known.deliveries:
            del self._bodies[sending.event_id]
            cost += len(known.body)
        self.deliveries -= 1
        self.bytes -= cost
        less(self._bytes_by, sending.account_id, cost)

    def plan(self) -> MemoryPlan:
        """For what is not held yet."""
        return MemoryPlan(self)


class MemoryPlan:
    """What would be held, one delivery after the other."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._bytes = memory.bytes
        self._bytes_by: Counter[str] = Counter(memory._bytes_by)  # noqa: SLF001 - two halves of one thing
        self._events: set[str] = set()

    def has_room(self, account_id: str, event_id: str, size: int, *, first: bool) -> bool:
        """Whether there is room for a further delivery, which is taken then; `first`: its lane may have the reserve."""
        ordinary, limit, own = self._memory._ordinary, self._memory._limit, self._bytes_by[account_id]  # noqa: SLF001
        fits = self._bytes + own < ordinary or (first and may_be_first(ordinary, limit, self._bytes, own))
        if fits:
            known = event_id in self._events or self._memory.body_of(event_id) is not None
            self._events.add(event_id)
            cost = PER_DELIVERY if known else PER_DELIVERY + size
            self._bytes += cost
            self._bytes_by[account_id] += cost
        return fits


def may_be_first(ordinary: int, most: int, all_of: int, own: int) -> bool:
    """The first of a lane finds a place among the ordinary ones; in the reserve no account has more than is left."""
    return all_of < ordinary or own < most - all_of


def less(counts: Counter[str], account_id: str, count: int = 1) -> None:
    """Count down; nothing is kept of who has nothing."""
    counts[account_id] -= count
    if counts[account_id] <= 0:
        del counts[account_id]
