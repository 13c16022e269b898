"""Arbitrary histories of the lanes between a model of the store and destinations that answer in any way; planted faults are seen."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from service.deliveries.lanes.held_bytes import PER_DELIVERY
from tests.deliveries.lane_faults import FAULTS
from tests.deliveries.lane_rules import BY_HAND
from tests.deliveries.lane_world import BROKEN, DELIVERED, ENDED, FAILED, LANES, SLOW, Parts, World

LANE = st.sampled_from(sorted(LANES))
ONE_OFF = st.sampled_from([each for each in LANES if ":" in each])
ACCOUNTS = [[lane for lane in LANES if lane.startswith(name)] for name in ("a", "b")]
SEVERAL = st.sampled_from(ACCOUNTS).flatmap(
    lambda own: st.lists(st.sampled_from(own), min_size=1, max_size=3, unique=True)
)


class LaneHistories(RuleBasedStateMachine):
    """Events, answers, outages, time, and a store that is slow or takes nothing, in any order."""

    parts = Parts()

    @initialize(
        sockets=st.integers(1, 4),
        memory=st.sampled_from([3, 6, 12, 1_000]),
        most=st.lists(st.sampled_from([1, 2, 3, 3]), min_size=len(LANES), max_size=len(LANES)),
    )
    def begin(self, sockets: int, memory: int, most: list[int]) -> None:
        """With small limits."""
        self.world = World(self.parts, sockets=sockets, memory=memory * PER_DELIVERY, most=most)

    @precondition(lambda self: not self.world.open)
    @rule(
        lanes=SEVERAL,
        copies=st.sampled_from([1, 1, 2, 6]),
        size=st.sampled_from([2, 2, 4_000]),
        urgent=st.sampled_from([False, False, False, True]),
        ends=st.sampled_from(["commits", "commits", "commits", "breaks", "waits"]),
    )
    def publish(self, lanes: list[str], copies: int, size: int, urgent: bool, ends: str) -> None:
        """Events for some lanes of an account; the transaction may still be open."""
        self.world.run(lambda: self.world.publish(lanes, copies, size, urgent=urgent))
        if ends != "waits":
            self.end(commits=ends == "commits")

    @precondition(lambda self: self.world.open)
    @rule(commits=st.booleans())
    def end(self, commits: bool) -> None:
        """Of the open transaction."""
        self.world.run(lambda: self.world.end(commits=commits))

    @precondition(lambda self: self.world.asked)
    @rule(data=st.data(), outcome=st.sampled_from([DELIVERED, DELIVERED, FAILED, SLOW, BROKEN, ENDED]))
    def answer(self, data: st.DataObject, outcome: str) -> None:
        """A request ends, one way or another."""
        key = data.draw(st.sampled_from(sorted(self.world.asked)))
        self.world.run(lambda: self.world.answer(key, outcome))

    @precondition(lambda self: self.world.asked)
    @rule(outcome=st.sampled_from([DELIVERED, FAILED]))
    def answer_all(self, outcome: str) -> None:
        """Everything that is out."""
        self.world.run(lambda: self.world.answer_all(outcome))

    @rule(lane=LANE, answers=st.sampled_from([BY_HAND, DELIVERED, FAILED, FAILED, SLOW]))
    def weather(self, lane: str, answers: str) -> None:
        """How a destination answers from now on."""
        self.world.lane[lane].answers = answers

    @precondition(lambda self: not self.world.open)
    @rule(lane=LANE, seconds=st.sampled_from([0, 70]), answers=st.sampled_from([BY_HAND, DELIVERED]))
    def outage(self, lane: str, seconds: int, answers: str) -> None:
        """A destination fails until it is left alone."""
        self.weather(lane, FAILED)
        self.publish([lane], 8, 2, urgent=False, ends="commits")
        self.wait(seconds)
        self.weather(lane, answers)

    @rule(seconds=st.sampled_from([1, 10, 20, 70, 150]))
    def wait(self, seconds: int) -> None:
        """Time goes on."""
        self.world.pass_time(seconds)

    @rule()
    def tick(self) -> None:
        """Whatever is due is looked for."""
        self.world.run(self.world.tick)

    @rule(takes=st.booleans(), tells=st.booleans())
    def store(self, takes: bool, tells: bool) -> None:
        """It may be slow to work, and slow to answer."""
        self.world.store.takes, self.world.store.tells = takes, tells
        self.world.run(lambda: None)

    @precondition(lambda self: self.world.store.asked and not self.world.store.done and not self.world.open)
    @rule()
    def store_steps(self) -> None:
        """It does one thing only."""
        self.world.run(self.world.store.step)

    @precondition(lambda self: self.world.store.asked and not self.world.open)
    @rule()
    def refuse(self) -> None:
        """It takes no writes for a moment."""
        self.world.run(self.world.refuse)

    @precondition(lambda self: not self.world.open)
    @rule(lane=ONE_OFF, copies=st.sampled_from([1, 6]))
    def publish_during_claim(self, lane: str, copies: int) -> None:
        """What comes for a lane that is behind is left in the store, after a claim has looked there."""
        self.store(True, False)
        self.origin_is_back(lane)
        self.publish([lane], copies, 2, urgent=False, ends="commits")
        self.store(True, True)

    @precondition(lambda self: self.world.trying() and not self.world.open)
    @rule(data=st.data())
    def back_during_tick(self, data: st.DataObject) -> None:
        """A destination that was left alone answers while the store is busy, and a tick has begun."""
        key = data.draw(st.sampled_from(self.world.trying()))
        self.store(False, True)
        self.tick()
        self.world.run(lambda: self.world.answer(key, DELIVERED))
        if self.world.store.asked:
            self.store_steps()
        self.store(True, True)

    @rule(lane=LANE)
    def renew(self, lane: str) -> None:
        """The destination was changed."""
        self.world.run(lambda: self.world.renew(self.world.lane[lane]))

    @rule(lane=ONE_OFF)
    def origin_is_back(self, lane: str) -> None:
        """A callback_url's lane learns it from another path."""
        self.world.run(lambda: self.world.origin_is_back(self.world.lane[lane]))

    @precondition(lambda self: self.world.waiting())
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        """Somebody wants what waits to be sent now."""
        one = data.draw(st.sampled_from(self.world.waiting()))
        self.world.run(lambda: self.world.retry(one))

    @invariant()
    def everything_is_somewhere(self) -> None:
        """See `World.check`."""
        self.world.check()

    def teardown(self) -> None:
        """At the end all has been sent, and nothing is held."""
        if not hasattr(self, "world"):
            return
        try:
            if not self.world.breaches:
                self.world.finish()
        finally:
            self.world.close()


def check(parts: Parts, *, examples: int = 150) -> None:
    """Arbitrary histories of these."""
    kind = type("LaneHistories", (LaneHistories,), {"parts": parts})
    run_state_machine_as_test(
        kind,
        settings=settings(
            max_examples=examples,
            report_multiple_bugs=False,
            stateful_step_count=50,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_lanes_forget_nothing() -> None:
    """Whatever becomes of requests, destinations and the store: nothing is doubled, forgotten, or kept beyond a limit."""
    check(Parts())


#: Seen only after hundreds of histories.
LATE = {"TurnsAwayForGood", "RenewsHalf", "LosesCatchUp", "TrustsLeases"}


@pytest.mark.parametrize(
    "planted", [pytest.param(each, marks=pytest.mark.long if each in LATE else ()) for each in sorted(FAULTS)]
)
def test_planted_fault_is_seen(planted: str) -> None:
    """Else the check would mean nothing."""
    with pytest.raises((AssertionError, KeyError, RuntimeError)):
        check(FAULTS[planted], examples=2_000)
