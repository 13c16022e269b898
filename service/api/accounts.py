"""The routes of accounts and keys. A secret is in the answer to the request that made it, and in no other."""

from __future__ import annotations

from typing import Any, Final

from litestar import Request, Response, delete, get, post
from litestar.params import FromPath

from service.accounts import accounts, keys
from service.accounts.accounts import CreateAccount, RotateSecret, account_view, prefix_of
from service.accounts.bootstrap import DEFAULT_ACCOUNT, SETTINGS_KEY
from service.accounts.keys import ACCOUNT_SCOPES, CreateKey, Principal, RevokeKey, Scope, key_view, new_key
from service.accounts.secrets import new_sealed
from service.api.auth import needs
from service.api.body import fields_of, json_body, optional_body
from service.api.context import Context, context_of, principal_of
from service.api.ledger import amount_of, limit_of
from service.api.query import PAGING, page, query_of, wrong
from service.api.responses import json_answer
from service.clock import iso, parse_iso
from service.errors import FieldError, Forbidden, Invalid, NotFound
from service.ids import is_id

MAX_NAME: Final = 100  # characters
_LAST_MS: Final = 253_402_300_799_999  # the end of the year 9999
_NOTHING: Final[frozenset[str]] = frozenset()


@get("/v1/account", opt=needs(Scope.ACCOUNT))
async def get_account(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The caller's own account."""
    context, who = context_of(request), principal_of(request)
    query_of(request.scope, _NOTHING)
    return json_answer(account_view(await _account(context, who.account_id), context.clock.now_ms()))


@post("/v1/account/rotate-secret", opt=needs(Scope.ACCOUNT))
async def rotate_secret(request: Request[Any, Any, Any]) -> Response[bytes]:
    """A new default signing secret; the previous one co-signs for a day."""
    context, who = context_of(request), principal_of(request)
    fields_of(await optional_body(request) or {}, _NOTHING)
    secret, sealed = new_sealed(context.box, context.randomness, who.account_id)
    until = await context.writer.run(RotateSecret(who.account_id, sealed, prefix_of(secret)))
    account = await _account(context, who.account_id)
    shown = {**account_view(account, context.clock.now_ms()), "secret": secret, "previous_secret_until": iso(until)}
    return json_answer(shown, headers={"Cache-Control": "no-store"})


@post("/v1/accounts", opt=needs(Scope.ADMIN))
async def create_account(request: Request[Any, Any, Any]) -> Response[bytes]:
    """A new account with a first key."""
    context, who = context_of(request), principal_of(request)
    body = fields_of(await json_body(request), frozenset({"name", "limit", "budget", "credit"}))
    errors: list[FieldError] = []
    name = _name(body, errors)
    if name == DEFAULT_ACCOUNT:
        errors.append(FieldError("/name", f"{DEFAULT_ACCOUNT} is the account of the admin key; choose another name"))
    limit, credit = limit_of(body, errors), _first_credit(body, errors)
    _refuse(errors)
    account_id, key = context.ids.new("acc"), new_key(context.randomness)
    secret, sealed = new_sealed(context.box, context.randomness, account_id)
    scopes = tuple(sorted(ACCOUNT_SCOPES))
    command = CreateAccount(
        id=account_id,
        name=name,
        limit_kind=limit.kind.value,
        sealed=sealed,
        secret_prefix=prefix_of(secret),
        key_id=context.ids.new("key"),
        key=key,
        scopes=scopes,
        budget=limit.budget,
        credit=credit,
        actor=who.key_id,
    )
    account, first = await context.writer.run(command)
    shown = {
        **account_view(account, context.clock.now_ms()),
        "secret": secret,
        "key": {**key_view(first), "secret": key.text},
    }
    return json_answer(shown, 201, {"Cache-Control": "no-store"})


@get("/v1/accounts", opt=needs(Scope.ADMIN))
async def list_accounts(request: Request[Any, Any, Any]) -> Response[bytes]:
    """A page of all accounts, newest first."""
    query = query_of(request.scope, PAGING)
    limit, before = query.limit(), query.cursor_id("acc")
    context = context_of(request)
    found = await accounts.list_accounts(context.reader, before, limit + 1, context.clock.now_ms())
    now_ms = context.clock.now_ms()
    return page(found, limit, lambda account: account_view(account, now_ms), "acc", lambda account: account.id)


@post("/v1/keys", opt=needs(Scope.ACCOUNT))
async def create_key(request: Request[Any, Any, Any]) -> Response[bytes]:
    """A new key, with scopes that the caller's own key has too."""
    context, who = context_of(request), principal_of(request)
    body = fields_of(await json_body(request), frozenset({"name", "scopes", "expires_at", "account_id"}))
    errors: list[FieldError] = []
    name = _name(body, errors)
    if name == SETTINGS_KEY:
        errors.append(FieldError("/name", f"{SETTINGS_KEY} is the key of the settings; choose another name"))
    scopes = _scopes(body, errors)
    expires_at = _expiry(body, context.clock.now_ms(), errors)
    account_id = _account_id(body, who, errors)
    _refuse(errors)
    _check_held(who, account_id, scopes)
    key = new_key(context.randomness)
    made = await context.writer.run(CreateKey(context.ids.new("key"), account_id, name, scopes, key, expires_at))
    return json_answer({**key_view(made), "secret": key.text}, 201, {"Cache-Control": "no-store"})


@get("/v1/keys", opt=needs(Scope.ACCOUNT))
async def list_keys(request: Request[Any, Any, Any]) -> Response[bytes]:
    """A page of the account's keys, newest first; an admin may name another account."""
    context, who = context_of(request), principal_of(request)
    query = query_of(request.scope, PAGING | {"account_id"})
    limit, before = query.limit(), query.cursor_id("key")
    account_id = query.one("account_id") or who.account_id
    if not is_id(account_id, "acc"):
        raise wrong("account_id", "is no account's id; they look like acc_0199…")
    _check_held(who, account_id, ())
    found = await keys.list_keys(context.reader, account_id, before, limit + 1)
    return page(found, limit, key_view, "key", lambda key: key.id)


@delete("/v1/keys/{key_id:str}", opt=needs(Scope.ACCOUNT), status_code=204)
async def revoke_key(request: Request[Any, Any, Any], key_id: FromPath[str]) -> None:
    """End a key at once; an admin may end any account's."""
    context, who = context_of(request), principal_of(request)
    query_of(request.scope, _NOTHING)
    if not is_id(key_id, "key"):
        raise NotFound("there is no such key; GET /v1/keys lists them")
    whose = None if who.may(Scope.ADMIN) else who.account_id
    await context.writer.run(RevokeKey(key_id, whose))


async def _account(context: Context, account_id: str) -> accounts.AccountRow:
    account = await accounts.find(context.reader, account_id, context.clock.now_ms())
    if account is None:
        raise NotFound("there is no such account")
    return account


def _refuse(errors: list[FieldError]) -> None:
    if errors:
        raise Invalid.of(errors)


def _name(body: dict[str, Any], errors: list[FieldError]) -> str:
    name = body.get("name")
    if not isinstance(name, str) or not name.strip() or len(name) > MAX_NAME or not name.isprintable():
        errors.append(FieldError("/name", f"must be a text of 1 to {MAX_NAME} printable characters"))
        return ""
    return name.strip()


def _first_credit(body: dict[str, Any], errors: list[FieldError]) -> int:
    """What an account begins with, in micro-USD."""
    if body.get("credit") is None:
        return 0
    amount = amount_of(body, "credit", errors)
    if amount is not None and amount < 0:
        errors.append(FieldError("/credit", "must not be negative"))
    return amount or 0


def _scopes(body: dict[str, Any], errors: list[FieldError]) -> tuple[str, ...]:
    given = body.get("scopes")
    known = [scope.value for scope in Scope]
    if not isinstance(given, list) or not given or len(given) > 20:
        errors.append(FieldError("/scopes", f"must be a list of some of {', '.join(known)}"))
        return ()
    for index, scope in enumerate(given):
        if scope not in known:
            errors.append(FieldError(f"/scopes/{index}", f"must be one of {', '.join(known)}"))
    return tuple(dict.fromkeys(scope for scope in given if isinstance(scope, str)))


def _expiry(body: dict[str, Any], now_ms: int, errors: list[FieldError]) -> int | None:
    given = body.get("expires_at")
    if given is None:
        return None
    try:
        expires_at = parse_iso(given)
    except (TypeError, ValueError, OverflowError):
        expires_at = 0
    if not now_ms < expires_at <= _LAST_MS:
        errors.append(FieldError("/expires_at", "must be a time to come, with a zone: 2027-01-31T00:00:00Z"))
        return None
    return expires_at


def _account_id(body: dict[str, Any], who: Principal, errors: list[FieldError]) -> str:
    given = body.get("account_id")
    if given is None:
        return who.account_id
    if not isinstance(given, str) or not is_id(given, "acc"):
        errors.append(FieldError("/account_id", "must be an account's id, such as acc_0199…"))
        return who.account_id
    return given


def _check_held(who: Principal, account_id: str, scopes: tuple[str, ...]) -> None:
    """Nobody gives away what he does not have, and only an admin reaches into another account."""
    if account_id != who.account_id and not who.may(Scope.ADMIN):
        raise Forbidden("only a key with the scope admin may name another account; leave account_id out")
    missing = [scope for scope in scopes if not who.may(scope)]
    if missing:
        raise Forbidden(f"a key can only give scopes that it has itself; this one lacks {', '.join(missing)}")


ROUTES = (
    get_account,
    rotate_secret,
    create_account,
    list_accounts,
    create_key,
    list_keys,
    revoke_key,
)
