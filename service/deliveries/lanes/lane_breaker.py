"""The breakers of lanes: a destination that keeps failing is left alone, but for one delivery now and then that tries it.

Only what is due is tried, so that a schedule means what it says, and what has not failed yet goes first, so that an event
that nobody can take does not keep the lane shut. Once a destination is back after a longer absence,
its whole backlog is due at once, and comes in bursts that begin with one request and double with every success.
Breakers live in memory: after a restart a dead destination is found out anew by a handful of requests.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from service.backoff import exponential, honouring, jittered
from service.clock import Clock, Randomness

BREAK_AFTER: Final = 5  # failures in a row
FIRST_PROBE_S: Final = 5.0  # from opening to the first try
LAST_PROBE_S: Final = 300.0  # between tries at most
ABSENCE_S: Final = 60.0  # open for so long: what waits is due when the destination is back, whatever its schedule
MAX_REMEMBERED: Final = 50_000  # lanes that failed lately
PASSED_OVER: Final = 100  # open breakers that are kept while one that is closed makes room


@dataclass(slots=True)
class _Breaker:
    failures: int = 0  # in a row
    wanted: str | None = None  # the delivery that somebody asked for; the next try takes it
    opened: float | None = None  # monotonic seconds; None while closed
    tries: int = 0  # while open
    probe_at: float = 0.0  # monotonic seconds
    limit: int | None = None  # requests at once while it comes back


@dataclass(frozen=True, slots=True)
class BreakerState:
    """What an operator sees of one: `closed`, `open`, or `probing` when a try is due or out."""

    word: str
    probe_in_s: float | None = None


class LaneBreakers:
    """The breakers of all lanes that failed lately; a lane without one is well."""

    def __init__(self, clock: Clock, randomness: Randomness) -> None:
        self._clock = clock
        self._randomness = randomness
        self._breakers: OrderedDict[str, _Breaker] = OrderedDict()

    @property
    def is_empty(self) -> bool:
        """Whether no lane failed lately."""
        return not self._breakers

    def limit(self, lane_id: str) -> int | None:
        """How many requests may be out at once: 0 while open, 1 when a try is due; None for no limit of ours."""
        breaker = self._breakers.get(lane_id)
        if breaker is None:
            return None
        if breaker.opened is None:
            return breaker.limit
        return 1 if self._clock.monotonic() >= breaker.probe_at else 0

    def is_open(self, lane_id: str) -> bool:
        """Whether the lane takes nothing but a try now and then."""
        breaker = self._breakers.get(lane_id)
        return breaker is not None and breaker.opened is not None

    def state(self, lane_id: str) -> BreakerState:
        """For operators."""
        breaker = self._breakers.get(lane_id)
        if breaker is None or breaker.opened is None:
            return BreakerState("closed")
        wait_s = breaker.probe_at - self._clock.monotonic()
        return BreakerState("open", wait_s) if wait_s > 0 else BreakerState("probing", 0.0)

    def open_lanes(self) -> list[str]:
        """All lanes whose breaker is open; for operators, since it walks over all that failed lately."""
        return [lane_id for lane_id, breaker in self._breakers.items() if breaker.opened is not None]

    def rests_ms(self, lane_id: str) -> int:
        """For how long nobody needs to look at an open lane that takes nothing now: its try may be out, and tells."""
        return round(1000 * max(self.state(lane_id).probe_in_s or 0.0, FIRST_PROBE_S))

    def wanted(self, lane_id: str) -> str | None:
        """The delivery that somebody asked for, with which an open lane is tried next."""
        breaker = self._breakers.get(lane_id)
        return None if breaker is None else breaker.wanted

    def failed(self, lane_id: str, retry_after_s: float | None) -> None:
        """A request failed; what the destination asked for is honoured."""
        now = self._clock.monotonic()
        breaker = self._of(lane_id)
        breaker.failures += 1
        if breaker.limit is not None:
            breaker.limit = 1
        if breaker.opened is None:
            if breaker.failures < BREAK_AFTER:
                return
            breaker.opened, breaker.limit = now, None
        elif now < breaker.probe_at:
            return  # it was out since before the breaker opened
        breaker.wanted = None
        breaker.tries += 1
        wait_s = exponential(breaker.tries, first_s=FIRST_PROBE_S, cap_s=LAST_PROBE_S)
        breaker.probe_at = now + honouring(jittered(wait_s, self._randomness), retry_after_s)

    def succeeded(self, lane_id: str, max_in_flight: int) -> bool:
        """A request succeeded; True when the destination is back after so long that its backlog is due at once."""
        breaker = self._breakers.get(lane_id)
        if breaker is None:
            return False
        opened = breaker.opened
        if opened is not None:
            breaker.opened, breaker.limit, breaker.tries = None, 1, 0
        breaker.failures, breaker.wanted = 0, None
        if breaker.limit is not None:
            breaker.limit *= 2
        if breaker.limit is None or breaker.limit >= max_in_flight:
            del self._breakers[lane_id]
        return opened is not None and self._clock.monotonic() - opened >= ABSENCE_S

    def try_now(self, lane_id: str, delivery_id: str | None = None) -> None:
        """Somebody says that the destination is well: the next try is due, with this delivery if there is one."""
        breaker = self._breakers.get(lane_id)
        if breaker is not None and breaker.opened is not None:
            breaker.probe_at = self._clock.monotonic()
            breaker.wanted = delivery_id or breaker.wanted

    def suspect(self, lane_id: str) -> None:
        """What failed before may be well now: one is tried at once, and if it arrives, all that waits is due.

        For a destination that was mended, and for one of which an earlier process left failures behind.
        """
        breaker = self._of(lane_id)
        breaker.failures, breaker.wanted, breaker.limit, breaker.tries = BREAK_AFTER, None, None, 0
        breaker.probe_at = self._clock.monotonic()
        breaker.opened = breaker.probe_at - ABSENCE_S

    def forget(self, lane_id: str) -> None:
        """Nothing goes there any more."""
        self._breakers.pop(lane_id, None)

    def _of(self, lane_id: str) -> _Breaker:
        breaker = self._breakers.get(lane_id)
        if breaker is None:
            breaker = self._breakers[lane_id] = _Breaker()
            if len(self._breakers) > MAX_REMEMBERED:
                self._make_room()
        return breaker

    def _make_room(self) -> None:
        """Forget a lane that failed a little, before one that is left alone; paths that fail once come by the thousand."""
        for _ in range(PASSED_OVER):
            lane_id, breaker = next(iter(self._breakers.items()))
            if breaker.opened is None:
                break
            self._breakers.move_to_end(lane_id)
        self._breakers.popitem(last=False)
