"""The routes of money: an account's limit, its credits, and the statement of what moved.

Owns what a caller may write as an amount or a limit. It must not know how money moves (`ledger.transfers`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from litestar import Request, Response, get, patch, post
from litestar.params import FromPath

from service.accounts import accounts
from service.accounts.accounts import AccountRow, account_view
from service.accounts.keys import Scope
from service.api.auth import needs
from service.api.body import fields_of, header, json_body
from service.api.context import Context, context_of, principal_of
from service.api.query import PAGING, bad_cursor, query_of, wrong
from service.api.responses import json_answer
from service.errors import FieldError, Forbidden, Invalid, NotFound
from service.ids import is_id
from service.jobs.job_request import idempotency_key
from service.ledger.money import MAX_USD, PLACES, parse_usd
from service.ledger.spending_limits import LimitKind, SetLimit
from service.ledger.store import statement
from service.ledger.transfers import Credit, transfer_view

MAX_REASON: Final = 500  # characters
_TRANSFER: Final = "transfer"  # the kind of the statement's cursors
_TRANSFER_ID: Final = "transfer-id"  # that of what stands for a transfer's number
_AMOUNT_FIX: Final = f'must be a decimal string with at most {PLACES} places and {MAX_USD} at most, such as "5.00"'


@dataclass(frozen=True, slots=True)
class Given:
    """The limit that a caller names."""

    kind: LimitKind
    budget: int | None


@post("/v1/accounts/{account_id:str}/credit", opt=needs(Scope.ADMIN), status_code=200)
async def credit_account(request: Request[Any, Any, Any], account_id: FromPath[str]) -> Response[bytes]:
    """Put money into an account; a negative amount takes some out."""
    context, who = context_of(request), principal_of(request)
    key = idempotency_key(header(request.scope, b"idempotency-key"))
    body = fields_of(await json_body(request), frozenset({"amount", "reason"}))
    errors: list[FieldError] = []
    amount = amount_of(body, "amount", errors)
    reason = _reason(body, errors)
    if amount == 0:
        errors.append(FieldError("/amount", "must not be zero"))
    if errors or amount is None:
        raise Invalid.of(errors)
    replayed = await context.writer.run(Credit(_checked(account_id), amount, reason, who.key_id, key))
    shown = await _shown(context, account_id)
    return json_answer(shown, headers={"Idempotent-Replayed": "true"} if replayed else None)


@patch("/v1/accounts/{account_id:str}", opt=needs(Scope.ADMIN))
async def limit_account(request: Request[Any, Any, Any], account_id: FromPath[str]) -> Response[bytes]:
    """Give an account another limit; jobs that were taken already go on."""
    context = context_of(request)
    body = fields_of(await json_body(request), frozenset({"limit", "budget"}))
    errors: list[FieldError] = []
    if "limit" not in body:
        errors.append(FieldError("/limit", "is needed: none, prepaid or monthly"))
    given = limit_of(body, errors)
    if errors:
        raise Invalid.of(errors)
    await context.writer.run(SetLimit(_checked(account_id), given.kind, given.budget))
    return json_answer(await _shown(context, account_id))


@get("/v1/account/transfers", opt=needs(Scope.ACCOUNT))
async def list_transfers(request: Request[Any, Any, Any]) -> Response[bytes]:
    """A page of what moved in the account's books, newest first; an admin may name another account."""
    context, who = context_of(request), principal_of(request)
    query = query_of(request.scope, PAGING | {"account_id"})
    limit, before = query.limit(), query.one("cursor")
    account_id = query.one("account_id") or who.account_id
    if not is_id(account_id, "acc"):
        raise wrong("account_id", "is no account's id; they look like acc_0199…")
    if account_id != who.account_id and not who.may(Scope.ADMIN):
        raise Forbidden("only a key with the scope admin may name another account; leave account_id out")
    before_id = None if before is None else context.cursors.place(_TRANSFER, account_id, before)
    if before is not None and before_id is None:
        raise bad_cursor()
    found = await statement(context.reader, account_id, before_id, limit + 1)
    more = context.cursors.text(_TRANSFER, account_id, found[limit - 1]["id"]) if len(found) > limit else None
    shown = [
        # Numbers of the books grow with what all accounts do.
        {**transfer_view(row), "id": "trf_" + context.cursors.text(_TRANSFER_ID, account_id, row["id"])}
        for row in found[:limit]
    ]
    return json_answer({"data": shown, "next_cursor": more})


def amount_of(body: dict[str, Any], name: str, errors: list[FieldError]) -> int | None:
    """The amount in a field, in micro-USD; None where it is at fault."""
    amount = parse_usd(body.get(name))
    if amount is None:
        errors.append(FieldError(f"/{name}", _AMOUNT_FIX))
    return amount


def limit_of(body: dict[str, Any], errors: list[FieldError]) -> Given:
    """The limit that a body names in `limit` and `budget`; `none` where it names none."""
    given = body.get("limit", LimitKind.NONE.value)
    if not isinstance(given, str) or given not in frozenset(LimitKind):
        errors.append(FieldError("/limit", "must be none, prepaid or monthly"))
        return Given(LimitKind.NONE, None)
    kind = LimitKind(given)
    if kind is not LimitKind.MONTHLY:
        if body.get("budget") is not None:
            errors.append(FieldError("/budget", "belongs to the limit monthly; leave it out"))
        return Given(kind, None)
    if body.get("budget") is None:
        errors.append(FieldError("/budget", f"monthly needs a budget: {_AMOUNT_FIX.removeprefix('must be ')}"))
        return Given(kind, None)
    budget = amount_of(body, "budget", errors)
    if budget is not None and budget < 0:
        errors.append(FieldError("/budget", "must not be negative"))
    return Given(kind, budget)


def _reason(body: dict[str, Any], errors: list[FieldError]) -> str | None:
    given = body.get("reason")
    if given is None:
        return None
    if not isinstance(given, str) or len(given) > MAX_REASON or not given.isprintable():
        errors.append(FieldError("/reason", f"must be a text of at most {MAX_REASON} printable characters"))
        return None
    return given.strip() or None


def _checked(account_id: str) -> str:
    if not is_id(account_id, "acc"):
        raise NotFound("there is no such account; GET /v1/accounts lists them")
    return account_id


async def _shown(context: Context, account_id: str) -> dict[str, Any]:
    account: AccountRow | None = await accounts.find(context.reader, account_id, context.clock.now_ms())
    if account is None:
        raise NotFound("there is no such account; GET /v1/accounts lists them")
    return account_view(account, context.clock.now_ms())


ROUTES = (credit_account, limit_account, list_transfers)
