"""What was sent goes with age: attempts, then events' bodies with their deliveries and their jobs' inputs.

A command looks at and removes a few hundred rows at most, by indexes only (see `jobs.retention_store`). An event about a job
stays on its timeline without its bytes; the feed answers a cursor from before it with 410. What is still to be sent stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, takewhile

from service.db.transaction import Row, Tx, json_set
from service.db.writer import Writer
from service.events.feed_store import LEFT
from service.jobs.retention_store import ROWS, Sweep, Swept, affordable, erase_inputs

EVENTS = 50  # that one command looks at: of each the row, two indexes, its deliveries and its job change
WEIGHT = 2 * ROWS  # deliveries and attempts together that one command removes


@dataclass(frozen=True, slots=True)
class RemoveAttempts(Sweep):
    """Remove attempts from before this moment (ms UTC); their numbers grow with time, so the oldest come first."""

    before: int


_OLDEST_ATTEMPTS = "SELECT id, at FROM attempts WHERE id > 0 ORDER BY id LIMIT :count"
# The invariants ask whether what was delivered has an attempt: of what ended after this it has.
_KEPT_SINCE = """
INSERT INTO meta (key, value) @rows('attempts_kept_since', :since) ON CONFLICT (key) DO UPDATE SET value = excluded.value
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
    length(body) + coalesce((SELECT length(i.body) FROM inputs i WHERE i.job_id = events.job_id), 0) AS bytes
FROM events WHERE pos > :after ORDER BY pos LIMIT :count
"""
_DELIVERIES = """
SELECT event_id, id, status, attempt_count FROM deliveries WHERE event_id IN @set(:ids)
ORDER BY event_id LIMIT :count
"""
# A one-off destination's stays until its event goes: I2 holds between any two commands.
_SOME_OF_MANY = """
SELECT id, attempt_count FROM deliveries WHERE event_id = :id AND subscription_id IS NOT NULL LIMIT :count
"""
_IS_PENDING = "SELECT EXISTS (SELECT 1 FROM deliveries WHERE event_id = :id AND status = 'pending') AS pending"


async def handle_payloads(tx: Tx, commands: Sequence[RemovePayloads]) -> list[Swept | Exception]:
    """The writer's handler for `RemovePayloads`."""
    [command] = commands
    looked = await tx.rows(_OLDEST_EVENTS, {"after": command.after, "count": EVENTS})
    old = list(takewhile(lambda row: row["at"] < command.before, looked))
    if not old:
        return [Swept()]
    taken, deliveries = await _whole(tx, affordable(old))
    if not taken:
        return [await _narrow(tx, command, old[0])]
    kept = {row["event_id"] for row in deliveries if row["status"] == "pending"}
    ripe = [row for row in taken if row["id"] not in kept]
    removed = await _remove_deliveries(tx, [row["id"] for row in deliveries if row["event_id"] not in kept])
    removed |= await _remove_bodies(tx, ripe, command.before)
    more = replace(command, after=taken[-1]["pos"]) if len(taken) < len(old) or len(old) == EVENTS else None
    return [Swept(removed, more)]


async def _whole(tx: Tx, events: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The first events that can go at once, and all of their deliveries; none where the first one has too much."""
    found = await tx.rows(_DELIVERIES, {"ids": json_set(row["id"] for row in events), "count": WEIGHT + 1})
    cut = found[-1]["event_id"] if len(found) > WEIGHT else None  # of this one there may be more
    weights: Counter[str] = Counter()
    for row in found:
        weights[row["event_id"]] += 1 + row["attempt_count"]
    totals = accumulate(weights[row["id"]] for row in events)
    fits = takewhile(
        lambda pair: pair[1] <= WEIGHT and (cut is None or pair[0]["id"] < cut), zip(events, totals, strict=True)
    )
    taken = [event for event, _ in fits]
    ids = {event["id"] for event in taken}
    return taken, [row for row in found if row["event_id"] in ids]


async def _narrow(tx: Tx, command: RemovePayloads, event: Row) -> Swept:
    """Remove some deliveries of an event that has many, or whose deliveries have many attempts; the event goes with the last."""
    after = replace(command, after=event["pos"])
    [pending] = await tx.rows(_IS_PENDING, {"id": event["id"]})
    if pending["pending"]:
        return Swept(then=after)
    some = await tx.rows(_SOME_OF_MANY, {"id": event["id"], "count": WEIGHT})
    if some:
        totals = accumulate(1 + row["attempt_count"] for row in some)
        count = max(1, sum(total <= WEIGHT for total in totals))
        return Swept(await _remove_deliveries(tx, [row["id"] for row in some[:count]]), command)
    last = await tx.rows(_DELIVERIES, {"ids": json_set([event["id"]]), "count": WEIGHT})
    removed = await _remove_deliveries(tx, [row["id"] for row in last])
    return Swept(removed | await _remove_bodies(tx, [event], command.before), after)


async def _remove_deliveries(tx: Tx, delivery_ids: Sequence[str]) -> dict[str, int]:
    """Remove deliveries and what is left of their attempts; returns how many of each."""
    if not delivery_ids:
        return {}
    ids = json_set(delivery_ids)
    attempts = await tx.rows("SELECT id FROM attempts WHERE delivery_id IN @set(:ids)", {"ids": ids})
    tx.write(
        "DELETE FROM attempts WHERE id IN @numbers(:ids)",
        [{"ids": json_set(row["id"] for row in attempts)}] if attempts else [],
        expect=len(attempts),
    )
    tx.write(
        "DELETE FROM deliveries WHERE id IN @set(:ids)",
        [{"ids": ids}],
        expect=len(delivery_ids),
    )
    return {"attempts": len(attempts), "deliveries": len(delivery_ids)}


async def _remove_bodies(tx: Tx, events: Sequence[Row], before: int) -> dict[str, int]:
    """The events leave the feed; what belongs to no job has no timeline to stay on."""
    if not events:
        return {}
    of_jobs = [row for row in events if row["job_id"] is not None]
    tx.write(
        f"UPDATE events SET {LEFT} WHERE id IN @set(:ids)",
        [{"ids": json_set(row["id"] for row in of_jobs)}],
        expect=len(of_jobs),
    )
    tx.write(
        "DELETE FROM events WHERE id IN @set(:ids)",
        [{"ids": json_set(row["id"] for row in events if row["job_id"] is None)}],
        expect=len(events) - len(of_jobs),
    )
    floors = {row["account_id"]: row["pos"] for row in events}  # the last of each account stays
    tx.write(
        "UPDATE accounts SET feed_floor = @greatest(feed_floor, :pos) WHERE id = :account_id",
        [{"account_id": account_id, "pos": pos} for account_id, pos in floors.items()],
    )
    erased = await erase_inputs(tx, [row["job_id"] for row in of_jobs], before)
    return {"events": len(events), "inputs": erased}


def register(writer: Writer) -> None:
    """Name the handlers of this module's commands."""
    writer.handle(RemoveAttempts, handle_attempts)
    writer.handle(RemovePayloads, handle_payloads)
