"""The routes of replays: sending a range of events to one subscription again, and telling how far that is."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get, post
from litestar.params import FromPath

from service.accounts.keys import Scope
from service.api.auth import needs
from service.api.body import fields_of, json_body, optional_body
from service.api.context import Context, context_of, principal_of
from service.api.query import PAGING, page, query_of, wrong
from service.api.responses import json_answer
from service.deliveries.replays import replay_queries
from service.deliveries.replays.replay import Replays, parse_replay
from service.deliveries.replays.replay_store import no_replay
from service.deliveries.subscribing.changes import no_subscription
from service.ids import is_id

_NOTHING: frozenset[str] = frozenset()


@post("/v1/subscriptions/{subscription_id:str}/replay", opt=needs(Scope.SUBSCRIPTIONS))
async def replay_subscription(request: Request[Any, Any, Any], subscription_id: FromPath[str]) -> Response[bytes]:
    """Begin to send a range of events again (202), or with `dry_run` only count them (200)."""
    query_of(request.scope, _NOTHING)
    if not is_id(subscription_id, "sub"):
        raise no_subscription()
    context, who = context_of(request), principal_of(request)
    asked = parse_replay(await json_body(request), context.clock.now_ms())
    replays = _use_cases(context)
    if asked.dry_run:
        return json_answer(await replays.count(who.account_id, subscription_id, asked))
    begun = await replays.start(who.account_id, subscription_id, asked)
    return json_answer(begun, 202, {"Location": f"/v1/replays/{begun['id']}"})


@get("/v1/replays", opt=needs(Scope.SUBSCRIPTIONS))
async def list_replays(request: Request[Any, Any, Any]) -> Response[bytes]:
    """A page of the account's replays, newest first."""
    query = query_of(request.scope, PAGING | {"subscription"})
    limit, subscription_id = query.limit(), query.one("subscription")
    if subscription_id is not None and not is_id(subscription_id, "sub"):
        raise wrong("subscription", "must be an id that begins with sub_")
    found = await replay_queries.list_replays(
        context_of(request).reader,
        principal_of(request).account_id,
        subscription_id=subscription_id,
        before_id=query.cursor_id("rpl"),
        limit=limit + 1,
    )
    return page(found, limit, lambda shown: shown, "rpl", lambda shown: str(shown["id"]))


@get("/v1/replays/{replay_id:str}", opt=needs(Scope.SUBSCRIPTIONS))
async def get_replay(request: Request[Any, Any, Any], replay_id: FromPath[str]) -> Response[bytes]:
    """One replay with its progress."""
    query_of(request.scope, _NOTHING)
    _check_id(replay_id)
    return json_answer(await _use_cases(context_of(request)).show(principal_of(request).account_id, replay_id))


@post("/v1/replays/{replay_id:str}/cancel", opt=needs(Scope.SUBSCRIPTIONS))
async def cancel_replay(request: Request[Any, Any, Any], replay_id: FromPath[str]) -> Response[bytes]:
    """End a replay early; what it queued is sent."""
    query_of(request.scope, _NOTHING)
    _check_id(replay_id)
    fields_of(await optional_body(request) or {}, _NOTHING)
    return json_answer(await _use_cases(context_of(request)).cancel(principal_of(request).account_id, replay_id))


def _use_cases(context: Context) -> Replays:
    return Replays(context.writer, context.reader, context.ids, context.clock)


def _check_id(replay_id: str) -> None:
    if not is_id(replay_id, "rpl"):
        raise no_replay()


ROUTES = (replay_subscription, list_replays, get_replay, cancel_replay)
