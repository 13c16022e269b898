"""What was sent goes with age: attempts, then events' bodies with their deliveries and their jobs' inputs.

A command looks at and removes a few hundred rows at most, by indexes only (see `jobs.retention`). An event about a job
stays on its timeline without its bytes; the feed answers a cursor from before it with 410. What is still to be sent stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from service.db.transaction import Row, Tx, json_set
from service.db.writer import Writer
from service.jobs.retention import ROWS, Sweep, Swept, affordable, erase_inputs

EVENTS = 50  # that one command looks at: of each the row, two indexes, its deliveries and its job change


@dataclass(frozen=True, slots=True)
class RemoveAttempts(Sweep):
    """Remove attempts from before this moment (ms UTC); their numbers grow with time, so the oldest come first."""

    before: int


_OLDEST_ATTEMPTS = "SELECT id, at FROM attempts WHERE id > 0 ORDER BY id LIMIT :count"
# The invariants ask whether what was delivered has an attempt: of what ended after this it has.
_KEPT_SINCE = """
INSERT INTO meta (key, value) VALUES ('attempts_kept_since', :since) ON CONFLICT (key) DO UPDATE SET value = excluded.value
"""


async def handle_attempts(tx: Tx, commands: Sequence[RemoveAttempts]) -> list[Swept | Exception]:
    """The writer's handler for `RemoveAttempts`."""
    [command] = commands
    looked = await tx.rows(_OLDEST_ATTEMPTS, {"count": ROWS})
    old = list(takewhile(lambda row: row["at"] < command.before, looked))
    if old:
        tx.write("DELETE FROM attempts WHERE id <= :last", [{"last": old[-1]["id"]}], expect=len(old))
        tx.write(_KEPT_SINCE, [{"since": str(command.before).encode()}])
    return [Swept({"attempts": len(old)}, command if len(old) == ROWS else None)]


@dataclass(frozen=True, slots=True)
class RemovePayloads(Sweep):
    """Remove the bytes of events from before this moment (ms UTC), with their deliveries and the inputs of their jobs.

    Args:
        after: The last position in the feed that was looked at.
    """

    before: int
    after: int = 0


# In the feed's order, which is that of time unless the clock was stepped: the first young one ends the look.
_OLDEST_EVENTS = """
SELECT pos, id, account_id, job_id, at,
    EXISTS (SELECT 1 FROM deliveries d WHERE d.event_id = events.id AND d.status = 'pending') AS pending,
    length(body) + coalesce((SELECT length(i.body) FROM inputs i WHERE i.job_id = events.job_id), 0) AS bytes
FROM events WHERE pos > :after ORDER BY pos LIMIT :count
"""


async def handle_payloads(tx: Tx, commands: Sequence[RemovePayloads]) -> list[Swept | Exception]:
    """The writer's handler for `RemovePayloads`."""
    [command] = commands
    looked = await tx.rows(_OLDEST_EVENTS, {"after": command.after, "count": EVENTS})
    old = list(takewhile(lambda row: row["at"] < command.before, looked))
    taken = affordable(old)
    ripe = [row for row in taken if not row["pending"]]
    removed, cleared = await _remove_deliveries(tx, ripe)
    if not cleared:
        return [Swept(removed, command)]
    removed |= await _remove_bodies(tx, ripe, command.before)
    more = replace(command, after=taken[-1]["pos"]) if len(taken) < len(old) or len(old) == EVENTS else None
    return [Swept(removed, more)]


async def _remove_deliveries(tx: Tx, events: Sequence[Row]) -> tuple[dict[str, int], bool]:
    """Remove what belongs to these events; False: only a part, the same again has to go on."""
    if not events:
        return {}, True
    deliveries = await tx.rows(
        "SELECT id FROM deliveries WHERE event_id IN (SELECT value FROM json_each(:ids)) LIMIT :count",
        {"ids": json_set(row["id"] for row in events), "count": ROWS},
    )
    ids = json_set(row["id"] for row in deliveries)
    attempts = await tx.rows(
        "SELECT id FROM attempts WHERE delivery_id IN (SELECT value FROM json_each(:ids)) LIMIT :count",
        {"ids": ids, "count": ROWS},
    )
    removed = {"attempts": len(attempts)}
    if attempts:
        tx.write(
            "DELETE FROM attempts WHERE id IN (SELECT value FROM json_each(:ids))",
            [{"ids": json_set(row["id"] for row in attempts)}],
        )
    if len(attempts) == ROWS:
        return removed, False
    if deliveries:
        tx.write(
            "DELETE FROM deliveries WHERE id IN (SELECT value FROM json_each(:ids))",
            [{"ids": ids}],
            expect=len(deliveries),
        )
    return removed | {"deliveries": len(deliveries)}, len(deliveries) < ROWS


async def _remove_bodies(tx: Tx, events: Sequence[Row], before: int) -> dict[str, int]:
    """The events leave the feed; what belongs to no job has no timeline to stay on."""
    if not events:
        return {}
    of_jobs = [row for row in events if row["job_id"] is not None]
    tx.write(
        "UPDATE events SET body = NULL, pos = NULL WHERE id IN (SELECT value FROM json_each(:ids))",
        [{"ids": json_set(row["id"] for row in of_jobs)}],
        expect=len(of_jobs),
    )
    tx.write(
        "DELETE FROM events WHERE id IN (SELECT value FROM json_each(:ids))",
        [{"ids": json_set(row["id"] for row in events if row["job_id"] is None)}],
        expect=len(events) - len(of_jobs),
    )
    floors = {row["account_id"]: row["pos"] for row in events}  # the last of each account stays
    tx.write(
        "UPDATE accounts SET feed_floor = max(feed_floor, :pos) WHERE id = :account_id",
        [{"account_id": account_id, "pos": pos} for account_id, pos in floors.items()],
    )
    erased = await erase_inputs(tx, [row["job_id"] for row in of_jobs], before)
    return {"events": len(events), "inputs": erased}


def register(writer: Writer) -> None:
    """Name the handlers of this module's commands."""
    writer.handle(RemoveAttempts, handle_attempts)
    writer.handle(RemovePayloads, handle_payloads)
