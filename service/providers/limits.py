"""How many submissions one provider gets at a time, and in a time: counted in memory, on a clock that is passed in.

It must not know jobs, accounts or who waits in which order: it only says whether the next one may go.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from service.clock import Clock
from service.notation import SubmitRate


@dataclass(frozen=True, slots=True)
class Turn:
    """Whether a submission may go now.

    Args:
        granted: It may, and is counted; `SubmitLimits.leave` must follow when it has been answered.
        wait_s: Else when to ask again; None: when another one has left.
    """

    granted: bool
    wait_s: float | None = None


class SubmitLimits:
    """The limits of one provider in this process."""

    def __init__(self, max_in_flight: int, rate: SubmitRate | None, clock: Clock) -> None:
        self._max_in_flight = max_in_flight
        self._rate = rate
        self._clock = clock
        self._in_flight = 0
        # The times of the last `count` submissions, not a bucket of tokens: a full bucket that refills lets nearly twice
        # the count through in one window, and the provider counts windows.
        self._recent: deque[float] = deque(maxlen=rate.count if rate else 1)

    @property
    def in_flight(self) -> int:
        """Submissions that have entered and not left."""
        return self._in_flight

    def enter(self) -> Turn:
        """Ask for a turn, and take it if there is one."""
        if self._in_flight >= self._max_in_flight:
            return Turn(granted=False)
        wait_s = self._rate_wait_s()
        if wait_s > 0:
            return Turn(granted=False, wait_s=wait_s)
        self._in_flight += 1
        self._recent.append(self._clock.monotonic())
        return Turn(granted=True)

    def leave(self) -> None:
        """Give the turn back; what it used of the rate stays used."""
        self._in_flight = max(0, self._in_flight - 1)

    def _rate_wait_s(self) -> float:
        if self._rate is None or len(self._recent) < self._rate.count:
            return 0.0
        return max(0.0, self._recent[0] + self._rate.per_s - self._clock.monotonic())
