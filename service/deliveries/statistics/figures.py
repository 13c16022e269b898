"""How destinations did in the last hour, in memory: attempts, successes, and how fast they answered.

Bounded: a destination takes less than 2 KB, those that were idle the longest make room, and nothing outlives an hour.
After a restart the hour begins anew. Must not know the store: what waits there is counted by `backlog_queries`.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from service.clock import Clock
from service.deliveries.lanes.lane_breaker import BreakerState
from service.deliveries.lanes.lanes import Lanes

SLOT_S: Final = 300  # the hour moves on in such steps
SLOTS: Final = 12  # parts of an hour that are counted apart
MAX_LANES: Final = 20_000  # destinations that are remembered
#: Upper bounds in ms, half a power of two apart, up to a minute: what is told is at most 42 % off.
BOUNDS_MS: Final = tuple(2 ** (step / 2) for step in range(33))

# What a slot counts: attempts, deliveries, then answers by how long they took, the last of them beyond all bounds.
_ATTEMPTS: Final = 0
_DELIVERED: Final = 1
_ANSWERS: Final = 2
_WIDTH: Final = _ANSWERS + len(BOUNDS_MS) + 1


@dataclass(frozen=True, slots=True)
class Figure:
    """The last hour of one destination."""

    attempts: int = 0
    delivered: int = 0
    p50_ms: int | None = None  # of what was answered, whatever the answer
    p95_ms: int | None = None

    @property
    def success_rate(self) -> float | None:
        """The share of attempts that were deliveries; None without attempts."""
        return round(self.delivered / self.attempts, 4) if self.attempts else None


_NOTHING: Final = Figure()
_CLOSED: Final = BreakerState("closed")


@dataclass(frozen=True, slots=True)
class DestinationStanding:
    """How a destination does, as far as this process knows without asking the store."""

    hour: Figure = _NOTHING
    breaker: BreakerState = _CLOSED
    in_flight: int = 0


Standings = Callable[[str], DestinationStanding]  #: by lane, which has its subscription's id


def nothing_known(_: str) -> DestinationStanding:
    """Where nothing is sent from."""
    return DestinationStanding()


class _Hour:
    """The slots of one destination, as a ring."""

    __slots__ = ("counts", "slot")

    def __init__(self, slot: int) -> None:
        self.counts = array("I", bytes(4 * SLOTS * _WIDTH))
        self.slot = slot  # the last one that was counted in

    def at(self, slot: int) -> int:
        """Where the counts of a slot begin, once those that it replaces are gone."""
        for passed in range(max(self.slot, slot - SLOTS) + 1, slot + 1):
            begin = passed % SLOTS * _WIDTH
            self.counts[begin : begin + _WIDTH] = array("I", bytes(4 * _WIDTH))
        self.slot = slot
        return slot % SLOTS * _WIDTH

    def sums(self) -> list[int]:
        """The counts of all slots together."""
        return [sum(self.counts[column::_WIDTH]) for column in range(_WIDTH)]


class Figures:
    """The figures of all destinations of this process."""

    def __init__(self, clock: Clock, lanes: Lanes) -> None:
        self._clock = clock
        self.lanes = lanes
        self._hours: OrderedDict[str, _Hour] = OrderedDict()  # those that were idle the longest come first

    def count(self) -> int:
        """Destinations that are remembered."""
        return len(self._hours)

    def attempted(self, lane_id: str, *, delivered: bool, answered_ms: int | None) -> None:
        """An attempt ended; `answered_ms` is how long it took if there was an answer."""
        slot = self._slot()
        hour = self._hours.get(lane_id)
        if hour is None:
            hour = self._add(lane_id, slot)
        else:
            self._hours.move_to_end(lane_id)
        counts, begin = hour.counts, hour.at(slot)
        counts[begin + _ATTEMPTS] += 1
        if delivered:
            counts[begin + _DELIVERED] += 1
        if answered_ms is not None:
            counts[begin + _ANSWERS + bisect_left(BOUNDS_MS, answered_ms)] += 1

    def of(self, lane_id: str) -> Figure:
        """The last hour of one destination."""
        hour, slot = self._hours.get(lane_id), self._slot()
        if hour is None or hour.slot <= slot - SLOTS:
            return _NOTHING
        hour.at(slot)
        sums = hour.sums()
        answers = sums[_ANSWERS:]
        return Figure(sums[_ATTEMPTS], sums[_DELIVERED], _quantile(answers, 0.5), _quantile(answers, 0.95))

    def standing(self, lane_id: str) -> DestinationStanding:
        """All that is known of one destination."""
        return DestinationStanding(
            self.of(lane_id), self.lanes.breakers.state(lane_id), self.lanes.in_flight_of(lane_id)
        )

    def _slot(self) -> int:
        return int(self._clock.monotonic() // SLOT_S)

    def _add(self, lane_id: str, slot: int) -> _Hour:
        while self._hours:
            oldest = next(iter(self._hours.values()))
            if len(self._hours) < MAX_LANES and oldest.slot > slot - SLOTS:
                break
            self._hours.popitem(last=False)
        made = self._hours[lane_id] = _Hour(slot)
        return made


def _quantile(counts: Sequence[int], share: float) -> int | None:
    """A quantile of answers by bucket, evenly spread within their bucket; beyond all bounds it is the last of them."""
    rank = share * sum(counts)
    if not rank:
        return None
    for index, count in enumerate(counts[:-1]):
        if rank <= count:
            low = BOUNDS_MS[index - 1] if index else 0.0
            return round(low + (BOUNDS_MS[index] - low) * rank / count)
        rank -= count
    return round(BOUNDS_MS[-1])
