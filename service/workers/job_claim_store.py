"""Claiming the jobs that are due, and sharing a provider's room among accounts: claims, not elections, keep owners apart.

A claim is made for one provider at a time, so that no provider's load is in another's way. What is due is taken oldest
first while it fits; where more is due than fits, the provider's accounts take turns, from where the last claim ended. It must
not know what is done with a job.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, zip_longest
from typing import Final, Literal

from service.db.leases import VOID, Leased, free
from service.db.transaction import Row, Tx
from service.db.writer import Command, Writer
from service.jobs.row import COLUMNS, JobRow, from_row

ACCOUNTS_AT_ONCE: Final = 250  # whose turn it may be, looked at in one claim; the next one goes on behind them

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


_COLUMNS = ", ".join(COLUMNS)

#: What waits in each stage, as its two indexes name it: SQLite uses a partial index only for the same words.
_WAITS: Final[dict[Stage, str]] = {
    "submit": "status = 'queued'",
    "poll": "due_at IS NOT NULL AND status NOT IN ('queued', 'submitting')",
}
_LEASED: Final = Leased("jobs", ("id",))
_FREE: Final = free()


def _oldest(waits: str) -> str:
    """What is due for a provider, in the order in which it fell due."""
    return f"""
SELECT {_COLUMNS} FROM jobs WHERE {waits} AND provider = :provider AND due_at <= :now AND {_FREE} ORDER BY due_at LIMIT :count
@skip_locked(jobs)
"""


def _accounts(waits: str) -> str:
    """Accounts that have something waiting for a provider, and whether it is due: the index is skipped through, one step an account."""
    of_provider = f"FROM jobs WHERE {waits} AND provider = :provider"
    return f"""
WITH RECURSIVE waiting(account, step) AS (
    SELECT min(account_id), 1 {of_provider} AND account_id > :after AND account_id <= :until
    UNION ALL
    SELECT (SELECT min(account_id) {of_provider} AND account_id > waiting.account AND account_id <= :until), step + 1
    FROM waiting WHERE waiting.account IS NOT NULL AND step < {ACCOUNTS_AT_ONCE}
)
SELECT :provider AS provider, account,
    EXISTS (SELECT 1 {of_provider} AND account_id = waiting.account AND due_at <= :now AND {_FREE}) AS is_due
FROM waiting WHERE account IS NOT NULL
"""


def _of_account(waits: str) -> str:
    """One account's due jobs for one provider, in order."""
    return f"""
SELECT {_COLUMNS} FROM jobs WHERE {waits} AND provider = :provider AND account_id = :account AND due_at <= :now AND {_FREE}
ORDER BY due_at LIMIT :count @skip_locked(jobs)
"""


_OLDEST: Final = {stage: _oldest(waits) for stage, waits in _WAITS.items()}
_ACCOUNTS: Final = {stage: _accounts(waits) for stage, waits in _WAITS.items()}
_OF_ACCOUNT: Final = {stage: _of_account(waits) for stage, waits in _WAITS.items()}


async def handle_claims(tx: Tx, commands: Sequence[ClaimJobs]) -> list[ClaimedJobs | Exception]:
    """The writer's handler for `ClaimJobs`; claims of different stages may share a batch."""
    return [await _claim(tx, command) for command in commands]


async def _claim(tx: Tx, command: ClaimJobs) -> ClaimedJobs:
    asked = [{"provider": room.provider, "count": room.count + 1, "now": tx.now_ms} for room in command.rooms]
    found = [from_row(row) for row in await tx.rows_each(_OLDEST[command.stage], asked)] if asked else []
    oldest = {provider: list(jobs) for provider, jobs in groupby(found, key=lambda job: job.provider)}
    jobs: list[JobRow] = []
    more: set[str] = set()
    turns: dict[str, str] = {}
    for room in command.rooms:
        due = oldest.get(room.provider, [])
        if len(due) <= room.count:
            taken = room.admitted(due)
        else:
            taken, turns[room.provider] = await _in_turn(tx, command.stage, room, due)
        if len(taken) < len(due):
            more.add(room.provider)
        jobs += taken
    _lease(tx, jobs, command.owner, command.lease_ms)
    return ClaimedJobs(jobs, frozenset(more), turns)


async def _in_turn(tx: Tx, stage: Stage, room: ProviderRoom, oldest: Sequence[JobRow]) -> tuple[list[JobRow], str]:
    """The jobs of the accounts whose turn it is, and the account behind which the next turn begins."""
    accounts = await _turns(tx, stage, room)
    # Who holds too many for the places that are left is no one's turn, or those places would wait for it for ever.
    chosen = [row["account"] for row in accounts if row["is_due"] and room.admits(row["account"])][: room.count]
    each = -(-room.count // max(1, len(chosen)))
    asked = [{"provider": room.provider, "account": one, "now": tx.now_ms, "count": each} for one in chosen]
    theirs = [from_row(row) for row in await tx.rows_each(_OF_ACCOUNT[stage], asked)] if asked else []
    lines = [list(jobs) for _, jobs in groupby(theirs, key=lambda job: job.account_id)]
    in_turn = [job for one_of_each in zip_longest(*lines) for job in one_of_each if job is not None]
    known = {job.id for job in in_turn}
    taken = room.admitted([*in_turn, *(job for job in oldest if job.id not in known)])
    if len(in_turn) < room.count or not taken:  # those looked at had too little: the next look begins behind them
        return taken, accounts[-1]["account"]
    return taken, taken[-1].account_id


async def _turns(tx: Tx, stage: Stage, room: ProviderRoom) -> list[Row]:
    """Accounts in the order of their turns: those behind the last one first, then from the beginning."""
    asked = {"provider": room.provider, "now": tx.now_ms}
    behind = await tx.rows(_ACCOUNTS[stage], asked | {"after": room.after, "until": "~"})  # ids have no letter above
    if not room.after or len(behind) >= ACCOUNTS_AT_ONCE:
        return behind
    return behind + await tx.rows(_ACCOUNTS[stage], asked | {"after": "", "until": room.after})


def _lease(tx: Tx, jobs: list[JobRow], owner: str, lease_ms: int) -> None:
    until = _LEASED.claim(tx, [{"id": job.id, "lease_epoch": job.lease_epoch} for job in jobs], owner, lease_ms)
    for job in jobs:
        job.lease_owner = owner
        job.lease_until = until
        job.lease_epoch += 1


async def handle_void(tx: Tx, commands: Sequence[VoidLeases]) -> list[int | Exception]:
    """The writer's handler for `VoidLeases`; jobs left in flight become due at once."""
    # Through the index of what is active, which is small beside all jobs.
    active = "jobs @by_index(ix_jobs_for_expiry)"
    is_active = "status IN ('queued', 'submitting', 'submit_unknown', 'running')"
    [held] = await tx.rows(f"SELECT count(*) AS n FROM {active} WHERE {is_active} AND lease_owner IS NOT NULL", {})
    tx.write(
        f"UPDATE {active} SET {VOID}, "
        "due_at = CASE WHEN status = 'submitting' THEN :now ELSE due_at END "
        f"WHERE {is_active} AND (lease_owner IS NOT NULL OR status = 'submitting')",
        [{"now": tx.now_ms}],
    )
    return [held["n"] for _ in commands]


def register(writer: Writer) -> None:
    """Name the handlers of this module's commands."""
    writer.handle(ClaimJobs, handle_claims)
    writer.handle(VoidLeases, handle_void)
