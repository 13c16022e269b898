"""Reading deliveries and their attempts, as contract 3 shows them. Nothing crosses accounts: every query names one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from service.clock import iso
from service.db.reader import Reader
from service.db.transaction import Params, Row
from service.deliveries.classify import kept_and_cut
from service.deliveries.recorded import request_headers, url_of
from service.schemas.delivery_schemas import AttemptView, DeliveryView
from service.schemas.words import DELIVERY_STATUSES

SCAN: Final = 20_000  # deliveries that one page looks at: some twenty milliseconds
ATTEMPTS_SHOWN: Final = 100  # of one delivery: a schedule has a dozen, but retrying by hand has no end

_SHOWN: Final = """
SELECT d.id, d.event_id, d.type, d.job_id, d.subscription_id, coalesce(d.url, s.url) AS url, d.status, d.reason, d.attempt_count,
    d.due_at, d.created_at FROM deliveries d LEFT JOIN subscriptions s ON s.id = d.subscription_id
"""
_ATTEMPTS: Final = """
SELECT at, status_code, error, error_class, duration_ms, dns_ms, connect_ms, tls_ms, first_byte_ms, sent, response_body
FROM attempts WHERE delivery_id = :id ORDER BY id DESC LIMIT :limit
"""


_FEW: Final = frozenset({"job_id", "event_id"})  # only a few deliveries have one
# The index by status holds nothing else, and the planner has to be told.
_UNDELIVERED: Final = "status <> 'delivered'"


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """What a list of deliveries is narrowed to; None means everything. `before_id` is the cursor: only older ones."""

    status: tuple[str, ...] = ()
    subscription_id: str | None = None
    job_id: str | None = None
    event_id: str | None = None
    before_id: str | None = None


async def find_delivery(reader: Reader, account_id: str, delivery_id: str) -> DeliveryView | None:
    """One delivery of the account as it is shown, with its last attempts, oldest first."""
    row = await reader.row(
        f"{_SHOWN} WHERE d.id = :id AND d.account_id = :account", {"id": delivery_id, "account": account_id}
    )
    if row is None:
        return None
    attempts = await reader.rows(_ATTEMPTS, {"id": delivery_id, "limit": ATTEMPTS_SHOWN})
    shown = [_attempt_view(attempt, row["event_id"]) for attempt in reversed(attempts)]
    return _delivery_view(row) | {"attempts": shown}


async def newest_delivery(reader: Reader, account_id: str, subscription_id: str, event_id: str) -> str | None:
    """The id of a new event's delivery to one subscription."""
    row = await reader.row(
        "SELECT id FROM deliveries WHERE subscription_id = :subscription AND event_id = :event AND account_id = :account "
        "ORDER BY id DESC LIMIT 1",
        {"subscription": subscription_id, "event": event_id, "account": account_id},
    )
    return None if row is None else str(row["id"])


@dataclass(frozen=True, slots=True)
class ListedDeliveries:
    """Deliveries as they are shown, newest first, and the id behind which the next page begins; None at the end."""

    deliveries: list[DeliveryView]
    next_id: str | None


async def list_deliveries(
    reader: Reader, account_id: str, wanted: DeliveryFilter, limit: int, scan: int = SCAN
) -> ListedDeliveries:
    """The account's deliveries that pass, without their attempts; so many are looked at, at most."""
    edge: str | None = None
    if (asked := edge_query(account_id, wanted, scan)) is not None:
        row = await reader.row(*asked)
        edge = None if row is None else str(row["id"])
    rows = await reader.rows(*page_query(account_id, wanted, limit + 1, edge))
    shown = [_delivery_view(row) for row in rows[:limit]]
    return ListedDeliveries(shown, shown[-1]["id"] if len(rows) > limit else edge)


def page_query(account_id: str, wanted: DeliveryFilter, limit: int, edge: str | None = None) -> tuple[str, Params]:
    """The query of a page, down to the edge if there is one: each status walks its own part of an index, and the newest of all count."""
    params = _params(account_id, wanted)
    statuses = _statuses(wanted)
    down_to = "" if edge is None else " AND id >= :edge"
    walks = " UNION ALL ".join(f"SELECT id FROM ({_walk(params, status, down_to)})" for status in statuses)
    given = {**params, **_named(statuses), "limit": limit} | ({} if edge is None else {"edge": edge})
    return f"{_SHOWN} WHERE d.id IN ({walks}) ORDER BY d.id DESC LIMIT :limit", given


def edge_query(account_id: str, wanted: DeliveryFilter, scan: int) -> tuple[str, Params] | None:
    """The last id that a page looks at; no row where it comes to the end. None: all that it looks at is shown."""
    params, statuses = _params(account_id, wanted), _statuses(wanted)
    by = [_index_columns(params, status) for status in statuses]
    asked = [{*params, "status"} - {"before"} if status else {*params} - {"before"} for status in statuses]
    if _FEW & params.keys() or all(each <= used for each, used in zip(asked, by, strict=True)):
        return None
    walks = []
    for status, used in zip(statuses, by, strict=True):
        conditions = [f"{name} = :{name}" for name in params if name in used]
        if status is not None and "status" in used:
            conditions += [f"status = :{status}", _UNDELIVERED]
        if "before" in params:
            conditions.append("id < :before")
        walks.append(f"SELECT id FROM deliveries WHERE {' AND '.join(conditions)}")
    sql = f"{' UNION ALL '.join(walks)} ORDER BY id DESC LIMIT 1 OFFSET :scan - 1"
    return sql, {**params, **_named(statuses), "scan": scan}


def _params(account_id: str, wanted: DeliveryFilter) -> dict[str, Any]:
    given = {
        "account_id": account_id,
        "job_id": wanted.job_id,
        "event_id": wanted.event_id,
        "subscription_id": wanted.subscription_id,
        "before": wanted.before_id,
    }
    return {name: value for name, value in given.items() if value is not None}


def _statuses(wanted: DeliveryFilter) -> tuple[str | None, ...]:
    """Those with a walk of their own; one walk with None for all of them."""
    if not wanted.status or set(wanted.status) == set(DELIVERY_STATUSES):
        return (None,)
    return wanted.status


def _named(statuses: Iterable[str | None]) -> dict[str, str]:
    return {status: status for status in statuses if status is not None}


def _walk(params: Params, status: str | None, down_to: str) -> str:
    """The ids of one status, or of all, newest first, by the one index that is best.

    SQLite would often take another, since it knows no figures of the tables; a plus before a column keeps it from those
    that begin with it.
    """
    by = _index_columns(params, status)
    conditions = [f"{_column(name, by)} = :{name}" for name in params if name != "before"]
    if status is not None:
        conditions.append(f"{_column('status', by)} = :{status}")
    if "status" in by:
        conditions.append(_UNDELIVERED)
    if "before" in params:
        conditions.append("id < :before")
    order = "@without_index(id)" if _FEW & by else "id"
    return f"SELECT id FROM deliveries WHERE {' AND '.join(conditions)}{down_to} ORDER BY {order} DESC LIMIT :limit"


def _column(name: str, by: frozenset[str]) -> str:
    return name if name in by else f"@without_index({name})"


def _index_columns(params: Params, status: str | None) -> frozenset[str]:
    for column in _FEW & params.keys():
        return frozenset({column})
    if status is not None and status != "delivered":
        return frozenset({"account_id", "status"})
    return frozenset({"subscription_id" if "subscription_id" in params else "account_id"})


def _delivery_view(row: Row) -> DeliveryView:
    return {
        "id": row["id"],
        "event_id": row["event_id"],
        "type": row["type"],
        "job_id": row["job_id"],
        "subscription_id": row["subscription_id"],
        "url": row["url"],
        "status": row["status"],
        "reason": row["reason"],
        "attempt_count": row["attempt_count"],
        "next_attempt_at": iso(row["due_at"]),
        "created_at": iso(row["created_at"]),
    }


def _attempt_view(row: Row, event_id: str) -> AttemptView:
    body, cut = kept_and_cut(row["response_body"])
    return {
        "at": iso(row["at"]),
        "status_code": row["status_code"],
        "error": row["error"],
        "error_class": row["error_class"],
        "duration_ms": row["duration_ms"],
        "timing": {
            "dns_ms": row["dns_ms"],
            "connect_ms": row["connect_ms"],
            "tls_ms": row["tls_ms"],
            "first_byte_ms": row["first_byte_ms"],
        },
        "url": url_of(row["sent"]),
        "request_headers": request_headers(row["sent"], event_id, row["at"]),
        "response_body": body,
        "response_truncated": cut,
    }
