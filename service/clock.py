"""Time and randomness as things that are passed in; nothing else in Remora asks the machine for either.

Times are integer milliseconds since 1970 in UTC. Intervals are measured on the monotonic clock. There are two times of
day: due work goes by one that never steps, and what other machines judge goes by the machine's own clock
(docs/decisions/0008-time-for-due-work.md).
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Final, Protocol, overload

SLEW: Final = 20  # our time differs from real seconds by one part in so many, at most, while it follows the wall clock
_TOLERANCE_NS: Final = 1_000_000  # of the difference: less is the noise of two readings
_READINGS: Final = 3  # of both clocks, of which the closest pair counts
_MS: Final = 1_000_000  # nanoseconds
_PAGE_BYTES = 4_096


class Clock(Protocol):
    """What the service knows of time."""

    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC, for due times and everything that is stored. It never steps and never goes back."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970, UTC, as the machine has them now, for what other machines judge. It may step."""

    def monotonic(self) -> float:
        """Seconds that never step, from an arbitrary start."""

    def slew(self) -> float:
        """Let `now_ms` follow `wall_ms` from here on; to be called every second.

        Returns:
            By how many seconds the wall clock was stepped since the last call; about 0 where nobody touched it.
        """

    def seen(self, ms: int) -> None:
        """The store knows this moment. While `now_ms` lies before it, a wall clock stepped ahead is believed up to there."""

    def follow(self, ms: int) -> None:
        """From here on the time of day is another machine's, which shows this moment. The first time `now_ms` begins there at once."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class SlewedClock:
    """Both times of day, from two readings of a machine, in nanoseconds.

    `now_ms` starts at the wall clock and counts the machine's uptime. Where the two differ later, the wall clock was
    stepped, and `now_ms` goes towards it, faster or slower than real seconds by one part in `SLEW`.

    Args:
        uptime_ns: Never steps, and goes on while the machine is suspended.
        wall_ns: Since 1970.
    """

    def __init__(self, uptime_ns: Callable[[], int], wall_ns: Callable[[], int]) -> None:
        self._uptime_ns, self._wall_ns = uptime_ns, wall_ns
        self._followed_ns: int | None = None  # another machine's time of day less the uptime, where that one counts
        self._begin()

    def _begin(self) -> None:
        self._since_ns, began_ns = self._read()  # uptime, when it was last looked at
        self._ours_ns = began_ns - self._since_ns  # our time less the uptime, at that moment …
        self._left_ns = 0  # … and what is to be worked off from there on
        self._walls_ns = self._ours_ns  # the wall clock less the uptime, when it was last looked at
        self._seen_ns = 0

    def now_ms(self) -> int:
        """See `Clock`."""
        uptime_ns = self._uptime_ns()
        if self._left_ns:
            return (uptime_ns + self._ours_ns + self._shift_ns(uptime_ns)) // _MS
        return (uptime_ns + self._ours_ns) // _MS

    def wall_ms(self) -> int:
        """See `Clock`."""
        return self._wall() // _MS

    def slew(self) -> float:
        """See `Clock`."""
        uptime_ns, wall_ns = self._read()
        now_ns = uptime_ns + self._ours_ns + self._shift_ns(uptime_ns)
        now_ns = max(now_ns, min(wall_ns, self._seen_ns))
        left_ns = wall_ns - now_ns
        self._since_ns, self._ours_ns = uptime_ns, now_ns - uptime_ns
        self._left_ns = left_ns if abs(left_ns) > _TOLERANCE_NS else 0
        before_ns, self._walls_ns = self._walls_ns, wall_ns - uptime_ns
        return (self._walls_ns - before_ns) / 1e9

    def seen(self, ms: int) -> None:
        """See `Clock`."""
        self._seen_ns = ms * _MS

    def follow(self, ms: int) -> None:
        """See `Clock`."""
        begins = self._followed_ns is None
        self._followed_ns = ms * _MS - self._uptime_ns()
        if begins:
            self._begin()

    def _wall(self) -> int:
        return self._wall_ns() if self._followed_ns is None else self._uptime_ns() + self._followed_ns

    def _shift_ns(self, uptime_ns: int) -> int:
        most_ns = (uptime_ns - self._since_ns) // SLEW
        return max(-most_ns, min(most_ns, self._left_ns))

    def _read(self) -> tuple[int, int]:
        """Both clocks at one moment: a process that is stopped between two readings would see a step."""
        readings = []
        for _ in range(_READINGS):
            before_ns = self._uptime_ns()
            wall_ns = self._wall()
            readings.append((self._uptime_ns() - before_ns, before_ns, wall_ns))
        return min(readings)[1:]


class SystemClock(SlewedClock):
    """The machine's clocks."""

    def __init__(self) -> None:
        super().__init__(partial(time.clock_gettime_ns, _uptime_clock()), time.time_ns)

    def monotonic(self) -> float:
        """See `Clock`."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        await asyncio.sleep(seconds)


def _uptime_clock() -> int:
    """The clock that goes on while the machine sleeps, where there is one: a night in a suspended machine has passed."""
    boottime: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    if boottime is None:
        return time.CLOCK_MONOTONIC
    try:
        time.clock_gettime_ns(boottime)
    except OSError:  # an emulated kernel without it
        return time.CLOCK_MONOTONIC
    return boottime


class VirtualClock(SlewedClock):
    """A clock that moves only when told to, for tests and simulations."""

    def __init__(self, now_ms: int = 1_795_000_000_000) -> None:
        self._uptime_ms = now_ms
        self._stepped_ms = 0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []
        super().__init__(lambda: self._uptime_ms * _MS, lambda: (self._uptime_ms + self._stepped_ms) * _MS)

    def monotonic(self) -> float:
        """See `Clock`."""
        return self._uptime_ms / 1000

    async def sleep(self, seconds: float) -> None:
        """Wait until `advance` has moved the clock far enough."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.monotonic() + seconds, future))
        await future

    def advance(self, seconds: float) -> None:
        """Let time pass, and wake what slept until then."""
        self._uptime_ms += round(seconds * 1000)
        now = self.monotonic()
        due = [entry for entry in self._sleepers if entry[0] <= now]
        self._sleepers = [entry for entry in self._sleepers if entry[0] > now and not entry[1].done()]
        for _, future in due:
            if not future.done():
                future.set_result(None)

    def step(self, seconds: float) -> None:
        """Set the machine's wall clock to another time; none passes."""
        self._stepped_ms += round(seconds * 1000)


class Randomness(Protocol):
    """Where ids, tokens and jitter come from."""

    def bytes(self, count: int) -> bytes:
        """Unpredictable bytes, for tokens, secrets and ids."""

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high], for jitter."""


class SystemRandomness:
    """The machine's randomness, fetched by the page: every id needs some, and every fetch is a call of the kernel."""

    def __init__(self) -> None:
        self._page = b""
        self._used = 0

    def bytes(self, count: int) -> bytes:
        """See `Randomness`."""
        if self._used + count > len(self._page):
            self._page = secrets.token_bytes(max(_PAGE_BYTES, count))
            self._used = 0
        taken = self._page[self._used : self._used + count]
        self._used += count
        return taken

    def uniform(self, low: float, high: float) -> float:
        """See `Randomness`."""
        return random.uniform(low, high)  # noqa: S311 - jitter is no secret


class SeededRandomness:
    """Repeatable randomness, for tests and simulations only."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose

    def bytes(self, count: int) -> bytes:
        """See `Randomness`."""
        return self._random.randbytes(count)

    def uniform(self, low: float, high: float) -> float:
        """See `Randomness`."""
        return self._random.uniform(low, high)


@overload
def iso(ms: int) -> str: ...
@overload
def iso(ms: int | None) -> str | None: ...
def iso(ms: int | None) -> str | None:
    """RFC 3339 in UTC with milliseconds and `Z`, the only form in which times leave Remora."""
    if ms is None:
        return None
    seconds, millis = divmod(ms, 1000)
    return f"{_iso_second(seconds)}.{millis:03d}Z"


@lru_cache(maxsize=4_096)
def _iso_second(seconds: int) -> str:
    # Kept, since an event names the same few seconds again and again, and formatting one costs more than all the rest.
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def parse_iso(text: str) -> int:
    """Milliseconds of an RFC 3339 time with a zone.

    Raises:
        ValueError: The text is no such time, or has no zone.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        msg = "a time needs a zone: write it as 2026-11-21T10:00:00Z"
        raise ValueError(msg)
    return round(moment.timestamp() * 1000)
