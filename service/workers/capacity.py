"""What each provider takes now, of submissions and of polls: its limits, its breaker, and the tasks it still works on.

It must not know how work is claimed or done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from service.clock import Clock
from service.jobs.row import JobRow
from service.jobs.unfinished import UnfinishedTasks
from service.providers.breaker import Breakers
from service.providers.limiter import Limiter, Slot
from service.providers.registry import Provider, Registry
from service.workers.job_claim_store import NO_SHARE, Share

GONE_AT_ONCE: Final = 10  # pieces of work for a provider whose card is gone; they only say so

KEPT_BACK: Final = 10  # one in so many places is kept for accounts with few tasks
TENANT_S: Final = 86_400.0  # seconds for which an account counts as a user of a provider


class _Tenants:
    """Whether more than one account used a provider lately: the two that came last are enough to know."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: dict[str, tuple[str, float]] = {}
        self._other: dict[str, float] = {}  # when the last one came before it

    def note(self, provider: str, account_id: str) -> None:
        """A job of the account came."""
        now = self._clock.monotonic()
        last = self._last.get(provider)
        if last is not None and last[0] != account_id:
            self._other[provider] = last[1]
        self._last[provider] = (account_id, now)

    def several(self, provider: str) -> bool:
        """Whether there were two."""
        other = self._other.get(provider)
        return other is not None and self._clock.monotonic() - other < TENANT_S


class Capacity:
    """What providers take of one kind of work, by their limiters; see `pool.Limits`. A card that is gone has one, too.

    Args:
        registry: Whose providers they are.
        clock: The time.
        limiter_of: The limiter of a provider for this kind of work.
    """

    def __init__(self, registry: Registry, clock: Clock, limiter_of: Callable[[Provider], Limiter]) -> None:
        self._registry = registry
        self._limiter_of = limiter_of
        self._gone = Limiter(clock, at_once=GONE_AT_ONCE)

    def room(self, provider: str) -> int:
        """How many pieces may begin now."""
        return self._of(provider).room()

    def share(self, provider: str) -> Share:
        """How the room is shared between accounts: of work that is over soon nothing is kept back."""
        return NO_SHARE

    def note(self, job: JobRow) -> None:
        """A job came, whether there is room for it or not."""

    def wait_s(self, provider: str) -> float | None:
        """Seconds after which there may be room although nothing ended; None: something has to end first."""
        return self._of(provider).wait_s()

    def enter(self, job: JobRow) -> Slot:
        """Begin with a piece; ended by `leave`."""
        return self._of(job.provider).enter()

    def leave(self, job: JobRow, slot: Slot) -> None:
        """The piece ended, or never began."""
        slot.leave()

    def _of(self, name: str) -> Limiter:
        provider = self._registry.get(name)
        return self._gone if provider is None else self._limiter_of(provider)


class SubmitCapacity(Capacity):
    """The same for submissions, which also leave tasks behind. A provider that is down gets one, to see whether it is back.

    Where several accounts use a provider, a tenth of its places is kept for those that hold fewer than that: an account that
    has a million jobs, or such as take hours, must not be in the way of one that has a few.
    """

    def __init__(self, registry: Registry, breakers: Breakers, tasks: UnfinishedTasks, clock: Clock) -> None:
        super().__init__(registry, clock, lambda provider: provider.submits)
        self._breakers = breakers
        self._tasks = tasks
        self._tenants = _Tenants(clock)

    def room(self, provider: str) -> int:
        """How many submissions may begin now."""
        limiter, breaker = self._of(provider), self._breakers.of(provider)
        if not breaker.allows():
            return 0
        room = min(limiter.room(), self._places(provider) - self._tasks.count(provider))
        return max(0, min(room, 1 - limiter.in_use) if breaker.is_open else room)

    def share(self, provider: str) -> Share:
        """How the room is shared between accounts."""
        if not self._tenants.several(provider) or self._breakers.of(provider).is_open:
            return NO_SHARE
        kept = min(self._places(provider), self._of(provider).at_once) // KEPT_BACK
        return Share(kept, self._tasks.by_account(provider)) if kept else NO_SHARE

    def note(self, job: JobRow) -> None:
        """A job came: its account uses the provider."""
        self._tenants.note(job.provider, job.account_id)

    def enter(self, job: JobRow) -> Slot:
        """Begin with a submission; its task counts from now on."""
        self._tasks.reserve(job)
        return super().enter(job)

    def leave(self, job: JobRow, slot: Slot) -> None:
        """The submission was answered, or never made; what became of the job says whether its task still counts."""
        self._tasks.release(job)
        super().leave(job, slot)

    def _places(self, name: str) -> int:
        provider = self._registry.get(name)
        return GONE_AT_ONCE if provider is None else provider.max_in_flight
