"""Places: whatever happens, in whatever order, nothing that was taken is forgotten, doubled or given back twice; planted mistakes are seen."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from service.clock import SeededRandomness, VirtualClock
from service.deliveries.lanes.held_bytes import Memory
from service.deliveries.lanes.lanes import Lanes
from service.deliveries.lanes.places import PlaceMisused, Places
from service.deliveries.lanes.queue import Lane, LanePlace, Sending, Stage
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


class LaneHistories(RuleBasedStateMachine):
    """The lanes with their tasks: requests are answered, break, fail and succeed in any order; what is held goes to nought."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = VirtualClock()
        self.left: list[Sending] = []
        self.lanes = self.loop.run_until_complete(self._open())
        self.number = 0
        self.reserved: list[Sending] = []
        self.out: dict[str, asyncio.Future[bool]] = {}

    async def _open(self) -> Lanes:
        return Lanes(self._send, self.clock, SeededRandomness(1), self.left.extend, timeout_s=15)

    async def _send(self, one: Sending) -> None:
        answer = self.out[one.delivery_id] = self.loop.create_future()
        delivered = await answer
        self.lanes.heard(one, delivered=delivered)
        self.lanes.answered(one)

    async def _settle(self) -> None:
        for _ in range(8):
            await asyncio.sleep(0)

    def _turn(self) -> None:
        self.loop.run_until_complete(self._settle())

    @rule(lane=st.sampled_from("ab"))
    def reserve(self, lane: str) -> None:
        """A place, if there is one."""
        self.number += 1
        one = sending(lane, self.number)
        if self.lanes.reserve(one):
            self.reserved.append(one)

    @precondition(lambda self: self.reserved)
    @rule(commits=st.booleans())
    def commit(self, commits: bool) -> None:
        """Or roll back."""
        one = self.reserved.pop()

        async def done() -> None:
            (self.lanes.give if commits else self.lanes.release)(one)
            await self._settle()

        self.loop.run_until_complete(done())

    @rule(lane=st.sampled_from("ab"))
    def refill(self, lane: str) -> None:
        """From the store."""
        self.number += 1

        async def given() -> None:
            self.lanes.give(sending(lane, self.number), reserved=False)
            await self._settle()

        self.loop.run_until_complete(given())

    @precondition(lambda self: self.out)
    @rule(data=st.data(), outcome=st.sampled_from(["delivered", "failed", "broken"]))
    def answer(self, data: st.DataObject, outcome: str) -> None:
        """A request ends, one way or another."""
        answer = self.out.pop(data.draw(st.sampled_from(sorted(self.out))))
        if outcome == "broken":
            answer.set_exception(RuntimeError("broken"))
        else:
            answer.set_result(outcome == "delivered")
        self._turn()

    @rule(seconds=st.integers(1, 400))
    def wait(self, seconds: int) -> None:
        """Time goes on."""
        self.clock.advance(seconds)
        self._turn()

    @invariant()
    def what_is_held_adds_up(self) -> None:
        """No lane has more out than it may, and every place is somewhere."""
        for lane in self.lanes._lanes.values():
            assert lane.in_flight <= lane.max_in_flight
            assert lane.stages[Stage.QUEUED] == len(lane.queue)
            assert min(lane.stages) >= 0
        assert self.lanes._shares.out == sum(lane.in_flight for lane in self.lanes._lanes.values())
        assert len(self.lanes.places) == sum(lane.load for lane in self.lanes._lanes.values())

    def teardown(self) -> None:
        """Everything is answered, and nothing is left."""
        for one in self.reserved:
            self.lanes.release(one)
        for _ in range(1_000):
            if not self.out and not any(lane.queue for lane in self.lanes._lanes.values()):
                break
            for answer in [self.out.pop(name) for name in list(self.out)]:
                answer.set_result(True)
            self.clock.advance(400)
            self._turn()
        assert len(self.lanes.places) == 0
        assert self.lanes.memory.bytes == 0
        assert self.lanes._shares.out == 0
        self.loop.close()


def test_lanes_forget_nothing() -> None:
    """Whatever becomes of requests: no lane has too many out, and at the end nothing is held."""
    run_state_machine_as_test(LaneHistories, settings=settings(max_examples=60, stateful_step_count=30, deadline=None))
