"""The routes of replays: sending a range of events to one subscription again, and telling how far that is."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get, post
from litestar.params import FromPath

from service.api.answers.cursors import cursor_id, page
from service.api.answers.responses import json_answer
from service.api.context import context_of, principal_of
from service.api.requests.route import LOCATION, RouteAnswer, body_of, query_of, takes
from service.deliveries.replays import replay_queries
from service.deliveries.replays.replay import bounded
from service.deliveries.replays.replay_store import no_replay
from service.deliveries.subscribing.changes import no_subscription
from service.ids import is_id
from service.schemas.delivery_schemas import ReplayCountView, ReplayListQuery, ReplayPage, ReplayRequest, ReplayView
from service.schemas.query_model import NoQuery
from service.schemas.request_model import NoFields
from service.schemas.words import Scope


@post(
    "/v1/subscriptions/{subscription_id:str}/replay",
    opt=takes(
        Scope.SUBSCRIPTIONS,
        RouteAnswer(200, "The count of a dry run", ReplayCountView),
        RouteAnswer(202, "The replay, begun", ReplayView, (LOCATION,)),
        body=ReplayRequest,
    ),
)
async def replay_subscription(request: Request[Any, Any, Any], subscription_id: FromPath[str]) -> Response[bytes]:
    """Send a range of events again.

    In the background, with the same ids and bytes. What is pending is left alone, a `ping` is never repeated, and what
    retention removed is gone. Meant are the events of the account that pass the subscription's filters on jobs.
    """
    query_of(request, NoQuery)
    if not is_id(subscription_id, "sub"):
        raise no_subscription()
    context, who = context_of(request), principal_of(request)
    asked = bounded(await body_of(request, ReplayRequest), context.clock.now_ms())
    replays = context.replays
    if asked.dry_run:
        return json_answer(await replays.count(who.account_id, subscription_id, asked))
    begun = await replays.start(who.account_id, subscription_id, asked)
    return json_answer(begun, 202, {"Location": f"/v1/replays/{begun['id']}"})


@get(
    "/v1/replays",
    opt=takes(Scope.SUBSCRIPTIONS, RouteAnswer(200, "A page of replays", ReplayPage), query=ReplayListQuery),
)
async def list_replays(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Replays, newest first."""
    query = query_of(request, ReplayListQuery)
    found = await replay_queries.list_replays(
        context_of(request).reader,
        principal_of(request).account_id,
        subscription_id=query.subscription,
        before_id=cursor_id(query.cursor, "rpl"),
        limit=query.limit + 1,
    )
    return page(found, query.limit, lambda shown: shown, "rpl", lambda shown: str(shown["id"]))


@get("/v1/replays/{replay_id:str}", opt=takes(Scope.SUBSCRIPTIONS, RouteAnswer(200, "The replay", ReplayView)))
async def get_replay(request: Request[Any, Any, Any], replay_id: FromPath[str]) -> Response[bytes]:
    """One replay with its progress."""
    query_of(request, NoQuery)
    _check_id(replay_id)
    return json_answer(await context_of(request).replays.show(principal_of(request).account_id, replay_id))


@post(
    "/v1/replays/{replay_id:str}/cancel",
    opt=takes(Scope.SUBSCRIPTIONS, RouteAnswer(200, "The replay, cancelled", ReplayView)),
)
async def cancel_replay(request: Request[Any, Any, Any], replay_id: FromPath[str]) -> Response[bytes]:
    """End a replay early.

    What it queued is sent.
    """
    query_of(request, NoQuery)
    _check_id(replay_id)
    await body_of(request, NoFields)
    return json_answer(await context_of(request).replays.cancel(principal_of(request).account_id, replay_id))


def _check_id(replay_id: str) -> None:
    if not is_id(replay_id, "rpl"):
        raise no_replay()


ROUTES = (replay_subscription, list_replays, get_replay, cancel_replay)
