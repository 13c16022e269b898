"""The routes of deliveries: what was sent where, how it went, and sending it again."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get, post
from litestar.params import FromPath

from service.api.answers.cursors import cursor_id, next_cursor
from service.api.answers.responses import json_answer
from service.api.context import context_of, principal_of
from service.api.requests.route import RouteAnswer, body_of, query_of, takes
from service.deliveries import delivery_queries
from service.deliveries.subscribing.subscribe import no_delivery
from service.ids import is_id
from service.schemas.delivery_schemas import DeliveryListQuery, DeliveryPage, DeliveryView
from service.schemas.query_model import NoQuery
from service.schemas.request_model import NoFields
from service.schemas.words import Scope


@get(
    "/v1/deliveries",
    opt=takes(
        Scope.DELIVERIES,
        RouteAnswer(200, "A page of deliveries, without their attempts", DeliveryPage),
        query=DeliveryListQuery,
    ),
)
async def list_deliveries(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Deliveries, newest first.

    A page looks at 20,000 deliveries, and may have fewer than `limit`, or none, although more follow: only without a
    `next_cursor` there are no more.
    """
    context, who = context_of(request), principal_of(request)
    query = query_of(request, DeliveryListQuery)
    found = await delivery_queries.list_deliveries(context.reader, who.account_id, _filter(query), query.limit)
    return json_answer({"data": found.deliveries, "next_cursor": next_cursor("dlv", found.next_id)})


@get("/v1/deliveries/{delivery_id:str}", opt=takes(Scope.DELIVERIES, RouteAnswer(200, "The delivery", DeliveryView)))
async def get_delivery(request: Request[Any, Any, Any], delivery_id: FromPath[str]) -> Response[bytes]:
    """One delivery with its last hundred attempts, oldest first."""
    query_of(request, NoQuery)
    _check_id(delivery_id)
    found = await context_of(request).subscriptions.show_delivery(principal_of(request).account_id, delivery_id)
    return json_answer(found)


@post(
    "/v1/deliveries/{delivery_id:str}/retry",
    opt=takes(Scope.DELIVERIES, RouteAnswer(202, "The delivery", DeliveryView)),
)
async def retry_delivery(request: Request[Any, Any, Any], delivery_id: FromPath[str]) -> Response[bytes]:
    """Send it again now.

    Whatever became of it; its schedule begins anew.
    """
    _check_id(delivery_id)
    await body_of(request, NoFields)
    again = await context_of(request).subscriptions.retry(principal_of(request).account_id, delivery_id)
    return json_answer(again, 202)


def _filter(query: DeliveryListQuery) -> delivery_queries.DeliveryFilter:
    return delivery_queries.DeliveryFilter(
        status=query.status or (),
        subscription_id=query.subscription,
        job_id=query.job,
        event_id=query.event,
        before_id=cursor_id(query.cursor, "dlv"),
    )


def _check_id(delivery_id: str) -> None:
    if not is_id(delivery_id, "dlv"):
        raise no_delivery()


ROUTES = (list_deliveries, get_delivery, retry_delivery)
