"""What may be claimed of the jobs, and how a provider's room is shared among accounts.

A claim is made for one provider at a time, so that no provider's load is in another's way. What is due is taken oldest
first while it fits; where more is due than fits, the provider's accounts take turns, from where the last claim ended. How
that is asked of the store stands in `store`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from service.db.writer import Command
from service.jobs.row import JobRow

Stage = Literal["submit", "poll"]


@dataclass(frozen=True, slots=True)
class Share:
    """How a provider's room is shared: its last `kept` places are for accounts that hold fewer than that there."""

    kept: int = 0
    held: Mapping[str, int] = field(default_factory=dict)

    def admits(self, account_id: str, free: int, more: int = 0) -> bool:
        """Whether the account may take one of so many free places, where it was given `more` besides what it holds."""
        return free > self.kept or (free > 0 and self.held.get(account_id, 0) + more < self.kept)


NO_SHARE: Final = Share()


@dataclass(frozen=True, slots=True)
class ProviderRoom:
    """What a provider takes.

    Args:
        count: So many jobs, at most.
        after: The account behind which the next turn begins.
        share: How its places are shared.
        beyond: Places that are free besides those of this claim.
    """

    provider: str
    count: int
    after: str = ""
    share: Share = NO_SHARE
    beyond: int = 0

    def admits(self, account_id: str, taken: int = 0, given: int = 0) -> bool:
        """Whether the account may take a place, where so many were taken already, and so many of these by it."""
        return taken < self.count and self.share.admits(account_id, self.count + self.beyond - taken, given)

    def admitted(self, jobs: Iterable[JobRow]) -> list[JobRow]:
        """Those that may be taken, in their order."""
        taken: list[JobRow] = []
        given: Counter[str] = Counter()
        for job in jobs:
            if self.admits(job.account_id, len(taken), given[job.account_id]):
                taken.append(job)
                given[job.account_id] += 1
        return taken


@dataclass(frozen=True, slots=True)
class ClaimedJobs:
    """Jobs that are this process's now.

    Args:
        more: Providers of which more may be due.
        turns: Where more was due than fitted: the account that was served last, by provider.
    """

    jobs: list[JobRow]
    more: frozenset[str] = frozenset()
    turns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClaimJobs(Command[ClaimedJobs]):
    """Claim jobs to submit, or to ask their provider for."""

    stage: Stage
    owner: str
    lease_ms: int
    rooms: tuple[ProviderRoom, ...]

    def lock(self) -> Hashable | None:
        """Two claims never share a batch: each must see what the other took."""
        return ("claim", self.stage)


@dataclass(frozen=True, slots=True)
class VoidLeases(Command[int]):
    """At start on SQLite every lease is void: the process that held it is gone. Answers how many there were."""
