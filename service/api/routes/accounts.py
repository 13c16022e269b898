"""The routes of accounts and keys. A secret is in the answer to the request that made it, and in no other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from litestar import Request, Response, delete, get, post
from litestar.params import FromPath

from service.accounts import accounts, keys
from service.accounts.accounts import CreateAccount, RotateSecret, account_view, prefix_of
from service.accounts.bootstrap import DEFAULT_ACCOUNT, SETTINGS_KEY
from service.accounts.keys import ACCOUNT_SCOPES, CreateKey, Principal, RevokeKey, key_view, new_key
from service.accounts.secrets import new_sealed
from service.api.answers.cursors import cursor_id, page
from service.api.answers.responses import json_answer
from service.api.context import Context, context_of, principal_of
from service.api.requests.route import RouteAnswer, body_of, query_of, takes
from service.clock import iso
from service.errors import FieldError, Forbidden, Invalid, NotFound
from service.ids import is_id
from service.schemas.account_schemas import (
    AccountPage,
    AccountPageQuery,
    AccountRequest,
    AccountView,
    CreatedAccountView,
    KeyPage,
    KeyRequest,
    KeyWithSecretView,
    RotatedAccountView,
)
from service.schemas.query_model import NoQuery, PageQuery
from service.schemas.request_model import NoFields
from service.schemas.words import Scope


@get("/v1/account", opt=takes(Scope.ACCOUNT, RouteAnswer(200, "The account", AccountView)))
async def get_account(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The account of the key."""
    context, who = context_of(request), principal_of(request)
    query_of(request, NoQuery)
    return json_answer(account_view(await _account(context, who.account_id), context.clock.now_ms()))


@post(
    "/v1/account/rotate-secret",
    opt=takes(Scope.ACCOUNT, RouteAnswer(200, "The account with its new secret", RotatedAccountView)),
)
async def rotate_account_secret(request: Request[Any, Any, Any]) -> Response[bytes]:
    """A new default signing secret, shown once.

    The previous secret co-signs for 24 hours.
    """
    context, who = context_of(request), principal_of(request)
    await body_of(request, NoFields)
    secret, sealed = new_sealed(context.accounts.box, context.randomness, who.account_id)
    until = await context.writer.run(RotateSecret(who.account_id, sealed, prefix_of(secret)))
    account = await _account(context, who.account_id)
    shown: RotatedAccountView = {
        **account_view(account, context.clock.now_ms()),
        "secret": secret,
        "previous_secret_until": iso(until),
    }
    return json_answer(shown, headers={"Cache-Control": "no-store"})


@post(
    "/v1/accounts",
    opt=takes(
        Scope.ADMIN,
        RouteAnswer(201, "The account; its secret and its key's are shown here only", CreatedAccountView),
        body=AccountRequest,
    ),
)
async def create_account(request: Request[Any, Any, Any]) -> Response[bytes]:
    """A new account with a first key."""
    context, who = context_of(request), principal_of(request)
    asked = await body_of(request, AccountRequest)
    if asked.name == DEFAULT_ACCOUNT:
        detail = f"{DEFAULT_ACCOUNT} is the account of the admin key; choose another name"
        raise Invalid.of([FieldError("/name", detail)])
    account_id, key = context.accounts.ids.new("acc"), new_key(context.randomness)
    secret, sealed = new_sealed(context.accounts.box, context.randomness, account_id)
    command = CreateAccount(
        id=account_id,
        name=asked.name,
        limit_kind=asked.limit.value,
        sealed=sealed,
        secret_prefix=prefix_of(secret),
        key_id=context.accounts.ids.new("key"),
        key=key,
        scopes=tuple(sorted(ACCOUNT_SCOPES)),
        budget=asked.budget,
        credit=asked.credit or 0,
        actor=who.key_id,
    )
    account, first = await context.writer.run(command)
    shown: CreatedAccountView = {
        **account_view(account, context.clock.now_ms()),
        "secret": secret,
        "key": {**key_view(first), "secret": key.text},
    }
    return json_answer(shown, 201, {"Cache-Control": "no-store"})


@get("/v1/accounts", opt=takes(Scope.ADMIN, RouteAnswer(200, "A page of accounts", AccountPage), query=PageQuery))
async def list_accounts(request: Request[Any, Any, Any]) -> Response[bytes]:
    """All accounts, newest first."""
    query, context = query_of(request, PageQuery), context_of(request)
    now_ms = context.clock.now_ms()
    found = await accounts.list_accounts(context.reader, cursor_id(query.cursor, "acc"), query.limit + 1, now_ms)
    return page(found, query.limit, lambda account: account_view(account, now_ms), "acc", lambda account: account.id)


@post("/v1/keys", opt=takes(Scope.ACCOUNT, RouteAnswer(201, "The key", KeyWithSecretView), body=KeyRequest))
async def create_key(request: Request[Any, Any, Any]) -> Response[bytes]:
    """A new key, whose secret is shown once.

    A key can only give scopes that it has itself; a key with `admin` may name another account. 409 `too_many_keys` where the
    account has `REMORA_MAX_KEYS` in force. As many that were revoked or have expired are kept to be listed.
    """
    context, who = context_of(request), principal_of(request)
    asked = await body_of(request, KeyRequest)
    if asked.name == SETTINGS_KEY:
        raise Invalid.of([FieldError("/name", f"{SETTINGS_KEY} is the key of the settings; choose another name")])
    if asked.expires_at is not None and asked.expires_at <= context.clock.now_ms():
        raise Invalid.of([FieldError("/expires_at", "must be a time to come, with a zone: 2027-01-31T00:00:00Z")])
    account_id = asked.account_id or who.account_id
    _check_held(who, account_id, asked.scopes)
    key = new_key(context.randomness)
    command = CreateKey(context.accounts.ids.new("key"), account_id, asked.name, asked.scopes, key, asked.expires_at)
    shown: KeyWithSecretView = {**key_view(await context.writer.run(command)), "secret": key.text}
    return json_answer(shown, 201, {"Cache-Control": "no-store"})


@get("/v1/keys", opt=takes(Scope.ACCOUNT, RouteAnswer(200, "A page of keys", KeyPage), query=AccountPageQuery))
async def list_keys(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The account's keys, newest first."""
    query, context, who = query_of(request, AccountPageQuery), context_of(request), principal_of(request)
    account_id = query.account_id or who.account_id
    _check_held(who, account_id, ())
    found = await keys.list_keys(context.reader, account_id, cursor_id(query.cursor, "key"), query.limit + 1)
    return page(found, query.limit, key_view, "key", lambda key: key.id)


@delete(
    "/v1/keys/{key_id:str}",
    opt=takes(Scope.ACCOUNT, RouteAnswer(204, "The key is not valid any more")),
    status_code=204,
)
async def revoke_key(request: Request[Any, Any, Any], key_id: FromPath[str]) -> None:
    """Revoke a key at once.

    An admin may end any account's. 409 `last_admin_key` where no other key with the scope `admin` would be left that does
    not expire.
    """
    context, who = context_of(request), principal_of(request)
    query_of(request, NoQuery)
    if not is_id(key_id, "key"):
        raise NotFound("there is no such key; GET /v1/keys lists them")
    whose = None if who.may(Scope.ADMIN) else who.account_id
    await context.writer.run(RevokeKey(key_id, whose))


async def _account(context: Context, account_id: str) -> accounts.AccountRow:
    account = await accounts.find(context.reader, account_id, context.clock.now_ms())
    if account is None:
        raise NotFound("there is no such account")
    return account


def _check_held(who: Principal, account_id: str, scopes: Sequence[str]) -> None:
    """Nobody gives away what he does not have, and only an admin reaches into another account."""
    if account_id != who.account_id and not who.may(Scope.ADMIN):
        raise Forbidden("only a key with the scope admin may name another account; leave account_id out")
    missing = [scope for scope in scopes if not who.may(scope)]
    if missing:
        raise Forbidden(f"a key can only give scopes that it has itself; this one lacks {', '.join(missing)}")


ROUTES = (
    get_account,
    rotate_account_secret,
    create_account,
    list_accounts,
    create_key,
    list_keys,
    revoke_key,
)
