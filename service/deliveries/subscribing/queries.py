"""Reading subscriptions, as contract 3 shows them. Nothing crosses accounts: every query names one."""

from __future__ import annotations

from typing import Final

import msgspec

from service.clock import iso
from service.db.reader import Reader
from service.db.sealing import SecretBox
from service.db.transaction import Row
from service.deliveries.recorded import MASK
from service.deliveries.statistics.backlog_queries import COUNTED, WaitingDeliveries, waiting
from service.deliveries.statistics.figures import DestinationStanding, Standings
from service.schemas.subscription_schemas import SubscriptionHealthView, SubscriptionView
from service.signing import encode_public_key
from service.subscriptions.destinations import effective_events
from service.subscriptions.sealed import Pair, open_headers, open_keys

_SUBSCRIPTION: Final = """
SELECT id, url, description, events, providers, operations, tags, headers, rate_per_s, max_in_flight, schedule, signatures,
    stop_at_expiry, signing_key, previous_signing_key, previous_secret_until, status, disabled_reason, last_success_at,
    last_failure_at, failing_since, created_at FROM subscriptions
"""


async def find_subscription(
    reader: Reader, box: SecretBox, account_id: str, subscription_id: str, *, now_ms: int, standings: Standings
) -> SubscriptionView | None:
    """One subscription of the account as it is shown."""
    row = await reader.row(
        f"{_SUBSCRIPTION} WHERE id = :id AND account_id = :account", {"id": subscription_id, "account": account_id}
    )
    if row is None:
        return None
    waits = await waiting(reader, [subscription_id])
    return _subscription_view(
        row, box, _health(row, waits[subscription_id], standings(subscription_id), now_ms), now_ms
    )


async def list_subscriptions(
    reader: Reader,
    box: SecretBox,
    account_id: str,
    *,
    before_id: str | None,
    limit: int,
    now_ms: int,
    standings: Standings,
) -> list[SubscriptionView]:
    """The account's subscriptions as they are shown, newest first."""
    rows = await reader.rows(
        f"{_SUBSCRIPTION} WHERE account_id = :account AND id < coalesce(:before, '~') ORDER BY id DESC LIMIT :limit",
        {"account": account_id, "before": before_id, "limit": limit},
    )
    waits = await waiting(reader, [row["id"] for row in rows])
    return [
        _subscription_view(row, box, _health(row, waits[row["id"]], standings(row["id"]), now_ms), now_ms)
        for row in rows
    ]


def _subscription_view(row: Row, box: SecretBox, health: SubscriptionHealthView, now_ms: int) -> SubscriptionView:
    headers = open_headers(box.open, row["id"], row["headers"])
    signatures = msgspec.json.decode(row["signatures"], type=list[str])
    until = row["previous_secret_until"]
    seeds = Pair(row["signing_key"], row["previous_signing_key"], until).at(now_ms) if "v1a" in signatures else []
    keys = [encode_public_key(key) for key in open_keys(box.open, row["id"], seeds)]
    return {
        "id": row["id"],
        "url": row["url"],
        "description": row["description"],
        "events": effective_events(msgspec.json.decode(row["events"], type=list[str])),
        "providers": _raw(row["providers"]),
        "operations": _raw(row["operations"]),
        "tags": _raw(row["tags"]),
        "headers": dict.fromkeys(headers, MASK),
        "rate_per_s": row["rate_per_s"],
        "max_in_flight": row["max_in_flight"],
        "schedule": None if row["schedule"] is None else _raw(row["schedule"]),
        "signatures": _raw(row["signatures"]),
        "public_key": keys[0] if keys else None,
        "previous_public_key": keys[1] if len(keys) > 1 else None,
        "previous_secret_until": iso(until) if until is not None and until > now_ms else None,
        "stop_at_expiry": bool(row["stop_at_expiry"]),
        "status": row["status"],
        "disabled_reason": row["disabled_reason"],
        "health": health,
        "created_at": iso(row["created_at"]),
    }


def _health(row: Row, waits: WaitingDeliveries, standing: DestinationStanding, now_ms: int) -> SubscriptionHealthView:
    hour, breaker = standing.hour, standing.breaker
    return {
        "last_success_at": iso(row["last_success_at"]),
        "last_failure_at": iso(row["last_failure_at"]),
        "failing_since": iso(row["failing_since"]),
        "backlog": waits.pending,
        "backlog_capped": waits.pending == COUNTED,
        "oldest_due_at": iso(waits.overdue_since(now_ms)),
        "in_flight": standing.in_flight,
        "attempts_1h": hour.attempts,
        "success_rate_1h": hour.success_rate,
        "latency_ms": {"p50": hour.p50_ms, "p95": hour.p95_ms},
        "breaker": breaker.word,
        "next_probe_at": None if breaker.probe_in_s is None else iso(now_ms + round(breaker.probe_in_s * 1000)),
    }


def _raw(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())


async def failing_for(reader: Reader, span_ms: int, limit: int) -> list[tuple[str, str]]:
    """Enabled subscriptions with nothing but failures over so long a time: their accounts and ids.

    The last failure counts, not the time that went by: a destination that nobody wrote to since is not judged.
    """
    rows = await reader.rows(
        "SELECT account_id, id FROM subscriptions WHERE failing_since IS NOT NULL AND status = 'enabled' "
        "AND last_failure_at - failing_since >= :span LIMIT :limit",
        {"span": span_ms, "limit": limit},
    )
    return [(row["account_id"], row["id"]) for row in rows]
