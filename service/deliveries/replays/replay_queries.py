"""Reading for replays: which events are meant, what became of them, and how far a replay is. Nothing here writes.

Looking is done here and not in the writer, in windows that keep a connection for milliseconds: with many subscriptions
an event has many deliveries. What was found is held against the store once more when it is queued.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from service.clock import iso
from service.db.reader import Reader
from service.db.transaction import Params, Row, json_set
from service.deliveries.statistics.backlog_queries import waiting
from service.schemas.delivery_schemas import ReplayView
from service.schemas.words import REPLAYABLE_TYPES, REPLAYED
from service.subscriptions.destinations import effective_events

WINDOW: Final = 2_000  # events of one look, at most
DELIVERIES: Final = 200_000  # that one look may meet: each event may have one for every subscription
COUNTED: Final = 20_000  # events of one look that only counts them
#: `at` grows with `pos`, but for steps of the clock: so far around the range every event is looked at by its own time.
CLOCK_STEP_MS: Final = 3_600_000

_ENDS: Final = """
SELECT (SELECT pos FROM events WHERE account_id = :account AND pos IS NOT NULL ORDER BY pos LIMIT 1) AS first,
    (SELECT pos FROM events WHERE account_id = :account AND pos IS NOT NULL ORDER BY pos DESC LIMIT 1) AS last
"""
_FROM: Final = "SELECT pos, at FROM events WHERE account_id = :account AND pos >= :pos ORDER BY pos LIMIT 1"
_WINDOW: Final = """
SELECT count(*) AS seen, max(pos) AS last, count(*) FILTER (WHERE at >= :since AND at < :until) AS inside FROM (
    SELECT pos, at FROM events WHERE account_id = :account AND pos >= :next AND pos <= :last ORDER BY pos LIMIT :window)
"""
# The same filters as `Destination.wants`: those on jobs leave events alone that are about none. The index is named
# since a subscription's own deliveries are the longer list.
_FOUND: Final = """
WITH matched AS MATERIALIZED (
    SELECT e.pos, e.id, e.type, e.job_id FROM events e LEFT JOIN jobs j ON j.id = e.job_id
    WHERE e.account_id = :account AND e.pos >= :next AND e.pos <= :last AND e.at >= :since AND e.at < :until
        AND e.type IN @set(:types)
        AND (e.job_id IS NULL OR (
            (:providers = '[]' OR j.provider IN @set(:providers))
            AND (:operations = '[]' OR j.operation IN @set(:operations))
            AND (:tags = '[]' OR EXISTS (SELECT 1 FROM @set(j.tags) tag WHERE tag.value IN @set(:tags)))
        ))
),
found AS (
    SELECT m.pos, m.id AS event_id, m.type, m.job_id, d.id AS delivery_id, coalesce(d.status, 'missing') AS status
    FROM matched m LEFT JOIN deliveries d @by_index(ix_deliveries_for_event)
        ON d.event_id = m.id AND d.subscription_id = :subscription)
"""
_CANDIDATES: Final = f"""{_FOUND}
SELECT * FROM found WHERE status IN @set(:statuses) ORDER BY pos LIMIT :most
"""
_BY_STATUS: Final = f"""{_FOUND}
SELECT status, count(*) AS n FROM found WHERE status IN @set(:statuses) GROUP BY status
"""
_SUBSCRIPTIONS: Final = "SELECT count(*) AS n FROM subscriptions WHERE account_id = :account"
_FILTERS: Final = """
SELECT id, account_id, status, events, providers, operations, tags FROM subscriptions WHERE id = :id AND account_id = :account
"""
_REPLAY: Final = """
SELECT id, subscription_id, status, reason, since, until, types, statuses, total, looked_at, queued, created_at, finished_at
FROM replays
"""


@dataclass(frozen=True, slots=True)
class ReplaySelection:
    """Which events of an account one subscription is to have again.

    Args:
        since: The first moment, ms UTC.
        until: The moment at which the range is over.
        types: Of events; `ping` is never among them.
        statuses: Some of `REPLAYED`.
        filters: The subscription's own on jobs, as JSON, by the names of its columns.
    """

    account_id: str
    subscription_id: str
    since: int
    until: int
    types: tuple[str, ...]
    statuses: tuple[str, ...]
    filters: Mapping[str, str]

    def params(self) -> Params:
        """As the queries here take it."""
        return {
            "account": self.account_id,
            "subscription": self.subscription_id,
            "since": self.since,
            "until": self.until,
            "types": json_set(self.types),
            "statuses": json_set(self.statuses),
            **self.filters,
        }


def wanted(
    subscription: Row, *, since: int, until: int, types: tuple[str, ...], statuses: tuple[str, ...], of: str = "id"
) -> ReplaySelection:
    """What a replay means, by its own fields and the subscription's row; no types: the subscription's own."""
    own = effective_events(msgspec.json.decode(subscription["events"], type=list[str]))
    return ReplaySelection(
        account_id=subscription["account_id"],
        subscription_id=subscription[of],
        since=since,
        until=until,
        types=tuple(each for each in types or own if each in REPLAYABLE_TYPES),
        statuses=statuses or REPLAYED,
        filters={name: subscription[name] for name in ("providers", "operations", "tags")},
    )


@dataclass(frozen=True, slots=True)
class Found:
    """An event that is to be sent again, and its delivery to this subscription, if there is one."""

    event_id: str
    type: str
    job_id: str | None
    delivery_id: str | None


@dataclass(frozen=True, slots=True)
class ReplayLook:
    """What one look found: the events to queue, how many events of the range were looked at, and where to go on."""

    found: tuple[Found, ...]
    looked_at: int
    next_pos: int


async def filters_of(reader: Reader, account_id: str, subscription_id: str) -> Row | None:
    """The account's subscription, as `wanted` takes it."""
    return await reader.row(_FILTERS, {"id": subscription_id, "account": account_id})


async def span(reader: Reader, account_id: str, since: int, until: int) -> tuple[int, int]:
    """The first and the last position in the feed between which the account's events of this range lie."""
    ends = await reader.row(_ENDS, {"account": account_id})
    if ends is None or ends["first"] is None:
        return 1, 0
    first, last = int(ends["first"]), int(ends["last"])
    low, _ = await _narrow(reader, account_id, since - CLOCK_STEP_MS, first, last + 1)
    _, high = await _narrow(reader, account_id, until + CLOCK_STEP_MS, first, last + 1)
    return low, high - 1


async def _narrow(reader: Reader, account_id: str, at: int, low: int, high: int) -> tuple[int, int]:
    """Between which positions the events reach this moment; near enough when a window holds what lies between."""
    while high - low > WINDOW:
        middle = (low + high) // 2
        row = await reader.row(_FROM, {"account": account_id, "pos": middle})
        if row is None or row["at"] >= at:
            high = middle
        else:
            low = row["pos"] + 1
    return low, high


async def total(reader: Reader, account_id: str, *, since: int, until: int, first_pos: int, last_pos: int) -> int:
    """How many events of the account lie in the range, whatever they are."""
    params = {"account": account_id, "since": since, "until": until, "last": last_pos, "window": COUNTED}
    inside = 0
    while first_pos <= last_pos:
        window = await reader.row(_WINDOW, {**params, "next": first_pos})
        if window is None or not window["seen"]:
            break
        inside += window["inside"]
        first_pos = window["last"] + 1
    return inside


async def count(reader: Reader, meant: ReplaySelection, first_pos: int, last_pos: int) -> Counter[str]:
    """How many events a replay would queue now, by what became of them here."""
    counted: Counter[str] = Counter()
    params = {**meant.params(), "window": await _affordable(reader, meant.account_id)}
    while first_pos <= last_pos:
        window = await reader.row(_WINDOW, {**params, "next": first_pos, "last": last_pos})
        if window is None or not window["seen"]:
            break
        found = await reader.rows(_BY_STATUS, {**params, "next": first_pos, "last": window["last"]})
        counted.update({row["status"]: row["n"] for row in found})
        first_pos = window["last"] + 1
    return counted


async def look(reader: Reader, meant: ReplaySelection, next_pos: int, last_pos: int, most: int) -> ReplayLook:
    """Look for what is to be queued next.

    Args:
        reader: Of the store.
        meant: Which events.
        next_pos: Where to begin.
        last_pos: Where the range ends.
        most: How many events may be found, at least one.
    """
    params = {**meant.params(), "window": await _affordable(reader, meant.account_id)}
    window = await reader.row(_WINDOW, {**params, "next": next_pos, "last": last_pos})
    if window is None or not window["seen"]:
        return ReplayLook((), 0, last_pos + 1)
    end = int(window["last"]) if window["seen"] == params["window"] else last_pos
    rows = await reader.rows(_CANDIDATES, {**params, "next": next_pos, "last": end, "most": most})
    if len(rows) == most and rows[-1]["pos"] < end:
        end = rows[-1]["pos"]
        window = await reader.row(_WINDOW, {**params, "next": next_pos, "last": end}) or window
    found = tuple(Found(row["event_id"], row["type"], row["job_id"], row["delivery_id"]) for row in rows)
    return ReplayLook(found, window["inside"], end + 1)


async def _affordable(reader: Reader, account_id: str) -> int:
    """How many events one look takes, so that it keeps its connection for a moment only."""
    row = await reader.row(_SUBSCRIPTIONS, {"account": account_id})
    return max(1, min(WINDOW, DELIVERIES // max(1, row["n"] if row is not None else 1)))


async def any_due(reader: Reader, now_ms: int) -> bool:
    """Whether a replay wants to go on."""
    row = await reader.row(
        "SELECT 1 FROM replays WHERE status = 'running' AND due_at <= :now LIMIT 1",
        {"now": now_ms},
    )
    return row is not None


async def find_replay(reader: Reader, account_id: str, replay_id: str) -> ReplayView | None:
    """One replay of the account as it is shown."""
    row = await reader.row(
        f"{_REPLAY} WHERE id = :id AND account_id = :account", {"id": replay_id, "account": account_id}
    )
    return None if row is None else (await _views(reader, [row]))[0]


async def list_replays(
    reader: Reader, account_id: str, *, subscription_id: str | None, before_id: str | None, limit: int
) -> list[ReplayView]:
    """The account's replays as they are shown, newest first."""
    of_subscription = "" if subscription_id is None else "AND subscription_id = :subscription "
    rows = await reader.rows(
        f"{_REPLAY} WHERE account_id = :account {of_subscription}"
        "AND id < coalesce(:before, '~') ORDER BY id DESC LIMIT :limit",
        {"account": account_id, "before": before_id, "subscription": subscription_id, "limit": limit},
    )
    return await _views(reader, rows)


async def _views(reader: Reader, rows: list[Row]) -> list[ReplayView]:
    waits = await waiting(reader, list({row["subscription_id"] for row in rows}))
    return [_view(row, waits[row["subscription_id"]].pending) for row in rows]


def _view(row: Row, backlog: int) -> ReplayView:
    statuses = msgspec.json.decode(row["statuses"], type=list[str])
    return {
        "id": row["id"],
        "subscription_id": row["subscription_id"],
        "status": row["status"],
        "reason": row["reason"],
        "since": iso(row["since"]),
        "until": iso(row["until"]),
        "types": msgspec.Raw(row["types"].encode()),
        "statuses": statuses or list(REPLAYED),
        "total": row["total"],
        "looked_at": row["looked_at"],
        "queued": row["queued"],
        "backlog": backlog,
        "created_at": iso(row["created_at"]),
        "finished_at": iso(row["finished_at"]),
    }
