"""The route of usage: what the account's jobs were, cost and took, by day and whatever else is asked."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Any, Final

from litestar import Request, Response, get

from service.accounts.keys import Scope
from service.api.auth import needs
from service.api.context import context_of, principal_of
from service.api.query import Query, query_of, wrong
from service.api.responses import json_answer
from service.ids import is_id
from service.ledger.money import usd
from service.states import FINAL, JobStatus
from service.usage import store as usage_store
from service.usage.counting import DAY_MS, DIMENSIONS, OTHER, UsageQuery, UsageRow, cut_model, grouped

DEFAULT_DAYS: Final = 30  # of usage, where none are named
MAX_DAYS: Final = 366  # of usage in one answer
MAX_ROWS: Final = 10_000  # of usage in one answer
_FILTERS: Final = frozenset({"provider", "operation", "model", "status", "key", "tag"})
_KNOWN: Final = _FILTERS | {"from", "to", "group_by"}
_FINAL: Final = tuple(status.value for status in JobStatus if status in FINAL)
_EPOCH: Final = date(1970, 1, 1)
_LAST_DAY: Final = (date(9999, 12, 31) - _EPOCH).days


@get("/v1/usage", opt=needs(Scope.ACCOUNT))
async def get_usage(request: Request[Any, Any, Any]) -> Response[bytes]:
    """What the account used."""
    context, who = context_of(request), principal_of(request)
    query = query_of(request.scope, _KNOWN, repeatable=frozenset({"group_by", "status"}))
    wanted = _wanted(query, context.clock.now_ms() // DAY_MS)
    rows = grouped(await usage_store.usage(context.reader, who.account_id, wanted), wanted)
    if len(rows) > MAX_ROWS:
        raise wrong("group_by", f"gives {len(rows)} rows; ask for fewer days or group by less (at most {MAX_ROWS})")
    return json_answer({"data": [_view(row, wanted.group_by) for row in rows]})


def _wanted(query: Query, today: int) -> UsageQuery:
    last = _day(query, "to", today)
    first = _day(query, "from", max(0, last - DEFAULT_DAYS + 1))
    if first > last:
        raise wrong("from", "must not be after to")
    if last - first >= MAX_DAYS:
        raise wrong("from", f"must be at most {MAX_DAYS - 1} days before to")
    groups = query.many("group_by") if "group_by" in query.values else ("day", "provider")
    if not groups or any(name not in DIMENSIONS for name in groups):
        raise wrong("group_by", f"must be some of {', '.join(DIMENSIONS)}")
    statuses = query.many("status")
    if any(status not in _FINAL for status in statuses) or ("status" in query.values and not statuses):
        raise wrong("status", f"must be one or some of {', '.join(_FINAL)}: jobs are counted when they end")
    key, model = query.one("key"), query.one("model")
    if key is not None and key != OTHER and not is_id(key, "key"):
        raise wrong("key", "is no key's id; they look like key_0199…")
    return UsageQuery(
        first=first,
        last=last,
        group_by=tuple(dict.fromkeys(groups)),
        provider=query.one("provider"),
        operation=query.one("operation"),
        model=None if model is None else cut_model(model),
        key_id=key,
        tag=query.one("tag"),
        status=tuple(dict.fromkeys(statuses)),
    )


def _day(query: Query, name: str, default: int) -> int:
    text = query.one(name)
    if text is None:
        return default
    try:
        if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            raise ValueError(text)
        day = (date.fromisoformat(text) - _EPOCH).days
    except ValueError as error:
        raise wrong(name, "must be a day (UTC), such as 2026-11-21") from error
    if not 0 <= day <= _LAST_DAY:
        raise wrong(name, "must be a day from 1970-01-01 to 9999-12-31")
    return day


def _view(row: UsageRow, group_by: tuple[str, ...]) -> dict[str, Any]:
    group: dict[str, Any] = {name: part or None for name, part in zip(group_by, row.group, strict=True)}
    if "day" in group:
        group["day"] = datetime.fromtimestamp(int(group["day"] or 0) * 86_400, UTC).date().isoformat()
    p50_ms, p95_ms = row.durations.quantiles_ms(0.5, 0.95)
    return {
        **group,
        "jobs": sum(row.jobs.values()),
        **{status: row.jobs.get(status, 0) for status in _FINAL},
        "charged": usd(row.charged),
        "currency": "USD",
        "p50_s": _seconds(p50_ms),
        "p95_s": _seconds(p95_ms),
    }


def _seconds(duration_ms: float | None) -> float | None:
    return None if duration_ms is None else round(duration_ms / 1000, 3)


ROUTES = (get_usage,)
