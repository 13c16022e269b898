"""A provider's breaker: opens when the provider is down, so that jobs wait instead of failing, and lets one try through now and then.

It hears how requests to the provider ended. It must not know jobs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from service.backoff import exponential, jittered
from service.clock import Clock, Randomness

FAILURES_TO_OPEN: Final = 5  # in a row
FIRST_WAIT_S: Final = 5.0  # until the first try after opening
LONGEST_TRY_S: Final = 600.0  # for which a try is waited for; longer than any submission
LONGEST_WAIT_S: Final = 300.0  # the wait doubles with every try that fails, up to this


@dataclass(slots=True)
class Breaker:
    """Closed while the provider works; open while it does not; half open while one try is out."""

    clock: Clock
    randomness: Randomness
    failures: int = 0  # in a row
    opened_at: int | None = None  # ms UTC
    last_error: str | None = None
    _opens: int = 0
    _next_try: float = 0.0  # monotonic seconds
    _trying: bool = False
    _try_until: float = 0.0  # monotonic seconds: a try whose end nobody told must not hold up the next for ever

    @property
    def is_open(self) -> bool:
        """Whether the provider counts as down."""
        return self.opened_at is not None

    def allows(self) -> bool:
        """Whether a submission may go now: any while closed, a single try from time to time while open."""
        now = self.clock.monotonic()
        return not self.is_open or (now >= self._next_try and (not self._trying or now >= self._try_until))

    def begin(self) -> None:
        """A submission goes; while open it is the try."""
        self._trying = self.is_open
        self._try_until = self.clock.monotonic() + LONGEST_TRY_S

    def worked(self) -> None:
        """The provider answered sensibly, whatever it said of the task."""
        self.failures = 0
        self.opened_at = None
        self.last_error = None
        self._opens = 0
        self._trying = False

    def failed(self, error: str | None) -> None:
        """No answer, or one that says that the provider itself is broken."""
        self.failures += 1
        self.last_error = error
        was_try, self._trying = self._trying, False
        if self.failures < FAILURES_TO_OPEN or (self.is_open and not was_try):
            return
        if self.opened_at is None:
            self.opened_at = self.clock.now_ms()
        self._opens += 1
        wait_s = exponential(self._opens, first_s=FIRST_WAIT_S, cap_s=LONGEST_WAIT_S)
        self._next_try = self.clock.monotonic() + jittered(wait_s, self.randomness)


@dataclass(slots=True)
class Breakers:
    """The breakers of all providers, made when first asked for."""

    clock: Clock
    randomness: Randomness
    _breakers: dict[str, Breaker] = field(default_factory=dict)

    def of(self, provider: str) -> Breaker:
        """The provider's breaker."""
        breaker = self._breakers.get(provider)
        if breaker is None:
            breaker = self._breakers[provider] = Breaker(self.clock, self.randomness)
        return breaker

    def down(self) -> dict[str, Breaker]:
        """The providers that count as down, by name."""
        return {name: breaker for name, breaker in self._breakers.items() if breaker.is_open}
