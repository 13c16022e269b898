"""Places: whatever happens, in whatever order, nothing that was taken is forgotten, doubled or given back twice; planted mistakes are seen."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from service.deliveries.lanes.held_bytes import Memory
from service.deliveries.lanes.places import PlaceMisused, Places
from service.deliveries.lanes.queue import Lane, LanePlace, Stage
from service.deliveries.lanes.quota import Shares
from tests.deliveries.test_lanes import sending

FOLLOWS = {Stage.RESERVED: {Stage.QUEUED, Stage.OUT}, Stage.QUEUED: {Stage.OUT}, Stage.OUT: {Stage.RECORDING}}


class Histories(RuleBasedStateMachine):
    """Arbitrary histories beside a model: the stage of each delivery in a dict."""

    made: type[Places] = Places

    def __init__(self) -> None:
        super().__init__()
        self.sockets, self.memory = Shares(), Memory()
        self.places = self.made(self.sockets, self.memory)
        self.lanes = {name: Lane(f"acc_{name}", 2, None) for name in "abc"}
        self.model: dict[str, Stage] = {}
        self.held: dict[str, LanePlace] = {}
        self.gone: list[LanePlace] = []
        self.number = 0

    def _some(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.model)))

    @rule(lane=st.sampled_from("abc"), stage=st.sampled_from([Stage.RESERVED, Stage.QUEUED]))
    def take(self, lane: str, stage: Stage) -> None:
        """A new delivery."""
        self.number += 1
        one = sending(lane, self.number)
        self.held[one.delivery_id] = self.places.take(self.lanes[lane], one, stage)
        self.model[one.delivery_id] = stage

    @precondition(lambda self: self.model)
    @rule(data=st.data(), to=st.sampled_from(Stage))
    def move(self, data: st.DataObject, to: Stage) -> None:
        """On, where that follows; refused and without effect where not."""
        name = self._some(data)
        if to in FOLLOWS.get(self.model[name], ()):
            self.places.move(self.held[name], to)
            self.model[name] = to
        else:
            with pytest.raises(PlaceMisused):
                self.places.move(self.held[name], to)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        """From any stage."""
        name = self._some(data)
        del self.model[name]
        self.gone.append(place := self.held.pop(name))
        self.places.give_back(place)

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def give_back_again(self, data: st.DataObject) -> None:
        """Is refused."""
        with pytest.raises(PlaceMisused):
            self.places.give_back(data.draw(st.sampled_from(self.gone)))

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def take_again(self, data: st.DataObject) -> None:
        """What has a place gets no second one, until its lease is another."""
        one = self.held[self._some(data)].sending
        with pytest.raises(PlaceMisused):
            self.places.take(self.lanes[one.lane], one, Stage.QUEUED)
        again = self.places.take(self.lanes[one.lane], replace(one, epoch=one.epoch + 1), Stage.QUEUED)
        self.places.give_back(again)

    @invariant()
    def counts_are_what_is_held(self) -> None:
        """Of every lane and stage, sockets by account, and bytes."""
        stages = Counter((self.held[name].sending.lane, stage) for name, stage in self.model.items())
        for name, lane in self.lanes.items():
            assert lane.stages == [stages[name, stage] for stage in Stage]
            assert lane.load == sum(lane.stages)
        out = [name for name, stage in self.model.items() if stage is Stage.OUT]
        assert self.sockets.out == len(out)
        assert len(self.places) == self.memory.deliveries == len(self.model)
        assert (self.memory.bytes == 0) == (not self.model)


def check(places: type[Places]) -> None:
    """Arbitrary histories of such places."""
    kind = type("Histories", (Histories,), {"made": places})
    run_state_machine_as_test(kind, settings=settings(max_examples=60, stateful_step_count=30, deadline=None))


def test_every_history_keeps_the_counts() -> None:
    """Taken, moved, given back, in every order that there is."""
    check(Places)


class Forgets(Places):
    """Planted: the socket is not given back with the place."""

    def give_back(self, place: LanePlace) -> None:
        if place.stage is Stage.OUT:
            place.lane.stages[Stage.OUT] -= 1
            place.lane.stages[Stage.RECORDING] += 1
            place.stage = Stage.RECORDING
        super().give_back(place)


class Doubles(Places):
    """Planted: a place can be given back twice."""

    def give_back(self, place: LanePlace) -> None:
        stage = place.stage
        super().give_back(place)
        place.stage = stage


class Skips(Places):
    """Planted: a request may be recorded that was never out."""

    def move(self, place: LanePlace, to: Stage) -> None:
        if place.stage is Stage.QUEUED and to is Stage.RECORDING:
            super().move(place, Stage.OUT)
        super().move(place, to)


@pytest.mark.parametrize("planted", [Forgets, Doubles, Skips])
def test_planted_mistake_is_seen(planted: type[Places]) -> None:
    """Else the check would mean nothing."""
    with pytest.raises((AssertionError, KeyError, pytest.fail.Exception)):
        check(planted)
