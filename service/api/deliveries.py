"""The routes of deliveries: what was sent where, how it went, and sending it again."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get, post
from litestar.params import FromPath

from service.accounts.keys import Scope
from service.api.auth import needs
from service.api.body import fields_of, optional_body
from service.api.context import context_of, principal_of
from service.api.query import PAGING, Query, next_cursor, query_of, wrong
from service.api.responses import json_answer
from service.api.subscriptions import use_cases
from service.deliveries import delivery_queries
from service.deliveries.subscribing.subscribe import no_delivery
from service.ids import Prefix, is_id

_FILTERS = frozenset({"status", "subscription", "job", "event"})
_NOTHING: frozenset[str] = frozenset()


@get("/v1/deliveries", opt=needs(Scope.DELIVERIES))
async def list_deliveries(request: Request[Any, Any, Any]) -> Response[bytes]:
    """A page of the account's deliveries, newest first, without their attempts."""
    context, who = context_of(request), principal_of(request)
    query = query_of(request.scope, _FILTERS | PAGING, repeatable=frozenset({"status"}))
    found = await delivery_queries.list_deliveries(context.reader, who.account_id, _filter(query), query.limit())
    return json_answer({"data": found.deliveries, "next_cursor": next_cursor("dlv", found.next_id)})


@get("/v1/deliveries/{delivery_id:str}", opt=needs(Scope.DELIVERIES))
async def get_delivery(request: Request[Any, Any, Any], delivery_id: FromPath[str]) -> Response[bytes]:
    """One delivery with its last attempts, oldest first."""
    query_of(request.scope, _NOTHING)
    _check_id(delivery_id)
    found = await use_cases(context_of(request)).show_delivery(principal_of(request).account_id, delivery_id)
    return json_answer(found)


@post("/v1/deliveries/{delivery_id:str}/retry", opt=needs(Scope.DELIVERIES))
async def retry_delivery(request: Request[Any, Any, Any], delivery_id: FromPath[str]) -> Response[bytes]:
    """Send it again now, in any state (202); its schedule begins anew."""
    _check_id(delivery_id)
    fields_of(await optional_body(request) or {}, _NOTHING)
    again = await use_cases(context_of(request)).retry(principal_of(request).account_id, delivery_id)
    return json_answer(again, 202)


def _filter(query: Query) -> delivery_queries.DeliveryFilter:
    statuses = query.many("status")
    if any(each not in delivery_queries.DELIVERY_STATUSES for each in statuses) or (
        "status" in query.values and not statuses
    ):
        raise wrong("status", f"must be one or some of {', '.join(delivery_queries.DELIVERY_STATUSES)}")
    return delivery_queries.DeliveryFilter(
        status=tuple(dict.fromkeys(statuses)),
        subscription_id=_id(query, "subscription", "sub"),
        job_id=_id(query, "job", "job"),
        event_id=_id(query, "event", "evt"),
        before_id=query.cursor_id("dlv"),
    )


def _id(query: Query, name: str, prefix: Prefix) -> str | None:
    value = query.one(name)
    if value is not None and not is_id(value, prefix):
        raise wrong(name, f"must be an id that begins with {prefix}_")
    return value


def _check_id(delivery_id: str) -> None:
    if not is_id(delivery_id, "dlv"):
        raise no_delivery()


ROUTES = (list_deliveries, get_delivery, retry_delivery)
