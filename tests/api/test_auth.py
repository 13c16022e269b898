"""Who may do what, over HTTP: keys, scopes, and routes that nobody forgot to guard."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from litestar import asgi, get
from litestar.handlers import HTTPRouteHandler
from litestar.types import Receive, Scope, Send

from service.api.server import ROUTES, UnguardedRoute, create_api
from service.schemas.words import Scope as KeyScope
from tests.api.conftest import ADMIN_KEY, STUCK, Served

OPEN = {
    "/callbacks/{token:str}",
    "/callbacks/{token:str}/{rest:path}",
    "/r/{token:str}",
    "/r/{token:str}/thumb",
    "/healthz",
    "/readyz",
    "/metrics",
    "/",
    "/schema",
    "/schema/openapi.json",
    "/schema/static/{name:str}",
}
GUARDED = [
    (method, path)
    for route in ROUTES
    if isinstance(route, HTTPRouteHandler)
    for path in route.paths - OPEN
    for method in route.http_methods
]


@pytest.mark.parametrize(("method", "path"), sorted(GUARDED))
async def test_route_needs_a_key(served: Served, method: str, path: str) -> None:
    """Without a key 401, whatever else is wrong; with a key that lacks the scope 403, unless any key will do."""
    url = re.sub(r"\{\w+:\w+\}", "x", path)
    without = await served.stranger.request(method, url)
    wrong = await served.stranger.request(method, url, headers={"Authorization": "Bearer rmk_" + "x" * 43})

    assert (without.status_code, without.json()["code"]) == (401, "unauthenticated")
    assert (wrong.status_code, wrong.json()["code"]) == (401, "unauthenticated")
    assert without.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Basic cm1rOng=",
        ADMIN_KEY,
        f"Token {ADMIN_KEY}",
        "Bearer " + "x" * 5000,
        "Bearer \xe9\xff",
    ],
)
async def test_header_that_is_no_key_is_refused(served: Served, header: str) -> None:
    """401 for everything that is not `Bearer` and a valid key; the key is never repeated."""
    answer = await served.stranger.get("/v1/jobs", headers={b"Authorization": header.encode("latin-1")})

    assert answer.status_code == 401
    assert ADMIN_KEY not in answer.text


@pytest.mark.parametrize("header", [f"bearer {ADMIN_KEY}", f"BEARER   {ADMIN_KEY}"])
async def test_scheme_is_read_as_http_reads_it(served: Served, header: str) -> None:
    """In any case, with any blanks."""
    answer = await served.stranger.get("/v1/jobs", headers={"Authorization": header})

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        (KeyScope.JOBS_READ, {"GET /v1/jobs", "GET /v1/providers"}),
        (KeyScope.JOBS_WRITE, {"POST /v1/jobs", "GET /v1/providers"}),
        (KeyScope.SUBSCRIPTIONS, {"GET /v1/subscriptions", "GET /v1/providers"}),
        (KeyScope.DELIVERIES, {"GET /v1/deliveries", "GET /v1/providers"}),
        (KeyScope.ACCOUNT, {"GET /v1/account", "GET /v1/keys", "GET /v1/providers"}),
    ],
)
async def test_scope_opens_its_own_routes_only(served: Served, scope: KeyScope, allowed: set[str]) -> None:
    """Every key sees the providers; beyond that what its scope names, and 403 says which one is missing."""
    key = await served.account(scope.value)
    async with key:
        answers = {
            f"{method} {path}": await key.request(method, path, json=STUCK if method == "POST" else None)
            for method, path in (
                ("GET", "/v1/jobs"),
                ("POST", "/v1/jobs"),
                ("GET", "/v1/providers"),
                ("GET", "/v1/subscriptions"),
                ("GET", "/v1/deliveries"),
                ("GET", "/v1/account"),
                ("GET", "/v1/keys"),
                ("GET", "/v1/accounts"),
            )
        }

    assert {name for name, answer in answers.items() if answer.status_code < 300} == allowed
    assert {answer.status_code for name, answer in answers.items() if name not in allowed} == {403}
    assert "admin" in answers["GET /v1/accounts"].json()["detail"]


async def test_revoked_key_is_refused_at_once(served: Served) -> None:
    """Used, revoked, refused: what the process remembers of a key does not outlive it."""
    made = (await served.client.post("/v1/keys", json={"name": "ci", "scopes": ["jobs:read"]})).json()
    async with served.keyed(made["secret"]) as key:
        before = await key.get("/v1/jobs")
        revoked = await served.client.delete(f"/v1/keys/{made['id']}")
        after = await key.get("/v1/jobs")
        again = await served.client.delete(f"/v1/keys/{made['id']}")

    assert [each.status_code for each in (before, revoked, after, again)] == [200, 204, 401, 204]
    assert revoked.content == b""


async def test_metrics_need_a_key_beyond_loopback(served: Served) -> None:
    """On loopback nobody asks; where the service listens to others, a key does."""
    open_to_all = await served.stranger.get("/metrics")
    _listen_to_others(served)
    closed = await served.stranger.get("/metrics")
    keyed = await served.client.get("/metrics")

    assert [each.status_code for each in (open_to_all, closed, keyed)] == [200, 401, 200]


def _listen_to_others(served: Served) -> None:
    """As if the service had been started on 0.0.0.0, which a test must not do."""
    context = served.service._app.state.context
    object.__setattr__(context.state, "open_metrics", False)


async def test_route_that_nobody_guards_does_not_start(served: Served) -> None:
    """Below /v1 a route needs a scope and the check of the key; where either is missing no application is made."""

    @get("/v1/forgotten")
    async def forgotten() -> None: ...

    @get("/v1/own", opt={"scope": "any"}, before_request=lambda _: None)
    async def own() -> None: ...

    @asgi("/v1/raw", opt={"scope": "any"}, copy_scope=False)
    async def raw(scope: Scope, receive: Receive, send: Send) -> None: ...

    context: Any = served.service._app.state.context
    for route in (forgotten, own, raw):
        with pytest.raises(UnguardedRoute, match="/v1/"):
            create_api(context, [route])


async def test_key_never_reaches_an_answer(served: Served) -> None:
    """Not in errors, not in lists; the hash neither."""
    answers: list[httpx.Response] = [
        await served.client.get("/v1/keys"),
        await served.client.get("/v1/account"),
        await served.client.get(f"/v1/keys?cursor={ADMIN_KEY}"),
        await served.client.post("/v1/keys", json={"name": 1, "scopes": 2}),
    ]

    assert all(ADMIN_KEY not in answer.text for answer in answers)
