"""What the writer does for replays: they begin, go on batch by batch, and end. How they are claimed stands in `replay_claim_store`.

A batch and the cursor behind it are one transaction, so that a replay that is cut off anywhere goes on without queueing
anything twice. Of a subscription one replay goes on at a time, and a claim takes all of them: so nobody else adds
deliveries of old events meanwhile, and a destination never has an event twice.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec

from service.db.leases import RELEASED, STILL_HELD, VOID
from service.db.transaction import Params, Row, Tx, json_set
from service.db.writer import Command, Writer
from service.deliveries import store
from service.deliveries.replays import replay_claim_store
from service.deliveries.replays.replay_claim_store import CLAIMED, PENDING
from service.deliveries.replays.replay_queries import Found
from service.deliveries.subscribing.changes import no_subscription
from service.errors import Conflict, NotFound
from service.ids import Ids, earliest
from service.schemas.words import REPLAYED

RUNNING_OF_SUBSCRIPTION: Final = 10  # replays at once
RUNNING_OF_ACCOUNT: Final = 100  # replays at once
KEPT_OF_ACCOUNT: Final = 1_000  # ended ones; older ones are forgotten when a new one begins
FULL_MS: Final = 500  # until a full lane is looked at again
DISABLED_MS: Final = 5_000  # the same for a subscription that is disabled
LATELY_MS: Final = 600_000  # far longer than from a look at the store to the batch that comes of it

_SUBSCRIPTIONS: Final = "SELECT id, account_id, status FROM subscriptions WHERE id IN @set(:ids)"
_RUNNING: Final = """
SELECT account_id, subscription_id, count(*) AS n FROM replays
WHERE status = 'running' AND account_id IN @set(:accounts) GROUP BY account_id, subscription_id
"""
_INSERT: Final = """
INSERT INTO replays (id, account_id, subscription_id, since, until, types, statuses, status, next_pos, last_pos, looked_at,
    queued, total, created_at, due_at, lease_epoch)
@rows(:id, :account_id, :subscription_id, :since, :until, :types, :statuses, 'running', :next_pos, :last_pos, 0,
    0, :total, :now, :now, 0)
"""
_FORGET: Final = """
DELETE FROM replays WHERE account_id = :account AND status <> 'running'
    AND id < (SELECT id FROM replays WHERE account_id = :account ORDER BY id DESC LIMIT 1 OFFSET :kept)
"""
_RELEASE: Final = f"""
UPDATE replays SET {RELEASED}, due_at = :due_at WHERE status = 'running' AND subscription_id = :subscription
"""
_ADVANCE: Final = f"""
UPDATE replays SET next_pos = :next_pos, looked_at = looked_at + :looked_at, queued = queued + :queued
WHERE id = :id AND status = 'running' AND {STILL_HELD}
"""
_END: Final = f"""
UPDATE replays SET status = :status, reason = :reason, finished_at = :now, due_at = NULL, {RELEASED}
WHERE id = :id AND status = 'running'
"""
# What was found may be pending or without its bytes by now.
_STILL: Final = """
SELECT d.id FROM deliveries d JOIN events e ON e.id = d.event_id WHERE d.id IN @set(:ids)
    AND d.status <> 'pending' AND d.status IN @set(:statuses) AND e.body IS NOT NULL
"""
_BODIED: Final = "SELECT id FROM events WHERE id IN @set(:ids) AND body IS NOT NULL"
#: A part of a fan-out may have written the delivery since the replay looked: by the ids of the latest, since an event has many.
_HAD: Final = """
SELECT event_id FROM deliveries
WHERE subscription_id = :subscription AND id >= :since AND event_id IN @set(:ids)
"""
_AGAIN: Final = f"""
UPDATE deliveries SET status = 'pending', due_at = :now, retried_at = :now, schedule_base = attempt_count, finished_at = NULL,
    give_up_at = NULL, reason = NULL, {VOID}
WHERE id IN @set(:ids) AND status <> 'pending'
"""


@dataclass(frozen=True, slots=True)
class StartReplay(Command[None]):
    """Begin a replay.

    Answered with NotFound where the account has no such subscription, with Conflict where it is disabled or too many
    replays run already.

    Args:
        since: The first moment, ms UTC.
        until: The moment at which the range is over.
        types: JSON; empty: the subscription's own.
        statuses: JSON; empty: all.
        first_pos: Where in the feed to begin.
        last_pos: Where to end.
        total: Events in the range.
    """

    replay_id: str
    account_id: str
    subscription_id: str
    since: int
    until: int
    types: str
    statuses: str
    first_pos: int
    last_pos: int
    total: int

    def lock(self) -> Hashable | None:
        """Each must be counted before the next one."""
        return self.account_id


async def handle_starts(tx: Tx, commands: Sequence[StartReplay]) -> list[Exception | None]:
    """The writer's handler for `StartReplay`."""
    found = await tx.rows(_SUBSCRIPTIONS, {"ids": json_set({each.subscription_id for each in commands})})
    known = {(row["account_id"], row["id"]): row for row in found}
    running = await tx.rows(_RUNNING, {"accounts": json_set({each.account_id for each in commands})})
    answers = [_refusal(each, known.get((each.account_id, each.subscription_id)), running) for each in commands]
    begun = [_row(tx, each) for each, answer in zip(commands, answers, strict=True) if answer is None]
    tx.write(_INSERT, begun, expect=len(begun))
    tx.write(_FORGET, [{"account": each["account_id"], "kept": KEPT_OF_ACCOUNT} for each in begun])
    return answers


def _row(tx: Tx, command: StartReplay) -> Params:
    return {
        "id": command.replay_id,
        "account_id": command.account_id,
        "subscription_id": command.subscription_id,
        "since": command.since,
        "until": command.until,
        "types": command.types,
        "statuses": command.statuses,
        "next_pos": command.first_pos,
        "last_pos": command.last_pos,
        "total": command.total,
        "now": tx.now_ms,
    }


def _refusal(command: StartReplay, subscription: Row | None, running: Sequence[Row]) -> Exception | None:
    if subscription is None:
        return no_subscription()
    if subscription["status"] != "enabled":
        return Conflict(
            f"the subscription is disabled; enable it first with POST /v1/subscriptions/{command.subscription_id}/enable",
            code="subscription_disabled",
        )
    of_account = [row for row in running if row["account_id"] == command.account_id]
    of_this = sum(row["n"] for row in of_account if row["subscription_id"] == command.subscription_id)
    if of_this >= RUNNING_OF_SUBSCRIPTION:
        return _too_many(f"the subscription has {of_this} replays")
    if (of_all := sum(row["n"] for row in of_account)) >= RUNNING_OF_ACCOUNT:
        return _too_many(f"the account has {of_all} replays")
    return None


def _too_many(who: str) -> Conflict:
    return Conflict(
        f"{who} that run, which is the most; wait for one to end, or cancel one with POST /v1/replays/{{id}}/cancel",
        code="too_many_replays",
    )


@dataclass(frozen=True, slots=True)
class CancelReplay(Command[None]):
    """End a replay early; what it queued is sent. NotFound for another account's, Conflict for one that is done."""

    replay_id: str
    account_id: str

    def lock(self) -> Hashable | None:
        """The second of two must see what the first one did."""
        return self.replay_id


async def handle_cancels(tx: Tx, commands: Sequence[CancelReplay]) -> list[Exception | None]:
    """The writer's handler for `CancelReplay`."""
    found = await tx.rows(
        "SELECT id, account_id, subscription_id, status FROM replays WHERE id IN @set(:ids)",
        {"ids": json_set(each.replay_id for each in commands)},
    )
    known = {(row["account_id"], row["id"]): row for row in found}
    answers: list[Exception | None] = []
    for command in commands:
        row = known.get((command.account_id, command.replay_id))
        answers.append(_not_cancellable(row))
        if row is not None and row["status"] == "running":
            _end(tx, row, "cancelled", "cancelled")
            # The lease is on all of the subscription's; a batch of this one that is under way will be refused.
            tx.write(_RELEASE, [{"subscription": row["subscription_id"], "due_at": tx.now_ms}])
    return answers


def _not_cancellable(row: Row | None) -> Exception | None:
    if row is None:
        return no_replay()
    if row["status"] == "done":
        return Conflict("the replay is done: everything in its range is queued or sent", code="not_cancellable")
    return None


def no_replay() -> NotFound:
    """There is none of that id, or it is another account's."""
    return NotFound(
        "there is no such replay; ids look like rpl_0199… and are given by POST /v1/subscriptions/{id}/replay"
    )


@dataclass(frozen=True, slots=True)
class AdvanceReplay(Command[bool]):
    """Queue what was found and move the cursor behind it; answered with whether the replay went on.

    Args:
        epoch: Of the claim.
        found: What is to be queued.
        looked_at: Events of the range that were looked at.
        next_pos: Where to go on; None: nothing was looked at, since the replay has to wait.
    """

    replay_id: str
    epoch: int
    found: tuple[Found, ...] = ()
    looked_at: int = 0
    next_pos: int | None = None

    def lock(self) -> Hashable | None:
        """One batch a transaction, so that nobody's command waits for several."""
        return "batch" if self.found else None


async def handle_advances(
    tx: Tx, commands: Sequence[AdvanceReplay], ids: Ids, left_in_store: Callable[[str], None]
) -> list[bool | Exception]:
    """The writer's handler for `AdvanceReplay`."""
    answers: list[bool | Exception] = []
    for command in commands:
        rows = await tx.rows(CLAIMED, {"id": command.replay_id, "most": PENDING})
        if not rows or rows[0]["lease_epoch"] != command.epoch:
            answers.append(False)  # cancelled, or somebody else's by now
        else:
            answers.append(await _advance(tx, command, rows[0], ids, left_in_store))
    return answers


async def _advance(tx: Tx, command: AdvanceReplay, replay: Row, ids: Ids, left_in_store: Callable[[str], None]) -> bool:
    lane, wait_ms = replay["subscription_id"], _wait_ms(replay)
    if wait_ms is None:
        _end(tx, replay, "cancelled", "subscription_deleted")
    elif not wait_ms and command.next_pos is not None:
        queued = await _queue(tx, command, replay, ids)
        if queued:
            tx.after_commit(partial(left_in_store, lane))
        moved = {"next_pos": command.next_pos, "looked_at": command.looked_at, "queued": queued}
        tx.write(_ADVANCE, [moved | {"id": command.replay_id, "epoch": command.epoch}], expect=1)
        if command.next_pos > replay["last_pos"]:
            _end(tx, replay, "done", None)
    tx.write(_RELEASE, [{"subscription": lane, "due_at": tx.now_ms + (wait_ms or 0)}])
    return not wait_ms


def _wait_ms(replay: Row) -> int | None:
    """How long the replay has to wait before it may go on; None: it will never go on."""
    if replay["subscription"] is None:
        return None
    if replay["subscription"] != "enabled":
        return DISABLED_MS
    return FULL_MS if replay["pending"] >= PENDING else 0


async def _queue(tx: Tx, command: AdvanceReplay, replay: Row, ids: Ids) -> int:
    """Make what was found pending; returns how many deliveries that are."""
    statuses = msgspec.json.decode(replay["statuses"], type=list[str]) or REPLAYED
    old = [each.delivery_id for each in command.found if each.delivery_id is not None]
    still = await tx.rows(_STILL, {"ids": json_set(old), "statuses": json_set(statuses)}) if old else []
    again = json_set(row["id"] for row in still)
    tx.write(_AGAIN, [{"ids": again, "now": tx.now_ms}] if still else [], expect=len(still))
    new = {each.event_id: each for each in command.found if each.delivery_id is None}
    for event_id in await _unwanted(tx, replay["subscription_id"], new) if new else ():
        del new[event_id]
    rows = [_delivery(tx, each, replay, ids.new("dlv")) for each in new.values()]
    store.insert(tx, rows)
    queued = len(still) + len(rows)
    if queued:
        woken = {"lane": replay["subscription_id"], "account_id": replay["account_id"], "due_at": tx.now_ms}
        store.wake_lanes(tx, [woken])
    return queued


async def _unwanted(tx: Tx, subscription_id: str, event_ids: Iterable[str]) -> set[str]:
    """Those that have lost their bytes since the replay looked, and those that the subscription has by now."""
    ids = json_set(event_ids)
    bodied = {row["id"] for row in await tx.rows(_BODIED, {"ids": ids})}
    since = earliest("dlv", tx.now_ms - LATELY_MS)
    had = await tx.rows(_HAD, {"subscription": subscription_id, "since": since, "ids": ids})
    return (set(event_ids) - bodied) | {row["event_id"] for row in had}


def _delivery(tx: Tx, found: Found, replay: Row, delivery_id: str) -> Params:
    return {
        "id": delivery_id,
        "event_id": found.event_id,
        "account_id": replay["account_id"],
        "job_id": found.job_id,
        "type": found.type,
        "subscription_id": replay["subscription_id"],
        "lane": replay["subscription_id"],
        "url": None,
        "status": "pending",
        "created_at": tx.now_ms,
        "due_at": tx.now_ms,
        "finished_at": None,
        "reason": None,
        "give_up_at": None,
        "lease_owner": None,
        "lease_until": None,
        "lease_epoch": 0,
    }


def _end(tx: Tx, replay: Row, status: str, reason: str | None) -> None:
    tx.write(_END, [{"id": replay["id"], "status": status, "reason": reason, "now": tx.now_ms}], expect=1)


def register(writer: Writer, ids: Ids, left_in_store: Callable[[str], None]) -> None:
    """Name the handlers of this module's commands.

    Args:
        writer: Of the store.
        ids: For deliveries of events that the subscription never had.
        left_in_store: `Lanes.left_in_store`: told of the lane, once it is committed that it has something due.
    """

    async def advance(tx: Tx, commands: Sequence[AdvanceReplay]) -> list[bool | Exception]:
        return await handle_advances(tx, commands, ids, left_in_store)

    replay_claim_store.register(writer)
    writer.handle(StartReplay, handle_starts)
    writer.handle(CancelReplay, handle_cancels)
    writer.handle(AdvanceReplay, advance)
