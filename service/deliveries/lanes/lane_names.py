"""Which callback_urls have a lane of their own: each path does, up to a number of paths at one origin of one account.

What goes to further paths shares the lane of their origin. A path that fails keeps its lane while something waits for it
in the store, and one that is well keeps its lane while it is remembered, so that no number of dead paths takes it away.
Where many paths fail (often each job has one of its own), what failed waits for its next attempt in a second lane that they
share, so that lanes are left for what has not failed. Which lanes wait is the store's word, read once an origin comes up and again when it seems full; what is kept here is
bounded and may be lost. Must not know how anything is sent.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Final
from urllib.parse import urlsplit

from service.clock import Clock
from service.db.transaction import Tx
from service.deliveries import store
from service.deliveries.lanes.lane_breaker import ABSENCE_S, BREAK_AFTER, LAST_PROBE_S

PATHS: Final = 64  # of an origin that have lanes of their own: new ones and failing ones
CROWDED: Final = 32  # from so many of them on, what failed goes to the lane that they share
WELL: Final = 32  # paths that have lanes of their own beside them: the last delivery arrived, and one before it
WELL_ONCE: Final = 16  # the same where a single one arrived, so that paths that are used once displace no others
#: Requests at once in a lane; as a path of the first kind has fewer, an account has 628 out at one origin at most.
IN_FLIGHT: Final = 10
NEW_IN_FLIGHT: Final = 2  # requests at once to a path that has not answered yet
REMEMBERED: Final = 10_000  # origins
RECOUNT_S: Final = 1.0  # between two looks at the store for an origin that seems crowded
DIGEST_BYTES: Final = 12  # of a path, which may be long and may hold a token
READ: Final = 4_096  # URLs, and names of lanes, that are kept read

_AGAIN: Final = "/again"  # no digest: behind the origin's lane it names the one of what failed
_DEFAULT_PORTS: Final = {"https": ":443", "http": ":80"}


def origin_lane(account_id: str, url: str) -> str:
    """The lane that all callback_urls of an account at one origin share that have none of their own."""
    return _lanes_of(account_id, url)[0]


def path_lane(account_id: str, url: str) -> str:
    """The lane of a callback_url alone, whatever its query."""
    return _lanes_of(account_id, url)[1]


@lru_cache(maxsize=READ)
def origin_of(lane_id: str) -> str:
    """The lane of the origin that a path's lane belongs to; any other lane itself."""
    return lane_id.rpartition("/")[0] if lane_id.count("/") == 3 else lane_id


@lru_cache(maxsize=READ)
def shared_lanes(lane_id: str) -> tuple[str, str]:
    """The lanes that the paths of an origin share: that of new deliveries, and that of those that failed."""
    origin = origin_of(lane_id)
    return origin, origin + _AGAIN


@lru_cache(maxsize=READ)
def is_shared(lane_id: str) -> bool:
    """Whether it is one of those."""
    return is_one_off(lane_id) and lane_id in shared_lanes(lane_id)


def is_one_off(lane_id: str) -> bool:
    """Whether it is a lane of callback_urls, and no subscription's."""
    return ":" in lane_id


@lru_cache(maxsize=READ)
def _lanes_of(account_id: str, url: str) -> tuple[str, str]:
    """The lanes of its origin and of its path."""
    parts = urlsplit(url)
    host = parts.netloc.lower().removesuffix(_DEFAULT_PORTS.get(parts.scheme, ""))
    digest = blake2b((parts.path or "/").encode(), digest_size=DIGEST_BYTES).hexdigest()
    origin = f"{account_id}:{parts.scheme}://{host}"
    return origin, f"{origin}/{digest}"


@dataclass(slots=True)
class _Origin:
    own: set[str] = field(default_factory=set)  # lanes of paths that are new or fail
    well: OrderedDict[str, None] = field(default_factory=OrderedDict)  # see `WELL`; the last to arrive comes last
    well_once: OrderedDict[str, None] = field(default_factory=OrderedDict)
    counted_at: float | None = None  # monotonic seconds; None: what waits in the store is not known yet
    missed: int = 0  # requests without a sign of life, in a row
    missed_since: float = 0.0  # monotonic seconds
    owed: bool = False  # it was away and is back, and its paths do not know yet
    told_at: float | None = None  # monotonic seconds: when they were told the last time

    def is_well(self, lane_id: str) -> bool:
        """Whether the last delivery of this path arrived."""
        return lane_id in self.well or lane_id in self.well_once

    def note(self, lane_id: str, *, delivered: bool) -> None:
        """What became of the last delivery of this path."""
        if delivered and lane_id in self.well:
            self.well.move_to_end(lane_id)
            return
        known = self.is_well(lane_id)
        if not delivered and known:
            self.own.add(lane_id)
        if not delivered or known:
            self.well.pop(lane_id, None)
            self.well_once.pop(lane_id, None)
        if delivered:
            self.own.discard(lane_id)
            group, most = (self.well, WELL) if known else (self.well_once, WELL_ONCE)
            group[lane_id] = None
            if len(group) > most:
                group.popitem(last=False)


class OriginLanes:
    """The origins that callback_urls lead to.

    Args:
        clock: For how long an origin is away.
        is_held: Whether something of a lane is in memory.
    """

    def __init__(self, clock: Clock, is_held: Callable[[str], bool]) -> None:
        self._clock = clock
        self._is_held = is_held
        self._origins: OrderedDict[str, _Origin] = OrderedDict()  # by their lanes, those not used for long first
        self._last = ("", _Origin())  # the one that was asked for last

    async def load(self, tx: Tx, urls: Iterable[tuple[str, str]]) -> None:
        """Read what has to be known before `lane` is asked; `urls` are accounts and their callback_urls."""
        asked = {origin_lane(account_id, url) for account_id, url in urls}
        unknown = [each for each in asked if self._is_to_be_counted(each)]
        if not unknown:
            return
        waiting = await store.lanes_below(tx, unknown, PATHS + WELL)
        for lane_id in unknown:
            origin = self._of(lane_id)
            known = {lane_id + _AGAIN, *origin.well, *origin.well_once}
            origin.own = {each for each in origin.own if self._is_held(each)} | waiting[lane_id] - known
            origin.counted_at = self._clock.monotonic()

    def lane(self, account_id: str, url: str) -> str:
        """The lane for a delivery to this URL: its own, or its origin's."""
        shared, own = _lanes_of(account_id, url)
        origin = self._of(shared)
        if not origin.is_well(own) and own not in origin.own:
            if len(origin.own) >= PATHS:
                return shared
            origin.own.add(own)
        return own

    def limit(self, lane_id: str) -> int:
        """How many requests at once a lane of callback_urls may have out."""
        is_known = is_shared(lane_id) or self._of(origin_of(lane_id)).is_well(lane_id)
        return IN_FLIGHT if is_known else NEW_IN_FLIGHT

    def tried(self, account_id: str, url: str, *, delivered: bool) -> None:
        """What became of a request to this URL, in whatever lane it was."""
        shared, own = _lanes_of(account_id, url)
        self._of(shared).note(own, delivered=delivered)

    def lane_after_failure(self, account_id: str, url: str, lane_id: str) -> str:
        """The lane in which a delivery to this URL waits for its next attempt; `lane_id` is the one that it was in."""
        new, again = shared_lanes(lane_id)
        origin = self._of(new)
        if lane_id != new and len(origin.own) < CROWDED:
            return lane_id
        origin.own.discard(path_lane(account_id, url))
        return again

    def goes_well(self, lane_id: str) -> bool:
        """Whether the path of this lane was well before, and its origin too, so that one more delivery is no news."""
        if not is_one_off(lane_id):
            return False
        origin = self._of(origin_of(lane_id))
        if origin.missed or origin.owed or lane_id not in origin.well:
            return False
        origin.well.move_to_end(lane_id)
        return True

    def unreachable(self, lane_id: str) -> None:
        """A request to the origin of this lane found nobody."""
        origin = self._of(origin_of(lane_id))
        origin.missed += 1
        if origin.missed == 1:
            origin.missed_since = self._clock.monotonic()

    def reached(self, lane_id: str) -> Sequence[str]:
        """The origin of this lane gave a sign of life; the lanes of its paths for which the outage is over now.

        An origin that comes and goes has them tried ahead of time no more often than an open breaker tries.
        """
        origin = self._of(origin_of(lane_id))
        if not origin.missed and not origin.owed:
            return ()
        now = self._clock.monotonic()
        origin.owed |= origin.missed >= BREAK_AFTER and now - origin.missed_since >= ABSENCE_S
        origin.missed = 0
        if not origin.owed or (origin.told_at is not None and now < origin.told_at + LAST_PROBE_S):
            return ()
        origin.owed, origin.told_at = False, now
        return tuple(origin.own)

    def count(self) -> int:
        """Origins that are remembered."""
        return len(self._origins)

    def _is_to_be_counted(self, lane_id: str) -> bool:
        origin = self._origins.get(lane_id)
        if origin is None or origin.counted_at is None:
            return True
        return len(origin.own) >= CROWDED and self._clock.monotonic() >= origin.counted_at + RECOUNT_S

    def _of(self, lane_id: str) -> _Origin:
        if lane_id == self._last[0]:  # each delivery asks several times, and many go where the one before went
            return self._last[1]
        origin = self._origins.get(lane_id)
        if origin is None:
            origin = self._origins[lane_id] = _Origin()
            if len(self._origins) > REMEMBERED:
                self._origins.popitem(last=False)
        else:
            self._origins.move_to_end(lane_id)
        self._last = (lane_id, origin)
        return origin
