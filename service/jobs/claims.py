"""Claiming work that is due and that nobody holds, or whose holder's lease ran out. Claims, not elections, keep owners apart."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from service.db.transaction import Tx
from service.db.writer import Command, Writer
from service.jobs.row import COLUMNS, JobRow, from_row

MAX_ACCOUNTS = 200  # looked at in one claim for one provider

_COLUMNS = ", ".join(COLUMNS)

# The accounts that have jobs waiting for a provider: the index is skipped through, one step an account.
_WAITING_ACCOUNTS = """
WITH RECURSIVE waiting(account) AS (
    SELECT min(account_id) FROM jobs WHERE status = 'queued' AND provider = :provider
    UNION ALL
    SELECT (SELECT min(account_id) FROM jobs WHERE status = 'queued' AND provider = :provider AND account_id > waiting.account)
    FROM waiting WHERE waiting.account IS NOT NULL
)
SELECT account FROM waiting WHERE account IS NOT NULL LIMIT :accounts
"""
# Claims one account's queued jobs for one provider in the order in which they fell due; safe because the writer is alone
# on SQLite.
_QUEUED = f"""
SELECT {_COLUMNS} FROM jobs WHERE status = 'queued' AND provider = :provider AND account_id = :account AND due_at <= :now
    AND (lease_until IS NULL OR lease_until <= :now)
ORDER BY due_at LIMIT :count
"""
# Claims what is to be asked for, or was left in flight, oldest first.
_OTHERS = f"""
SELECT {_COLUMNS} FROM jobs WHERE due_at <= :now AND status <> 'queued' AND (lease_until IS NULL OR lease_until <= :now)
ORDER BY due_at LIMIT :count
"""
_LEASE = """
UPDATE jobs SET lease_owner = :owner, lease_until = :until, lease_epoch = lease_epoch + 1
WHERE id = :id AND lease_epoch = :epoch
"""


@dataclass(frozen=True, slots=True)
class ClaimQueued(Command[list[JobRow]]):
    """Claim jobs to submit: for each provider as many as it has free places."""

    owner: str
    lease_ms: int
    free: tuple[tuple[str, int], ...]

    def lock(self) -> Hashable | None:
        """Two claims never share a batch: each must see what the other took."""
        return "claim"


@dataclass(frozen=True, slots=True)
class ClaimDue(Command[list[JobRow]]):
    """Claim jobs to ask for, and jobs whose submitter is gone."""

    owner: str
    lease_ms: int
    count: int

    def lock(self) -> Hashable | None:
        """See `ClaimQueued`."""
        return "claim"


async def handle_queued(tx: Tx, commands: Sequence[ClaimQueued]) -> list[list[JobRow] | Exception]:
    """The writer's handler for `ClaimQueued`."""
    [command] = commands
    jobs: list[JobRow] = []
    for provider, count in command.free:
        waiting = await tx.rows(_WAITING_ACCOUNTS, {"provider": provider, "accounts": MAX_ACCOUNTS})
        asked = [{"provider": provider, "account": row["account"], "count": count, "now": tx.now_ms} for row in waiting]
        found = [from_row(row) for row in await tx.rows_each(_QUEUED, asked)] if asked else []
        jobs += _in_turn(found, count)
    return [_lease(tx, jobs, command.owner, command.lease_ms)]


def _in_turn(jobs: Sequence[JobRow], count: int) -> list[JobRow]:
    """So many of the jobs, the accounts in turn, each account's in its order: a large backlog hides no small one."""
    lines: dict[str, list[JobRow]] = {}
    for job in jobs:
        lines.setdefault(job.account_id, []).append(job)
    rounds = zip_longest(*lines.values())
    return [job for one_of_each in rounds for job in one_of_each if job is not None][:count]


async def handle_due(tx: Tx, commands: Sequence[ClaimDue]) -> list[list[JobRow] | Exception]:
    """The writer's handler for `ClaimDue`."""
    [command] = commands
    found = await tx.rows(_OTHERS, {"now": tx.now_ms, "count": command.count})
    return [_lease(tx, [from_row(row) for row in found], command.owner, command.lease_ms)]


def _lease(tx: Tx, jobs: list[JobRow], owner: str, lease_ms: int) -> list[JobRow]:
    until = tx.now_ms + lease_ms
    tx.write(
        _LEASE,
        [{"owner": owner, "until": until, "id": job.id, "epoch": job.lease_epoch} for job in jobs],
        expect=len(jobs),
    )
    for job in jobs:
        job.lease_owner = owner
        job.lease_until = until
        job.lease_epoch += 1
    return jobs


@dataclass(frozen=True, slots=True)
class VoidLeases(Command[int]):
    """At start on SQLite every lease is void: the process that held it is gone. Answers how many there were."""


async def handle_void(tx: Tx, commands: Sequence[VoidLeases]) -> list[int | Exception]:
    """The writer's handler for `VoidLeases`; jobs left in flight become due at once."""
    [held] = await tx.rows("SELECT count(*) AS n FROM jobs WHERE lease_owner IS NOT NULL", {})
    tx.write(
        "UPDATE jobs SET lease_owner = NULL, lease_until = NULL, lease_epoch = lease_epoch + 1, "
        "due_at = CASE WHEN status = 'submitting' THEN :now ELSE due_at END WHERE lease_owner IS NOT NULL OR status = 'submitting'",
        [{"now": tx.now_ms}],
    )
    return [held["n"] for _ in commands]


def register(writer: Writer) -> None:
    """Name the handlers of this module's commands."""
    writer.handle(ClaimQueued, handle_queued)
    writer.handle(ClaimDue, handle_due)
    writer.handle(VoidLeases, handle_void)
