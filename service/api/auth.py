"""Who may do what: the `Authorization` header, and the scope that a route names in its `opt`.

A route below /v1 without a scope does not start (see `server.create_api`), so that forgetting one opens nothing.
"""

from __future__ import annotations

from typing import Any

from litestar import Request

from service.accounts.keys import Principal
from service.api.context import context_of
from service.api.requests.body import check_single, header
from service.api.requests.route import ANY_KEY
from service.errors import Forbidden, Unauthenticated


async def check_key(request: Request[Any, Any, Any]) -> None:
    """Before every request: no more than its headers to look at where the route names no scope.

    Not one of Litestar's guards: for those it copies the whole handler each time, a sixth of what taking a job costs here.

    Raises:
        Malformed: A header of which there can only be one is repeated.
        Unauthenticated: There is no key, or it is not valid.
        Forbidden: The key lacks the scope.
    """
    check_single(request.scope)
    needed = request.scope["route_handler"].opt.get("scope")
    if needed is None:
        return
    principal = request.scope["auth"] = await authenticated(request)
    if needed != ANY_KEY and not principal.may(needed):
        raise Forbidden(f"the key lacks the scope {needed}; use one that has it, or make one with POST /v1/keys")


async def authenticated(request: Request[Any, Any, Any]) -> Principal:
    """Whom the request's key speaks for.

    Raises:
        Unauthenticated: There is no key, or it is not valid.
    """
    context = context_of(request)
    given = header(request.scope, b"authorization")
    if given is None:
        raise Unauthenticated("send a key: Authorization: Bearer rmk_…")
    scheme, _, key = given.strip().partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise Unauthenticated("the Authorization header must read: Bearer rmk_…")
    return await context.accounts.keys.authenticate(key.strip())
