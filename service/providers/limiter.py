"""How many requests of one kind a provider gets at once and in a time, and the pauses that it asked for.

Counted in memory, on a clock that is passed in. It must not know jobs, accounts or who waits in which order: it says how
many may begin now. A request holds a `Slot` and gives it back; nothing waits while holding one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from service.backoff import RETRY_AFTER_CAP_S, exponential
from service.clock import Clock
from service.notation import SubmitRate

PAUSE_FIRST_S: Final = 2.0  # after a refusal that names no time; doubled by each further one …
PAUSE_CAP_S: Final = 300.0  # … up to this
LEAST_WAIT_S: Final = 0.001  # the clock's own step: a shorter wait would be none
PATIENCE: Final = 10.0  # a provider that goes on refusing is left alone for up to so many times what it asked for


@dataclass(slots=True, eq=False)
class Slot:
    """The right to make one request."""

    _limiter: Limiter
    _sent: bool = False
    _open: bool = True

    def sent(self) -> None:
        """The request leaves now: from here on it counts for the rate, whatever becomes of it."""
        if self._open and not self._sent:
            self._sent = True
            self._limiter.note_sent()

    def leave(self) -> None:
        """The request was answered, or will not be made; a second call does nothing."""
        if self._open:
            self._open = False
            self._limiter.note_left(sent=self._sent)


class Limiter:
    """The limits of one provider in this process, for one kind of request.

    Args:
        at_once: Requests under way at once, at most.
        rate: Requests in a time, at most; None: no limit but `at_once`.
        longest_pause_s: How long a provider may put off everybody with one `Retry-After`.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        at_once: int,
        rate: SubmitRate | None = None,
        longest_pause_s: float = RETRY_AFTER_CAP_S,
    ) -> None:
        self._clock = clock
        self.at_once = at_once
        self._rate = rate
        self._longest_pause_s = longest_pause_s
        self._in_use = 0
        self._unsent = 0  # of those in use, requests that have not left yet
        # The times of the last `count` requests, not a bucket of tokens: a full bucket that refills lets nearly twice the
        # count through in one window, and the provider counts windows.
        self._recent: deque[float] = deque(maxlen=rate.count if rate else 1)
        self._refusals = 0  # in a row
        self._paused_until = 0.0  # monotonic seconds
        self._trial: int | None = None  # requests at once while the provider comes back from a pause

    @property
    def in_use(self) -> int:
        """Slots that were taken and not given back."""
        return self._in_use

    def room(self) -> int:
        """How many requests may begin now."""
        if self.pause_s() > 0:
            return 0
        room = (self.at_once if self._trial is None else min(self._trial, self.at_once)) - self._in_use
        if self._rate is not None:
            room = min(room, self._rate.count - self._unsent - self._sent_lately())
        return max(0, room)

    def enter(self) -> Slot:
        """Take a slot; the caller has seen that there is room."""
        self._in_use += 1
        self._unsent += 1
        return Slot(self)

    def wait_s(self) -> float | None:
        """Seconds after which there may be room although no slot was given back; None: only a slot can make room."""
        if (pause_s := self.pause_s()) > 0:
            return pause_s
        if self._rate is None or self._unsent + self._sent_lately() < self._rate.count or not self._recent:
            return None
        return max(LEAST_WAIT_S, self._recent[0] + self._rate.per_s - self._clock.monotonic())

    def pause_s(self) -> float:
        """For how many seconds nothing may begin because the provider refused for the moment; 0: no pause."""
        return max(0.0, self._paused_until - self._clock.monotonic())

    def refused(self, retry_after_s: float | None) -> None:
        """The provider wants no more for now (429): everybody waits, then one request tries whether it is over.

        Args:
            retry_after_s: What it asked for; None: it named no time, and the pause grows with every refusal in a row.
        """
        wait_s = min(retry_after_s or 0.0, self._longest_pause_s)
        if self.pause_s() == 0:  # else the request left before the pause began
            self._refusals += 1
            own_s = exponential(self._refusals, first_s=PAUSE_FIRST_S, cap_s=PAUSE_CAP_S)
            wait_s = max(wait_s, min(own_s, wait_s * PATIENCE)) if wait_s else own_s
        self._paused_until = max(self._paused_until, self._clock.monotonic() + wait_s)
        self._trial = 1

    def accepted(self) -> None:
        """The provider took a request; after a pause each one lets twice as many through."""
        if self.pause_s() > 0:
            return  # the request left before the pause began
        self._refusals = 0
        if self._trial is not None:
            self._trial = None if self._trial * 2 >= self.at_once else self._trial * 2

    def note_sent(self) -> None:
        """For `Slot`."""
        self._unsent -= 1
        self._recent.append(self._clock.monotonic())

    def note_left(self, *, sent: bool) -> None:
        """For `Slot`."""
        self._in_use -= 1
        self._unsent -= 0 if sent else 1

    def _sent_lately(self) -> int:
        if self._rate is None:
            return 0
        since = self._clock.monotonic() - self._rate.per_s
        while self._recent and self._recent[0] <= since:
            self._recent.popleft()
        return len(self._recent)
