"""The routes of subscriptions: standing destinations of events, and their health."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, delete, get, patch, post
from litestar.params import FromPath

from service.api.answers.cursors import cursor_id, page
from service.api.answers.responses import json_answer
from service.api.context import context_of, principal_of
from service.api.requests.route import LOCATION, RouteAnswer, body_of, query_of, takes
from service.deliveries.subscribing.changes import no_subscription
from service.ids import is_id
from service.schemas.delivery_schemas import DeliveryView
from service.schemas.query_model import NoQuery, PageQuery
from service.schemas.request_model import NoFields
from service.schemas.subscription_schemas import (
    ChangedSubscriptionView,
    DisableRequest,
    RotateSecretRequest,
    SubscriptionChangeRequest,
    SubscriptionPage,
    SubscriptionRequest,
    SubscriptionView,
    SubscriptionWithSecretView,
)
from service.schemas.words import Scope


@post(
    "/v1/subscriptions",
    opt=takes(
        Scope.SUBSCRIPTIONS,
        RouteAnswer(201, "The subscription; its secret is shown here only", SubscriptionWithSecretView, (LOCATION,)),
        body=SubscriptionRequest,
    ),
)
async def create_subscription(request: Request[Any, Any, Any]) -> Response[bytes]:
    """A new standing destination.

    409 `too_many_subscriptions` where the account has `REMORA_MAX_SUBSCRIPTIONS`.
    """
    query_of(request, NoQuery)
    asked = await body_of(request, SubscriptionRequest)
    made = await context_of(request).subscriptions.create(principal_of(request).account_id, asked)
    headers = {"Location": f"/v1/subscriptions/{made['id']}", "Cache-Control": "no-store"}
    return json_answer(made, 201, headers)


@get(
    "/v1/subscriptions",
    opt=takes(Scope.SUBSCRIPTIONS, RouteAnswer(200, "A page of subscriptions", SubscriptionPage), query=PageQuery),
)
async def list_subscriptions(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Standing destinations, newest first."""
    query, subscriptions = query_of(request, PageQuery), context_of(request).subscriptions
    before_id = cursor_id(query.cursor, "sub")
    found = await subscriptions.page(principal_of(request).account_id, before_id, query.limit + 1)
    return page(found, query.limit, lambda shown: shown, "sub", lambda shown: str(shown["id"]))


@get(
    "/v1/subscriptions/{subscription_id:str}",
    opt=takes(Scope.SUBSCRIPTIONS, RouteAnswer(200, "The subscription", SubscriptionView)),
)
async def get_subscription(request: Request[Any, Any, Any], subscription_id: FromPath[str]) -> Response[bytes]:
    """One standing destination with its health."""
    query_of(request, NoQuery)
    _check_id(subscription_id)
    return json_answer(await context_of(request).subscriptions.show(principal_of(request).account_id, subscription_id))


@patch(
    "/v1/subscriptions/{subscription_id:str}",
    opt=takes(
        Scope.SUBSCRIPTIONS,
        RouteAnswer(200, "The subscription", ChangedSubscriptionView),
        body=SubscriptionChangeRequest,
    ),
)
async def change_subscription(request: Request[Any, Any, Any], subscription_id: FromPath[str]) -> Response[bytes]:
    """Change what the body names.

    A new `url` with another origin (scheme, host and port) drops `headers`, since they may hold what only the old one may
    know, unless the same body gives them anew.
    """
    _check_id(subscription_id)
    asked = await body_of(request, SubscriptionChangeRequest)
    changed = await context_of(request).subscriptions.update(principal_of(request).account_id, subscription_id, asked)
    return json_answer(changed)


@delete(
    "/v1/subscriptions/{subscription_id:str}", opt=takes(Scope.SUBSCRIPTIONS, RouteAnswer(204, "Gone")), status_code=204
)
async def delete_subscription(request: Request[Any, Any, Any], subscription_id: FromPath[str]) -> None:
    """Forget a standing destination.

    What is still to be sent to it is kept as `skipped`.
    """
    _check_id(subscription_id)
    await context_of(request).subscriptions.delete(principal_of(request).account_id, subscription_id)


@post(
    "/v1/subscriptions/{subscription_id:str}/rotate-secret",
    opt=takes(
        Scope.SUBSCRIPTIONS,
        RouteAnswer(200, "The subscription with its new secret", SubscriptionWithSecretView),
        body=RotateSecretRequest,
    ),
)
async def rotate_subscription_secret(
    request: Request[Any, Any, Any], subscription_id: FromPath[str]
) -> Response[bytes]:
    """A new signing secret, shown once.

    Where `v1a` was asked for, its key is replaced with the secret. The old ones co-sign for the grace.
    """
    _check_id(subscription_id)
    asked = await body_of(request, RotateSecretRequest)
    account_id = principal_of(request).account_id
    rotated = await context_of(request).subscriptions.rotate(account_id, subscription_id, asked.grace_s)
    return json_answer(rotated, headers={"Cache-Control": "no-store"})


@post(
    "/v1/subscriptions/{subscription_id:str}/test",
    opt=takes(Scope.SUBSCRIPTIONS, RouteAnswer(202, "The ping's delivery", DeliveryView, (LOCATION,))),
)
async def test_subscription(request: Request[Any, Any, Any], subscription_id: FromPath[str]) -> Response[bytes]:
    """Send a ping to this destination."""
    _check_id(subscription_id)
    await body_of(request, NoFields)
    sent = await context_of(request).subscriptions.ping(principal_of(request).account_id, subscription_id)
    return json_answer(sent, 202, {"Location": f"/v1/deliveries/{sent['id']}"})


@post(
    "/v1/subscriptions/{subscription_id:str}/enable",
    opt=takes(Scope.SUBSCRIPTIONS, RouteAnswer(200, "The subscription", SubscriptionView)),
)
async def enable_subscription(request: Request[Any, Any, Any], subscription_id: FromPath[str]) -> Response[bytes]:
    """Let a disabled destination have events again.

    What it missed stays `skipped`, and can be replayed.
    """
    _check_id(subscription_id)
    await body_of(request, NoFields)
    return json_answer(
        await context_of(request).subscriptions.enable(principal_of(request).account_id, subscription_id)
    )


@post(
    "/v1/subscriptions/{subscription_id:str}/disable",
    opt=takes(Scope.SUBSCRIPTIONS, RouteAnswer(200, "The subscription", SubscriptionView), body=DisableRequest),
)
async def disable_subscription(request: Request[Any, Any, Any], subscription_id: FromPath[str]) -> Response[bytes]:
    """Let a destination have no more events for now.

    What is pending and what comes meanwhile is `skipped`, and can be replayed once it is enabled again.
    """
    _check_id(subscription_id)
    asked = await body_of(request, DisableRequest)
    reason = asked.reason or "disabled by a caller"
    disabled = await context_of(request).subscriptions.disable(
        principal_of(request).account_id, subscription_id, reason
    )
    return json_answer(disabled)


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
