"""Claiming work that is due and that nobody holds, or whose holder's lease ran out. Claims, not elections, keep owners apart."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from service.db.transaction import Tx
from service.db.writer import Command, Writer
from service.jobs.row import COLUMNS, JobRow, from_row

_COLUMNS = ", ".join(COLUMNS)

# Claims queued jobs of one provider in the order in which they fell due; safe because the writer is alone on SQLite.
_QUEUED = f"""
SELECT {_COLUMNS} FROM jobs WHERE status = 'queued' AND provider = :provider AND due_at <= :now
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
    asked = [{"provider": name, "count": count, "now": tx.now_ms} for name, count in command.free if count > 0]
    return [_lease(tx, await tx.rows_each(_QUEUED, asked) if asked else [], command.owner, command.lease_ms)]


async def handle_due(tx: Tx, commands: Sequence[ClaimDue]) -> list[list[JobRow] | Exception]:
    """The writer's handler for `ClaimDue`."""
    [command] = commands
    found = await tx.rows(_OTHERS, {"now": tx.now_ms, "count": command.count})
    return [_lease(tx, found, command.owner, command.lease_ms)]


def _lease(tx: Tx, found: Sequence[object], owner: str, lease_ms: int) -> list[JobRow]:
    jobs = [from_row(row) for row in found]  # type: ignore[arg-type]
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
