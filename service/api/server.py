"""Puts the routes together: the application that the composition root serves."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from litestar import HttpMethod, Response, route
from litestar.datastructures import State
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler

from service.api import openapi
from service.api.answers.responses import empty_answer
from service.api.auth import check_key
from service.api.context import Context
from service.api.exchange import Api
from service.api.problems import EXCEPTION_HANDLERS
from service.api.requests.refusal_log import RefusalLog
from service.api.routes import (
    accounts,
    callbacks,
    deliveries,
    events,
    export,
    jobs,
    ledger,
    ops,
    providers,
    replays,
    results,
    subscriptions,
    usage,
)

ROUTES: Final[tuple[BaseRouteHandler, ...]] = (
    *export.ROUTES,
    *jobs.ROUTES,
    *subscriptions.ROUTES,
    *replays.ROUTES,
    *deliveries.ROUTES,
    *events.ROUTES,
    *providers.ROUTES,
    *accounts.ROUTES,
    *ledger.ROUTES,
    *usage.ROUTES,
    *callbacks.ROUTES,
    *results.ROUTES,
    *ops.ROUTES,
    *openapi.ROUTES,
)


#: How the paths of all routes begin, as in `/v1`.
ROOTS: Final = frozenset(f"/{path.split('/')[1]}" for each in ROUTES for path in each.paths)


class UnguardedRoute(TypeError):
    """A route below /v1 is open to everybody: a mistake in the code, told when the application is made."""


def create_api(context: Context, extra_routes: Sequence[BaseRouteHandler] = ()) -> Api:
    """The application with all routes.

    Args:
        context: What the routes work with.
        extra_routes: Further ones, such as a dashboard's.

    Raises:
        UnguardedRoute: A route below /v1 would be open to everybody.
    """
    routes = [*ROUTES, *extra_routes]
    for each in routes:
        if isinstance(each, HTTPRouteHandler) and HttpMethod.GET in each.http_methods:
            each.http_methods.add(
                HttpMethod.HEAD
            )  # the server leaves the body out; what never ends, ends after its head
        if any(path.startswith("/v1") for path in each.paths):
            _check_guarded(each)
    return Api(
        route_handlers=[*_options(routes), *routes],
        state=State(
            {
                "context": context,
                "described": ROUTES,
                "describing": asyncio.Lock(),
                "refusals": RefusalLog(context.clock),
            }
        ),
        before_request=check_key,
        exception_handlers=EXCEPTION_HANDLERS,
        openapi_config=None,  # see `openapi`
        logging_config=None,  # see `exchange`
        debug=False,
    )


def _options(routes: Sequence[BaseRouteHandler]) -> Iterator[BaseRouteHandler]:
    """What each path takes: Litestar 2.25's own answer to OPTIONS names only the methods of the first route of a path."""
    methods: defaultdict[str, set[str]] = defaultdict(lambda: {"OPTIONS"})
    for each in routes:
        if isinstance(each, HTTPRouteHandler):
            for path in each.paths:
                methods[path] |= each.http_methods
    for path, names in methods.items():
        yield _options_of(path, ", ".join(sorted(names)))


def _options_of(path: str, allowed: str) -> BaseRouteHandler:
    @route(path, http_method=HttpMethod.OPTIONS, sync_to_thread=False, opt={"scope": None})
    def options() -> Response[bytes]:
        return empty_answer(204, {"Allow": allowed})

    return options


def _check_guarded(route: BaseRouteHandler) -> None:
    """`check_key` runs before this route, and the route says what it needs."""
    paths = sorted(route.paths)
    if not isinstance(route, HTTPRouteHandler):
        raise UnguardedRoute(f"{paths}: only an HTTP route's key is checked")
    if route.before_request is not None:
        raise UnguardedRoute(f"{paths}: its own before_request takes the place of the one that checks the key")
    if "scope" not in route.opt:
        raise UnguardedRoute(f"{paths}: names no scope")
