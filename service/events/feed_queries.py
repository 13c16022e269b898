"""Reading the account's log of events in the order of `events.pos`; every query names the account.

A page is read by one statement, so that its events, the place up to which it looked and what retention removed are of one
moment: what is deleted a moment later cannot leave a hole that nobody hears of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from service.db.reader import Reader
from service.db.transaction import Row, json_set

SCAN_MAX: Final = 10_000  # events that one page with filters looks at: some ten milliseconds


@dataclass(frozen=True, slots=True)
class FeedFilter:
    """Filters; an empty one lets everything pass. Those on jobs leave out events that are about none."""

    types: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Edges:
    """Where the account's log begins and ends.

    Args:
        floor: The last position that retention removed, 0 for none.
        newest: The last position that is kept; it falls when the newest event is erased.
        top: The last position that anybody can have seen; it never falls.
    """

    floor: int
    newest: int
    top: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One event of the log; `body` is what is signed and sent."""

    pos: int
    id: str
    type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class FeedPage:
    """Events behind `after`, oldest first, and the position behind which the next page begins."""

    after: int
    entries: tuple[Entry, ...]
    position: int
    edges: Edges

    @property
    def is_last(self) -> bool:
        """Whether nothing lay behind this page when it was read."""
        return self.position >= self.edges.newest

    @property
    def is_lost(self) -> bool:
        """Whether events behind `after` may be missing: retention removed some, or the store is older than the position."""
        return not self.edges.floor <= self.after <= self.edges.top


_EDGES: Final = """
SELECT coalesce((SELECT feed_floor FROM accounts WHERE id = :account), 0) AS floor,
    coalesce((SELECT max(pos) FROM events WHERE account_id = :account AND pos IS NOT NULL), 0) AS newest,
    coalesce((SELECT feed_erased FROM accounts WHERE id = :account), 0) AS erased
"""
# Who has seen an event that has left the feed since goes on behind the place where it was.
_POSITION: Final = """
SELECT coalesce(pos, left_pos) AS pos FROM events
WHERE id = :id AND account_id = :account AND coalesce(pos, left_pos) IS NOT NULL
"""

# `edge` looks at the index alone. `near` finds what passes with its size (SQLite tells a blob's length without reading it),
# and only what fits into the page's bytes is read then, at least one.
_PAGE: Final = """
WITH edge AS MATERIALIZED (
    {edges}, {seen} AS seen
), near AS MATERIALIZED (
    SELECT pos, sum(size) OVER (ORDER BY pos) - size AS before FROM (
        SELECT e.pos, length(e.body) AS size FROM events e {index} {join}
        WHERE e.account_id = :account AND e.pos > :after AND e.pos <= (SELECT seen FROM edge) {conditions}
        ORDER BY e.pos LIMIT :limit)
)
SELECT edge.floor, edge.newest, edge.erased, edge.seen, found.pos, found.id, found.type, found.body FROM edge LEFT JOIN (
    SELECT e.pos, e.id, e.type, e.body FROM near JOIN events e ON e.pos = near.pos AND e.account_id = :account
    WHERE near.before < :max_bytes) found ON TRUE ORDER BY found.pos
"""
_SEEN: Final = """(SELECT max(pos) FROM (
        SELECT pos FROM events WHERE account_id = :account AND pos > :after ORDER BY pos LIMIT :scan))"""
# A job has few events, which are found by the job wherever they are.
_SEEN_BY_JOB: Final = "(SELECT max(pos) FROM events WHERE account_id = :account AND pos > :after)"
_BY_JOB: Final = "@by_index(ix_events_for_timeline)"
_JOBS: Final = "JOIN jobs j ON j.id = e.job_id"
_TAGGED: Final = "EXISTS (SELECT 1 FROM @set(j.tags) tag WHERE tag.value IN @set(:tags))"


async def read_edges(reader: Reader, account_id: str) -> Edges:
    """Where the account's log begins and ends now."""
    [row] = await reader.rows(_EDGES, {"account": account_id})
    return _edges(row)


def _edges(row: Row) -> Edges:
    newest = max(row["newest"], row["floor"])
    return Edges(row["floor"], newest, max(newest, row["erased"]))


async def plain_until(reader: Reader) -> int:
    """The last position that was given out when cursors still were numbers."""
    row = await reader.row("SELECT value FROM meta WHERE key = 'feed_plain_until'")
    return 0 if row is None else int(row["value"])


async def position_of(reader: Reader, account_id: str, event_id: str) -> int | None:
    """The position of an event of the account, also of one that has left the feed; none where nothing is known of it."""
    row = await reader.row(_POSITION, {"id": event_id, "account": account_id})
    return None if row is None else int(row["pos"])


async def read_page(
    reader: Reader, account_id: str, after: int, wanted: FeedFilter, *, limit: int, max_bytes: int, scan: int = SCAN_MAX
) -> FeedPage:
    """The next events that pass.

    Args:
        reader: Of the store.
        account_id: Whose events.
        after: The position behind which the page begins.
        wanted: The filters.
        limit: How many events the page has at most.
        max_bytes: How large their bodies are at most, all together; one event is taken whatever its size.
        scan: How many events are looked at, at most.
    """
    conditions = _conditions(wanted)
    sql = _PAGE.format(
        edges=_EDGES.strip(),
        seen=_SEEN_BY_JOB if wanted.jobs else _SEEN,
        index=_BY_JOB if wanted.jobs else "",
        join=_JOBS if any("j." in condition for condition, _ in conditions.values()) else "",
        conditions="".join(f" AND {condition}" for condition, _ in conditions.values()),
    )
    params = {name: value for name, (_, value) in conditions.items()}
    bounds = {"after": after, "limit": limit, "max_bytes": max_bytes, "scan": scan if conditions else limit}
    rows = await reader.rows(sql, {"account": account_id, **bounds, **params})
    entries = tuple(
        Entry(row["pos"], row["id"], row["type"], bytes(row["body"])) for row in rows if row["pos"] is not None
    )
    full = len(entries) >= limit or sum(len(entry.body) for entry in entries) >= max_bytes
    edges = _edges(rows[0])
    position = entries[-1].pos if full else rows[0]["seen"] or after
    return FeedPage(after, entries, max(position, edges.floor), edges)


def _conditions(wanted: FeedFilter) -> dict[str, tuple[str, Any]]:
    """By the name of the parameter: the condition, and the parameter's value."""
    given: Sequence[tuple[str, str, tuple[str, ...]]] = (
        ("types", "e.type IN @set(:types)", wanted.types),
        ("jobs", "e.job_id IN @set(:jobs)", wanted.jobs),
        ("providers", "j.provider IN @set(:providers)", wanted.providers),
        ("operations", "j.operation IN @set(:operations)", wanted.operations),
        ("tags", _TAGGED, wanted.tags),
    )
    return {name: (condition, json_set(values)) for name, condition, values in given if values}
