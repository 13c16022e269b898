"""The SQL that writes deliveries, attempts and lanes. Nothing outside this package uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from service.db.leases import RELEASED, STILL_HELD, VOID
from service.db.transaction import Params, Row, Tx, json_set
from service.db.writer import Command, Writer
from service.errors import UNTIMED, Conflict, NotFound, Timing

KEPT_RESPONSE_BYTES = 16 * 1024  # of a destination's answer

_INSERT = """
INSERT INTO deliveries (id, event_id, account_id, job_id, type, subscription_id, lane, url, status, attempt_count,
    schedule_base, reason, created_at, give_up_at, due_at, finished_at, lease_owner, lease_until, lease_epoch)
@rows(:id, :event_id, :account_id, :job_id, :type, :subscription_id, :lane, :url, :status, 0, 0, :reason, :created_at,
    :give_up_at, :due_at, :finished_at, :lease_owner, :lease_until, :lease_epoch)
"""
_WAKE_LANE = """
INSERT INTO lanes (id, account_id, next_due_at) @rows(:lane, :account_id, :due_at)
ON CONFLICT (id) DO UPDATE SET
    next_due_at = @greatest(@least(coalesce(lanes.next_due_at, excluded.next_due_at), excluded.next_due_at),
        coalesce(lanes.rests_until, 0))
"""
_REST = "UPDATE lanes SET next_due_at = :until, rests_until = :until WHERE id = :lane"
_NEXT_OF_LANE = """
UPDATE lanes SET next_due_at = (
    SELECT due_at FROM deliveries WHERE lane = :lane AND status = 'pending' AND lease_owner IS NULL ORDER BY due_at LIMIT 1),
    rests_until = NULL
WHERE id = :lane
"""
_REMOVE_LANE = "DELETE FROM lanes WHERE id = :lane AND next_due_at IS NULL"
# The ids that begin with that of an origin and a slash, by which the primary key is in order; the slash's successor ends them.
_LANES_BELOW = "SELECT id, :origin AS origin FROM lanes WHERE id >= :origin || '/' AND id < :origin || '0' LIMIT :most"
# While the request was out its delivery may have gone (nothing is recorded then) or been erased (an answer may repeat what
# was sent, so that it is not kept). Joining costs 0.8 µs an attempt; without it one that has gone would fail the whole batch.
_INSERT_ATTEMPT = """
INSERT INTO attempts (delivery_id, at, status_code, error, error_class, duration_ms, dns_ms, connect_ms, tls_ms,
    first_byte_ms, sent, response_body)
SELECT d.id, v.at, v.status_code, v.error, v.error_class, v.duration_ms, v.dns_ms, v.connect_ms, v.tls_ms, v.first_byte_ms,
    v.sent, CASE WHEN d.reason = 'erased' THEN NULL ELSE v.response_body END
FROM @given(id text = :id, at bigint = :at, status_code bigint = :status_code, error text = :error,
    error_class text = :error_class, duration_ms bigint = :duration_ms, dns_ms bigint = :dns_ms,
    connect_ms bigint = :connect_ms, tls_ms bigint = :tls_ms, first_byte_ms bigint = :first_byte_ms, sent text = :sent,
    response_body text = :response_body) v JOIN deliveries d ON d.id = v.id
"""
# That it arrived is a fact, even if the lease was lost meanwhile. What was erased stays `skipped`:
# nothing of it can be shown or sent again, and its attempts tell what was out before.
_DELIVERED = f"""
UPDATE deliveries SET status = 'delivered', attempt_count = attempt_count + 1, finished_at = :now, due_at = NULL,
    reason = NULL, {RELEASED}
WHERE id IN @set(:ids) AND status <> 'delivered' AND (reason IS NULL OR reason <> 'erased')
"""
# That it did not arrive counts only from the holder of the lease.
_FAILED = f"""
UPDATE deliveries SET status = :status, attempt_count = attempt_count + 1, schedule_base = schedule_base + :uncounted,
    attempted_at = :attempted_at, finished_at = :finished_at, due_at = :due_at, reason = :reason, lane = :lane,
    {RELEASED}
WHERE id = :id AND status = 'pending' AND {STILL_HELD}
"""
_HEALTHY = "UPDATE subscriptions SET last_success_at = :now, failing_since = NULL WHERE id = :id"
_FAILING = """
UPDATE subscriptions SET failing_since = coalesce(failing_since, :now), last_failure_at = :now
WHERE id = :id AND (url = :url OR :url IS NULL)
"""


def insert(tx: Tx, rows: Sequence[Params]) -> None:
    """Write new deliveries."""
    tx.write(_INSERT, rows, expect=len(rows))


def wake_lanes(tx: Tx, rows: Sequence[Params]) -> None:
    """Say that lanes have something due that nobody holds."""
    tx.write(_WAKE_LANE, rows)


def rest_lanes(tx: Tx, rows: Sequence[Params]) -> None:
    """Say that nothing of these lanes is sent before `until` (ms UTC); `settle_lanes` ends the rest."""
    tx.write(_REST, rows)


def settle_lanes(tx: Tx, lane_ids: Iterable[str]) -> None:
    """Note when lanes have something due next that nobody holds; those that have nothing are removed."""
    rows = [{"lane": each} for each in lane_ids]
    tx.write(_NEXT_OF_LANE, rows)
    tx.write(_REMOVE_LANE, rows)


async def lanes_below(tx: Tx, origins: Sequence[str], most: int) -> Mapping[str, set[str]]:
    """The lanes of paths in which something waits that nobody holds, by the lanes of their origins, up to so many of each."""
    found: dict[str, set[str]] = {each: set() for each in origins}
    for row in await tx.rows_each(_LANES_BELOW, [{"origin": each, "most": most} for each in origins]):
        found[row["origin"]].add(row["id"])
    return found


@dataclass(frozen=True, slots=True)
class RecordAttempt(Command[None]):
    """Record one request of a delivery.

    Args:
        lane: In which it waits for its next attempt.
        delivered: A 2xx came back.
        due_at: When to try again; None with `delivered` False means that there is no further try.
        counted: It is one of the schedule's; a try ahead of time is not.
        reason: Why there is no further try, in a word.
        error_class: What went wrong, in a word.
        sent: What went along, without values; see `recorded.described`.
        url: Where it went; that it failed is held against a subscription only while that is its address.
    """

    delivery_id: str
    account_id: str
    lane: str
    subscription_id: str | None
    epoch: int
    at: int
    delivered: bool
    due_at: int | None
    status_code: int | None
    error: str | None
    duration_ms: int
    response_body: str | None
    counted: bool = True
    reason: str | None = None
    error_class: str | None = None
    timing: Timing = UNTIMED
    sent: str | None = None
    url: str | None = None


async def handle_attempts(tx: Tx, commands: Sequence[RecordAttempt]) -> list[Exception | None]:
    """The writer's handler for `RecordAttempt`: writes only, nothing needs to be read first.

    A delivery that was removed meanwhile has nothing to be recorded for.
    """
    tx.write(_INSERT_ATTEMPT, [_attempt(command) for command in commands])
    delivered = [command.delivery_id for command in commands if command.delivered]
    tx.write(_DELIVERED, [{"ids": json_set(delivered), "now": tx.now_ms}] if delivered else [])
    failed = [command for command in commands if not command.delivered]
    tx.write(_FAILED, [_failure(command, tx.now_ms) for command in failed])
    wake = {
        command.lane: {"lane": command.lane, "account_id": command.account_id, "due_at": command.due_at}
        for command in sorted(failed, key=lambda command: -(command.due_at or 0))
        if command.due_at is not None
    }
    tx.write(_WAKE_LANE, list(wake.values()))
    healthy = {command.subscription_id for command in commands if command.delivered and command.subscription_id}
    blamed = {(each.subscription_id, each.url) for each in failed if each.subscription_id}
    tx.write(_HEALTHY, [{"id": each, "now": tx.now_ms} for each in healthy])
    tx.write(_FAILING, [{"id": each, "url": url, "now": tx.now_ms} for each, url in blamed if each not in healthy])
    return [None for _ in commands]


def _attempt(command: RecordAttempt) -> Params:
    timing = command.timing
    return {
        "id": command.delivery_id,
        "at": command.at,
        "status_code": command.status_code,
        "error": command.error,
        "error_class": command.error_class,
        "duration_ms": command.duration_ms,
        "dns_ms": timing.dns_ms,
        "connect_ms": timing.connect_ms,
        "tls_ms": timing.tls_ms,
        "first_byte_ms": timing.first_byte_ms,
        "sent": command.sent,
        "response_body": command.response_body,
    }


def _failure(command: RecordAttempt, now_ms: int) -> Params:
    dead = command.due_at is None
    return {
        "id": command.delivery_id,
        "epoch": command.epoch,
        "status": "dead" if dead else "pending",
        "uncounted": 0 if command.counted else 1,
        "attempted_at": command.at,
        "finished_at": now_ms if dead else None,
        "due_at": command.due_at,
        "reason": command.reason if dead else None,
        "lane": command.lane,
    }


@dataclass(frozen=True, slots=True)
class RetryDelivery(Command[None]):
    """Send a delivery again now, in any state; its schedule begins anew. NotFound for another account's."""

    delivery_id: str
    account_id: str


async def handle_retries(
    tx: Tx, commands: Sequence[RetryDelivery], try_now: Callable[[str, str], None]
) -> list[Exception | None]:
    """The writer's handler for `RetryDelivery`."""
    found = await tx.rows(
        "SELECT d.id, d.account_id, d.lane, d.subscription_id, s.status AS subscription, e.body IS NULL AS erased "
        "FROM deliveries d JOIN events e ON e.id = d.event_id LEFT JOIN subscriptions s ON s.id = d.subscription_id WHERE d.id IN @set(:ids)",
        {"ids": json_set(command.delivery_id for command in commands)},
    )
    known = {(row["id"], row["account_id"]): row for row in found}
    answers: list[Exception | None] = []
    again: list[Params] = []
    for command in commands:
        row = known.get((command.delivery_id, command.account_id))
        refused = _why_not_again(row)
        answers.append(refused)
        if row is not None and refused is None:
            again.append({"id": row["id"], "lane": row["lane"], "account_id": row["account_id"], "due_at": tx.now_ms})
    tx.write(
        "UPDATE deliveries SET status = 'pending', due_at = :due_at, finished_at = NULL, schedule_base = attempt_count, "
        f"retried_at = :due_at, give_up_at = NULL, reason = NULL, {VOID} WHERE id = :id",
        [{"id": row["id"], "due_at": row["due_at"]} for row in again],
    )
    tx.write(_WAKE_LANE, [{name: row[name] for name in ("lane", "account_id", "due_at")} for row in again])
    for row in again:
        tx.after_commit(partial(try_now, row["lane"], row["id"]))
    return answers


def _why_not_again(row: Row | None) -> Exception | None:
    if row is None:
        return NotFound("there is no such delivery")
    if row["erased"]:
        return Conflict("the event was erased together with its job; there is nothing left to send", code="erased")
    # Asked here and not only by the caller: a subscription that goes in between would leave the delivery pending for ever.
    if row["subscription_id"] is not None and row["subscription"] != "enabled":
        return Conflict(
            "the delivery's subscription is disabled or deleted; enable it first", code="subscription_disabled"
        )
    return None


def register(writer: Writer, try_now: Callable[[str, str], None] = lambda _lane, _delivery: None) -> None:
    """Name the handlers of this module's commands.

    Args:
        writer: Of the store.
        try_now: Told, once it is committed, of a delivery that is to be sent now, and of its lane.
    """

    async def retry(tx: Tx, commands: Sequence[RetryDelivery]) -> list[Exception | None]:
        return await handle_retries(tx, commands, try_now)

    writer.handle(RecordAttempt, handle_attempts)
    writer.handle(RetryDelivery, retry)
