"""The routes of subscriptions: standing destinations, their secrets, and a ping to try them."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, delete, get, patch, post
from litestar.params import FromPath

from service.accounts.keys import Scope
from service.api.auth import needs
from service.api.body import fields_of, json_body, optional_body
from service.api.context import Context, context_of, principal_of
from service.api.query import PAGING, page, query_of
from service.api.responses import json_answer
from service.deliveries.subscribing import queries
from service.deliveries.subscribing.changes import no_subscription
from service.deliveries.subscribing.subscribe import Subscribe
from service.deliveries.subscribing.subscription_request import parse_change, parse_disabling, parse_new, parse_rotation
from service.ids import is_id

_NOTHING: frozenset[str] = frozenset()


@post("/v1/subscriptions", opt=needs(Scope.SUBSCRIPTIONS))
async def create_subscription(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Make a standing destination (201); its secret is shown this once."""
    query_of(request.scope, _NOTHING)
    asked = parse_new(await json_body(request))
    made = await use_cases(context_of(request)).create(principal_of(request).account_id, asked)
    return json_answer(made, 201, {"Location": f"/v1/subscriptions/{made['id']}", "Cache-Control": "no-store"})


@get("/v1/subscriptions", opt=needs(Scope.SUBSCRIPTIONS))
async def list_subscriptions(request: Request[Any, Any, Any]) -> Response[bytes]:
    """A page of the account's subscriptions, newest first."""
    context, who = context_of(request), principal_of(request)
    query = query_of(request.scope, PAGING)
    limit, before_id = query.limit(), query.cursor_id("sub")
    found = await queries.list_subscriptions(
        context.reader,
        context.box,
        who.account_id,
        before_id=before_id,
        limit=limit + 1,
        now_ms=context.clock.now_ms(),
        standings=context.figures.standing,
    )
    return page(found, limit, lambda shown: shown, "sub", lambda shown: str(shown["id"]))


@get("/v1/subscriptions/{subscription_id:str}", opt=needs(Scope.SUBSCRIPTIONS))
async def get_subscription(request: Request[Any, Any, Any], subscription_id: FromPath[str]) -> Response[bytes]:
    """One subscription with its health."""
    query_of(request.scope, _NOTHING)
    _check_id(subscription_id)
    return json_answer(await use_cases(context_of(request)).show(principal_of(request).account_id, subscription_id))


@patch("/v1/subscriptions/{subscription_id:str}", opt=needs(Scope.SUBSCRIPTIONS))
async def change_subscription(request: Request[Any, Any, Any], subscription_id: FromPath[str]) -> Response[bytes]:
    """Change what the body names; what is sent from now on follows it."""
    _check_id(subscription_id)
    asked = parse_change(await json_body(request))
    changed = await use_cases(context_of(request)).update(principal_of(request).account_id, subscription_id, asked)
    return json_answer(changed)


@delete("/v1/subscriptions/{subscription_id:str}", status_code=204, opt=needs(Scope.SUBSCRIPTIONS))
async def delete_subscription(request: Request[Any, Any, Any], subscription_id: FromPath[str]) -> None:
    """Forget a subscription (204); its pending deliveries become `skipped`."""
    _check_id(subscription_id)
    await use_cases(context_of(request)).delete(principal_of(request).account_id, subscription_id)


@post("/v1/subscriptions/{subscription_id:str}/rotate-secret", opt=needs(Scope.SUBSCRIPTIONS))
async def rotate_subscription_secret(
    request: Request[Any, Any, Any], subscription_id: FromPath[str]
) -> Response[bytes]:
    """Replace the secret; the new one is shown this once, the old one co-signs for `grace_s` seconds."""
    _check_id(subscription_id)
    grace_s = parse_rotation(await optional_body(request))
    rotated = await use_cases(context_of(request)).rotate(principal_of(request).account_id, subscription_id, grace_s)
    return json_answer(rotated, headers={"Cache-Control": "no-store"})


@post("/v1/subscriptions/{subscription_id:str}/test", opt=needs(Scope.SUBSCRIPTIONS))
async def test_subscription(request: Request[Any, Any, Any], subscription_id: FromPath[str]) -> Response[bytes]:
    """Send a `ping` to this subscription alone (202); answered with its delivery."""
    _check_id(subscription_id)
    fields_of(await optional_body(request) or {}, _NOTHING)
    sent = await use_cases(context_of(request)).ping(principal_of(request).account_id, subscription_id)
    return json_answer(sent, 202, {"Location": f"/v1/deliveries/{sent['id']}"})


@post("/v1/subscriptions/{subscription_id:str}/enable", opt=needs(Scope.SUBSCRIPTIONS))
async def enable_subscription(request: Request[Any, Any, Any], subscription_id: FromPath[str]) -> Response[bytes]:
    """Let a disabled subscription have events again; what it missed stays `skipped`."""
    _check_id(subscription_id)
    fields_of(await optional_body(request) or {}, _NOTHING)
    return json_answer(await use_cases(context_of(request)).enable(principal_of(request).account_id, subscription_id))


@post("/v1/subscriptions/{subscription_id:str}/disable", opt=needs(Scope.SUBSCRIPTIONS))
async def disable_subscription(request: Request[Any, Any, Any], subscription_id: FromPath[str]) -> Response[bytes]:
    """Let it have no more events for now; what it misses is `skipped` and can be replayed."""
    _check_id(subscription_id)
    reason = parse_disabling(await optional_body(request))
    disabled = await use_cases(context_of(request)).disable(principal_of(request).account_id, subscription_id, reason)
    return json_answer(disabled)


def use_cases(context: Context) -> Subscribe:
    """The use cases over this application's store."""
    return Subscribe(
        context.writer,
        context.reader,
        context.egress,
        context.box,
        context.ids,
        context.randomness,
        context.clock,
        context.figures.standing,
    )


def _check_id(subscription_id: str) -> None:
    if not is_id(subscription_id, "sub"):
        raise no_subscription()


ROUTES = (
    create_subscription,
    list_subscriptions,
    get_subscription,
    change_subscription,
    delete_subscription,
    rotate_subscription_secret,
    test_subscription,
    enable_subscription,
    disable_subscription,
)
