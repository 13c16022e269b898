"""Planted faults of the lanes and of what they stand on; each is a small mistake that somebody could make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from service.deliveries.lanes.held_bytes import Memory
from service.deliveries.lanes.lane_breaker import LaneBreakers
from service.deliveries.lanes.lanes import Lanes
from service.deliveries.lanes.queue import Lane, LanePlace, Sending, Stage
from service.deliveries.lanes.quota import Queue, Shares
from service.deliveries.refill import Refill
from tests.deliveries.lane_world import Parts


class ForgetsRelease(Lanes):
    """A transaction that was rolled back keeps its places."""

    def release(self, sending: Sending) -> None: ...


class ReleasesTwice(Lanes):
    """What an open breaker gives back goes to the store twice."""

    def _empty(self, lane: Lane) -> None:
        queued = [place.sending for place in lane.queue]
        super()._empty(lane)
        self._give_back(queued)


class ForgetsGivenBack(Refill):
    """What lanes give back never reaches the store."""

    def take_back(self, given_back: Sequence[Sending]) -> None: ...


class NeverAsks(Lanes):
    """The store is left to the ticks."""

    def _ask(self, lane_id: str) -> None: ...


class ForgetsLateness(Lanes):
    """What becomes due while the store is asked is overlooked."""

    def refilled(self, lane_id: str, *, more: bool, stamp: int, caught_up_to: int | None = None) -> None:
        super().refilled(lane_id, more=more, stamp=self.stamp(), caught_up_to=caught_up_to)


class LosesCatchUp(Lanes):
    """A claim that asked for nothing ahead of its time ends the catching up."""

    def refilled(self, lane_id: str, *, more: bool, stamp: int, caught_up_to: int | None = None) -> None:
        lane = self._lanes.get(lane_id)
        super().refilled(lane_id, more=more, stamp=stamp, caught_up_to=None if lane is None else lane.catch_up_to)


class NeverCatchesUp(Lanes):
    """A destination that is back gets what is due, and what failed waits on."""

    def wants(self, lane_id: str) -> tuple[int, int | None, str | None, bool]:
        count, _, first, a_try = super().wants(lane_id)
        return count, None, first, a_try


class ForgetsMore(Lanes):
    """That the store has more than was claimed is overlooked."""

    def refilled(self, lane_id: str, *, more: bool, stamp: int, caught_up_to: int | None = None) -> None:
        super().refilled(lane_id, more=False, stamp=stamp, caught_up_to=caught_up_to)


class TurnsAwayForGood(Lanes):
    """A lane that had no room when it came to asking is never asked again."""

    def turned_away(self, lane_id: str) -> None: ...


class DropsNoLane(Lanes):
    """Lanes that hold nothing stay."""

    def _drop_if_idle(self, lane_id: str, lane: Lane) -> None: ...


class OneTooManyOut(Lanes):
    """A lane's limit is off by one."""

    def _lane(self, account_id: str, lane_id: str, max_in_flight: int, rate_per_s: float | None) -> Lane:
        return super()._lane(account_id, lane_id, max_in_flight + 1, rate_per_s)


class OneTooManyHeld(Lanes):
    """A lane's share of memory is off by one."""

    def _room(self, lane_id: str, lane: Lane) -> int:
        return super()._room(lane_id, lane) + 1


class SendsAtOnce(Lanes):
    """A destination that asked to slow down is not heard."""

    def slow_down(self, lane_id: str, seconds: float) -> None: ...


class OversleepsTimer(Lanes):
    """A lane that waits for its moment misses it."""

    async def _pump_later(self, lane_id: str, lane: Lane, wait_s: float) -> None:
        await self._clock.sleep(wait_s)
        lane.timer = None


class TrustsLeases(Lanes):
    """What waited until its lease ran out is sent all the same."""

    def __init__(self, *args: Any, timeout_s: float, **more: Any) -> None:
        super().__init__(*args, timeout_s=-1_000 * timeout_s, **more)


class WakesNobody(Lanes):
    """A lane that waits for a socket is not told that one is free."""

    def _pump_waiting(self) -> None: ...


class JumpsQueue(Lanes):
    """A lane takes a socket before those that wait for one."""

    def _has_socket(self, lane_id: str, lane: Lane, *, turn: bool) -> bool:
        return super()._has_socket(lane_id, lane, turn=True)


class ForgetsAnswer(Lanes):
    """A request keeps its socket until it is recorded."""

    def answered(self, sending: Sending) -> None: ...


class FirstAccountFirst(Queue):
    """One account is always first."""

    def pop(self) -> str:
        account_id, lanes = next(iter(self._accounts.items()))
        lane_id, _ = lanes.popitem(last=False)
        if not lanes:
            del self._accounts[account_id]
        return lane_id


class FirstAccountShares(Shares):
    """See `FirstAccountFirst`."""

    def __init__(self, sockets: int) -> None:
        super().__init__(sockets)
        self.firsts, self.others = FirstAccountFirst(), FirstAccountFirst()


class WrongAccount(Shares):
    """A socket is counted for the account that came first."""

    def begin(self, account_id: str) -> None:
        super().begin(next(iter(self._out_by), account_id))

    def end(self, account_id: str) -> None:
        super().end(account_id if self._out_by[account_id] else next(iter(self._out_by)))


class OneSocketTooMany(Shares):
    """The quota of an account is off by one."""

    def may_begin(self, account_id: str, *, first: bool) -> bool:
        return super().may_begin(account_id, first=first) or self._out_by[account_id] == self._sockets - self.out


class KeepsBytes(Memory):
    """The body of an event is not given back."""

    def let_go(self, sending: Sending) -> None:
        size = len(sending.body)
        super().let_go(sending)
        self.bytes += size if self.body_of(sending.event_id) is None else 0


class ForgetsBytes(Memory):
    """Every delivery pays for the body of its event, and only the last one gets it back."""

    def hold(self, sending: Sending) -> None:
        known = self.body_of(sending.event_id)
        super().hold(sending)
        self.bytes += 0 if known is None else len(known)


class NeverOpens(LaneBreakers):
    """A destination that keeps failing is sent everything."""

    def failed(self, lane_id: str, retry_after_s: float | None) -> None: ...


class NeverCloses(LaneBreakers):
    """A destination that is back is still left alone."""

    def succeeded(self, lane_id: str, max_in_flight: int) -> bool:
        return False


class ClosesAtOnce(LaneBreakers):
    """A destination that is back gets everything at once."""

    def succeeded(self, lane_id: str, max_in_flight: int) -> bool:
        return super().succeeded(lane_id, 0)


class TriesAllTheTime(LaneBreakers):
    """A destination that is left alone is tried without a pause."""

    def limit(self, lane_id: str) -> int | None:
        return 1 if self.is_open(lane_id) else super().limit(lane_id)


class ForgetsWhoAsked(LaneBreakers):
    """The delivery that somebody asked for is not the one that is tried."""

    def wanted(self, lane_id: str) -> str | None:
        return None


def _breaking(kind: Callable[..., LaneBreakers]) -> type[Lanes]:
    class Broken(Lanes):
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            self.breakers = kind(self._clock, args[2])

    return Broken


class CountsTwice(Lanes):
    """A request that begins is counted as waiting, too."""

    def _start(self, lane_id: str, place: LanePlace) -> None:
        super()._start(lane_id, place)
        place.lane.stages[Stage.QUEUED] += 1


class KeepsTimedLane(Lanes):
    """A lane whose queue went while it waited for its moment stays."""

    async def _pump_later(self, lane_id: str, lane: Lane, wait_s: float) -> None:
        await self._clock.sleep(wait_s)
        lane.timer = None
        self._pump(lane_id, lane)


class TriesWithoutMemory(Lanes):
    """A try is asked for although memory is full, and asked for again at once."""

    def _room(self, lane_id: str, lane: Lane) -> int:
        if self.breakers.is_open(lane_id):
            return max(0, (self.breakers.limit(lane_id) or 0) - lane.load)
        return super()._room(lane_id, lane)


class RenewsHalf(Lanes):
    """A destination that was changed is tried, but what waits in memory sleeps on."""

    def renew(self, lane_id: str) -> None:
        self.breakers.suspect(lane_id)
        if (lane := self._lanes.get(lane_id)) is not None:
            lane.slow_until = 0.0
        self._ask(lane_id)


BREAKERS: Final = [NeverOpens, NeverCloses, ClosesAtOnce, TriesAllTheTime, ForgetsWhoAsked]
LANES: Final = [each for each in Lanes.__subclasses__() if each.__module__ == __name__]

#: By their names.
FAULTS: Final[dict[str, Parts]] = {
    **{each.__name__: Parts(lanes=each) for each in LANES},
    **{each.__name__: Parts(lanes=_breaking(each)) for each in BREAKERS},
    **{each.__name__: Parts(shares=each) for each in (FirstAccountShares, WrongAccount, OneSocketTooMany)},
    **{each.__name__: Parts(memory=each) for each in (KeepsBytes, ForgetsBytes)},
    "ForgetsGivenBack": Parts(refill=ForgetsGivenBack),
}
