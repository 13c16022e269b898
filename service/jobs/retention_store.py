"""What goes with age: idempotency keys after their day, callbacks, inputs, and in the end jobs themselves.

A command looks at and removes a few hundred rows at most, by indexes only, and says which command goes on; how old is too
old, and how often a command is sent, is its sender's to know. Deliveries and what was sent go before: `deliveries.retention.retention_store`.
The books stay: what a job has cost is told there, and no reference leads from there to a job.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

from service.db.transaction import Params, Row, Tx, json_set
from service.db.writer import Command, Writer
from service.ids import earliest
from service.jobs.idempotency_store import KEY_LIFE_MS

ROWS = 200  # that one command removes of a kind
JOBS = 20  # that one command removes, each with a timeline of ten rows or so
MAX_BYTES = 4 * 1024 * 1024  # of bodies that one command removes: a large one fills many pages
SLACK_MS = 3_600_000  # a key may be stored some time after its job was made


@dataclass(frozen=True, slots=True)
class Swept:
    """What a command removed, by kind, and the command that goes on; None: there is no more."""

    removed: Mapping[str, int] = field(default_factory=dict)
    then: Sweep | None = None


class Sweep(Command[Swept]):
    """A command that removes something."""

    __slots__ = ()

    def lock(self) -> Hashable | None:
        """One at a time, or a batch would take longer than a command may."""
        return "sweep"


def affordable(rows: Sequence[Row]) -> list[Row]:
    """The first rows whose `bytes` are not too many together; at least one."""
    total = 0
    for count, row in enumerate(rows):
        total += row["bytes"]
        if count and total > MAX_BYTES:
            return list(rows[:count])
    return list(rows)


@dataclass(frozen=True, slots=True)
class ForgetKeys(Sweep):
    """Forget idempotency keys whose day is over."""


async def handle_keys(tx: Tx, commands: Sequence[ForgetKeys]) -> list[Swept | Exception]:
    """The writer's handler for `ForgetKeys`."""
    [command] = commands
    found = await tx.rows(
        "SELECT account_id, key FROM idempotency WHERE expires_at <= :now ORDER BY expires_at LIMIT :count",
        {"now": tx.now_ms, "count": ROWS},
    )
    tx.write(
        "DELETE FROM idempotency WHERE account_id = :account_id AND key = :key AND expires_at <= :now",
        [{"account_id": row["account_id"], "key": row["key"], "now": tx.now_ms} for row in found],
    )
    return [Swept({"keys": len(found)}, command if len(found) == ROWS else None)]


@dataclass(frozen=True, slots=True)
class RemoveCallbacks(Sweep):
    """Remove what providers sent before this moment (ms UTC); their numbers grow with time."""

    before: int


_OLDEST_CALLBACKS = """
SELECT id, received_at, length(body) AS bytes FROM callbacks WHERE id > 0 ORDER BY id LIMIT :count
"""


async def handle_callbacks(tx: Tx, commands: Sequence[RemoveCallbacks]) -> list[Swept | Exception]:
    """The writer's handler for `RemoveCallbacks`."""
    [command] = commands
    looked = await tx.rows(_OLDEST_CALLBACKS, {"count": ROWS})
    old = list(takewhile(lambda row: row["received_at"] < command.before, looked))
    gone = affordable(old)
    if gone:
        tx.write("DELETE FROM callbacks WHERE id <= :last", [{"last": gone[-1]["id"]}], expect=len(gone))
    more = len(gone) < len(old) or len(old) == ROWS
    return [Swept({"callbacks": len(gone)}, command if more else None)]


async def erase_inputs(tx: Tx, job_ids: Sequence[str], before: int) -> int:
    """Empty the inputs of those jobs that ended before this moment (ms UTC); returns of how many.

    Large inputs that lie in the storage are marked; the sweeper deletes their files. A job whose files live on does not count
    as erased yet: who asks for that still has them removed.
    """
    found = await tx.rows(
        "SELECT id FROM jobs WHERE id IN @set(:ids) AND finished_at < :before AND erased_at IS NULL",
        {"ids": json_set(job_ids), "before": before},
    )
    if found:
        params: Params = {"ids": json_set(row["id"] for row in found), "now": tx.now_ms}
        for statement in _ERASE:
            tx.write(statement, [params])
    return len(found)


_ERASE = (
    """
UPDATE jobs SET input = '{}', input_full = NULL, erased_at = CASE WHEN EXISTS (SELECT 1 FROM results r
    WHERE r.job_id = jobs.id AND (r.storage_key IS NOT NULL OR r.due_at IS NOT NULL)) THEN NULL ELSE @typed(:now, bigint) END
WHERE id IN @set(:ids)
""",
    """
DELETE FROM inputs WHERE job_id IN @set(:ids) AND storage_key IS NULL
""",
    """
UPDATE inputs SET sweep_at = :now WHERE job_id IN @set(:ids) AND sweep_at IS NULL
""",
    """
UPDATE results SET source_url = '' WHERE job_id IN @set(:ids) AND source_url LIKE 'data:%'
    AND expires_at <= :now AND storage_key IS NULL AND due_at IS NULL
""",
)


@dataclass(frozen=True, slots=True)
class RemoveJobs(Sweep):
    """Remove jobs that ended before this moment (ms UTC), with everything that is theirs alone.

    One of which something is left that others care for stays for now: a delivery or an event of the feed (`deliveries`
    removes them), a file in the storage (`results` does), an idempotency key.

    Args:
        after: The last job that was looked at.
    """

    before: int
    after: str = ""


# A job's id holds when it was made, and it ended later: the range keeps the look away from everything young. When a key
# ends tells when its job was made at the latest, so that keys need no index by job.
_OLDEST_JOBS = """
SELECT id, finished_at < :before
    AND created_at <= coalesce((SELECT min(expires_at) FROM idempotency) - :key_life, :before)
    AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.job_id = jobs.id)
    AND NOT EXISTS (SELECT 1 FROM events e WHERE e.job_id = jobs.id AND e.body IS NOT NULL)
    AND NOT EXISTS (SELECT 1 FROM results r WHERE r.job_id = jobs.id AND (r.storage_key IS NOT NULL OR r.due_at IS NOT NULL))
    AND NOT EXISTS (SELECT 1 FROM inputs i WHERE i.job_id = jobs.id AND i.storage_key IS NOT NULL) AS ripe
FROM jobs WHERE id > :after AND id < :end ORDER BY id LIMIT :count
"""
_REMOVE_JOB = (  # what refers to others goes before them
    """
DELETE FROM callbacks WHERE submission_id IN (
    SELECT id FROM submissions WHERE job_id IN @set(:ids))
""",
    *(f"DELETE FROM {table} WHERE job_id IN @set(:ids)" for table in ("submissions", "results", "inputs", "events")),
    "DELETE FROM jobs WHERE id IN @set(:ids)",
)


async def handle_jobs(tx: Tx, commands: Sequence[RemoveJobs]) -> list[Swept | Exception]:
    """The writer's handler for `RemoveJobs`."""
    [command] = commands
    looked = await tx.rows(
        _OLDEST_JOBS,
        {
            "before": command.before,
            "key_life": KEY_LIFE_MS + SLACK_MS,
            "after": command.after,
            "end": earliest("job", command.before),
            "count": JOBS,
        },
    )
    ripe = [row["id"] for row in looked if row["ripe"]]
    for statement in _REMOVE_JOB if ripe else ():
        tx.write(statement, [{"ids": json_set(ripe)}])
    more = replace(command, after=looked[-1]["id"]) if len(looked) == JOBS else None
    return [Swept({"jobs": len(ripe)}, more)]


def register(writer: Writer) -> None:
    """Name the handlers of this module's commands."""
    writer.handle(ForgetKeys, handle_keys)
    writer.handle(RemoveCallbacks, handle_callbacks)
    writer.handle(RemoveJobs, handle_jobs)
