"""Every delivery that this process holds, and what it takes while it is held: a place in its lane, bytes, and a socket while it is out.

A place is one object from the moment it is taken until it is given back. It moves through its stages by `Places` only, which keeps all counts by
these moves: nothing that was taken can be forgotten by one count and kept by another, and nothing is given back twice. Pure: no clock,
no tasks.
"""

from __future__ import annotations

from typing import Final

from service.deliveries.lanes.held_bytes import Memory
from service.deliveries.lanes.queue import Lane, LanePlace, Sending, Stage
from service.deliveries.lanes.quota import Shares

# Members of an enumeration are looked up slowly, and hashed slowly, and this is done for every delivery.
_OUT: Final = Stage.OUT
#: What may follow in a place's life, by its stage; every stage may be its last.
_NEXT: Final[tuple[tuple[Stage, ...], ...]] = ((Stage.QUEUED, Stage.OUT), (Stage.OUT,), (Stage.RECORDING,), ())


class PlaceMisused(RuntimeError):
    """A place was moved where it cannot go, or given back twice: a mistake in the code."""


class Places:
    """All places.

    Args:
        sockets: One is taken for every request that is out.
        memory: What is held is counted there.
    """

    def __init__(self, sockets: Shares, memory: Memory) -> None:
        self._sockets = sockets
        self._memory = memory
        self._held: dict[tuple[str, int], LanePlace] = {}  # by delivery, and the epoch of its lease

    def __len__(self) -> int:
        """How many are taken."""
        return len(self._held)

    def of(self, sending: Sending) -> LanePlace:
        """The place of a delivery that is held.

        Raises:
            PlaceMisused: It has none.
        """
        place = self._held.get((sending.delivery_id, sending.epoch))
        if place is None:
            raise PlaceMisused(f"{sending.delivery_id} has no place")
        return place

    def take(self, lane: Lane, sending: Sending, stage: Stage) -> LanePlace:
        """A place for a delivery that has none, with the bytes that it takes.

        Raises:
            PlaceMisused: It has one.
        """
        key = sending.delivery_id, sending.epoch
        if key in self._held:
            raise PlaceMisused(f"{sending.delivery_id} has a place")
        place = self._held[key] = LanePlace(sending, lane, stage)
        lane.stages[stage] += 1
        self._memory.hold(sending)
        return place

    def move(self, place: LanePlace, to: Stage) -> None:
        """On to another stage; with its beginning to be out a socket is taken, with the end of it that is free.

        Raises:
            PlaceMisused: This does not follow.
        """
        if place.stage is None or to not in _NEXT[place.stage]:
            raise PlaceMisused(f"{place.sending.delivery_id} cannot go from {place.stage} to {to}")
        self._leave_stage(place, place.stage)
        place.stage = to
        place.lane.stages[to] += 1
        if to is _OUT:
            self._sockets.begin(place.lane.account_id)

    def give_back(self, place: LanePlace) -> None:
        """The place is free, whatever its stage, with all that it took.

        Raises:
            PlaceMisused: It was given back before.
        """
        if place.stage is None:
            raise PlaceMisused(f"{place.sending.delivery_id} was given back before")
        self._leave_stage(place, place.stage)
        place.stage = None
        del self._held[place.sending.delivery_id, place.sending.epoch]
        self._memory.let_go(place.sending)

    def _leave_stage(self, place: LanePlace, stage: Stage) -> None:
        place.lane.stages[stage] -= 1
        if stage is _OUT:
            self._sockets.end(place.lane.account_id)
