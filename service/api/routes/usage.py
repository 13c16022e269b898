"""The route of usage: what the account's jobs were, cost and took, by day and whatever else is asked."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from litestar import Request, Response, get

from service.api.answers.responses import json_answer
from service.api.context import context_of, principal_of
from service.api.requests.route import RouteAnswer, query_of, takes
from service.money import usd
from service.schemas.account_schemas import UsageReport, UsageRequestQuery
from service.schemas.query_model import wrong
from service.schemas.words import FINAL_STATUSES, Scope
from service.usage import store as usage_store
from service.usage.counting import DAY_MS, UsageQuery, UsageRow, cut_model, grouped

DEFAULT_DAYS: Final = 30  # of usage, where none are named
MAX_DAYS: Final = 366  # of usage in one answer
MAX_ROWS: Final = 10_000  # of usage in one answer


@get(
    "/v1/usage",
    opt=takes(Scope.ACCOUNT, RouteAnswer(200, "A row for each group", UsageReport), query=UsageRequestQuery),
)
async def get_usage(request: Request[Any, Any, Any]) -> Response[bytes]:
    """What the account used, by day and whatever else is asked.

    Counts the jobs that ended, on the day (UTC) on which they ended; one that is corrected from `expired` moves to the day of
    its completion. Exact at once, and for as long as the account lives: neither erasing a job nor its retention changes it.
    `p50_s` and `p95_s` are the seconds from acceptance to the end, within 5 %, of the completed jobs; of all jobs of the row
    where `status` is grouped by or narrowed to. With `tag` grouped by, a job counts once for each of its tags. Of a day, the
    first 50 models, 100 keys and 100 tags are told apart; what comes after them is `other`.
    """
    context, who = context_of(request), principal_of(request)
    wanted = _wanted(query_of(request, UsageRequestQuery), context.clock.now_ms() // DAY_MS)
    rows = grouped(await usage_store.usage(context.reader, who.account_id, wanted), wanted)
    if len(rows) > MAX_ROWS:
        raise wrong("group_by", f"gives {len(rows)} rows; ask for fewer days or group by less (at most {MAX_ROWS})")
    return json_answer({"data": [_view(row, wanted.group_by) for row in rows]})


def _wanted(query: UsageRequestQuery, today: int) -> UsageQuery:
    last = today if query.last is None else query.last
    first = max(0, last - DEFAULT_DAYS + 1) if query.first is None else query.first
    if first > last:
        raise wrong("from", "must not be after to")
    if last - first >= MAX_DAYS:
        raise wrong("from", f"must be at most {MAX_DAYS - 1} days before to")
    return UsageQuery(
        first=first,
        last=last,
        group_by=query.group_by,
        provider=query.provider,
        operation=query.operation,
        model=None if query.model is None else cut_model(query.model),
        key_id=query.key,
        tag=query.tag,
        status=query.status or (),
    )


def _view(row: UsageRow, group_by: tuple[str, ...]) -> dict[str, Any]:
    group: dict[str, Any] = {name: part or None for name, part in zip(group_by, row.group, strict=True)}
    if "day" in group:
        group["day"] = datetime.fromtimestamp(int(group["day"] or 0) * 86_400, UTC).date().isoformat()
    p50_ms, p95_ms = row.durations.quantiles_ms(0.5, 0.95)
    return {
        **group,
        "jobs": sum(row.jobs.values()),
        **{status: row.jobs.get(status, 0) for status in FINAL_STATUSES},
        "charged": usd(row.charged),
        "currency": "USD",
        "p50_s": _seconds(p50_ms),
        "p95_s": _seconds(p95_ms),
    }


def _seconds(duration_ms: float | None) -> float | None:
    return None if duration_ms is None else round(duration_ms / 1000, 3)


ROUTES = (get_usage,)
