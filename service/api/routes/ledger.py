"""The routes of money: an account's limit, its credits, and the statement of what moved.

It must not know how money moves (`ledger.transfers`).
"""

from __future__ import annotations

from typing import Any, Final

from litestar import Request, Response, get, patch, post
from litestar.params import FromPath

from service.accounts import accounts
from service.accounts.accounts import AccountRow, account_view
from service.api.answers.cursors import bad_cursor
from service.api.answers.responses import json_answer
from service.api.context import Context, context_of, principal_of
from service.api.requests.body import header
from service.api.requests.route import REPLAYED, Header, RouteAnswer, body_of, query_of, takes
from service.errors import Forbidden, NotFound
from service.ids import is_id
from service.jobs.idempotency_store import idempotency_key
from service.ledger.book_store import statement
from service.ledger.spending_limits import SetLimit
from service.ledger.transfers import Credit, transfer_view
from service.schemas.account_schemas import (
    AccountLimitRequest,
    AccountPageQuery,
    AccountView,
    CreditRequest,
    TransferPage,
)
from service.schemas.words import Scope

_TRANSFER: Final = "transfer"  # the kind of the statement's cursors
_TRANSFER_ID: Final = "transfer-id"  # that of what stands for a transfer's number
_KEY: Final = Header(
    "Idempotency-Key",
    "The account's own; the same key never puts money in twice.",
    {"type": "string", "minLength": 1, "maxLength": 255},
)


@post(
    "/v1/accounts/{account_id:str}/credit",
    opt=takes(
        Scope.ADMIN,
        RouteAnswer(200, "The account as it stands now", AccountView, (REPLAYED,)),
        body=CreditRequest,
        headers=(_KEY,),
        example={"amount": "5.00", "reason": "invoice 2026-117"},
    ),
    status_code=200,
)
async def credit_account(request: Request[Any, Any, Any], account_id: FromPath[str]) -> Response[bytes]:
    """Put money into an account.

    A negative amount is a correction; it may take the balance below zero. The same `Idempotency-Key` with the same amount and
    reason puts it in once, and for as long as the books are kept, not only for a day; with others it is refused with 422.
    """
    context, who = context_of(request), principal_of(request)
    key = idempotency_key(header(request.scope, b"idempotency-key"))
    asked = await body_of(request, CreditRequest)
    command = Credit(_checked(account_id), asked.amount, asked.reason or None, who.key_id, key)
    replayed = await context.writer.run(command)
    shown = await _shown(context, account_id)
    return json_answer(shown, headers={"Idempotent-Replayed": "true"} if replayed else None)


@patch(
    "/v1/accounts/{account_id:str}",
    opt=takes(Scope.ADMIN, RouteAnswer(200, "The account", AccountView), body=AccountLimitRequest),
)
async def limit_account(request: Request[Any, Any, Any], account_id: FromPath[str]) -> Response[bytes]:
    """Give an account another limit.

    Jobs that were taken already go on. An account over its new limit takes none until it is below again.
    """
    context = context_of(request)
    asked = await body_of(request, AccountLimitRequest)
    await context.writer.run(SetLimit(_checked(account_id), asked.limit, asked.budget))
    return json_answer(await _shown(context, account_id))


@get(
    "/v1/account/transfers",
    opt=takes(Scope.ACCOUNT, RouteAnswer(200, "A page of transfers", TransferPage), query=AccountPageQuery),
)
async def list_transfers(request: Request[Any, Any, Any]) -> Response[bytes]:
    """What moved in the account's books, newest first.

    Every transfer takes an amount from one book (`debit`) and gives it to another (`credit`). The balance is what is in
    `available` and `held`. `excess` is what a job cost beyond what was held for it, `late` the cost of a job that had ended
    before: only these two, and an operator's `debit`, can take the available balance below its limit.
    """
    context, who = context_of(request), principal_of(request)
    query = query_of(request, AccountPageQuery)
    account_id = query.account_id or who.account_id
    if account_id != who.account_id and not who.may(Scope.ADMIN):
        raise Forbidden("only a key with the scope admin may name another account; leave account_id out")
    before_id = None if query.cursor is None else context.events.cursors.place(_TRANSFER, account_id, query.cursor)
    if query.cursor is not None and before_id is None:
        raise bad_cursor()
    found = await statement(context.reader, account_id, before_id, query.limit + 1)
    shown = [
        # Numbers of the books grow with what all accounts do.
        transfer_view("trf_" + context.events.cursors.text(_TRANSFER_ID, account_id, row["id"]), row)
        for row in found[: query.limit]
    ]
    more = len(found) > query.limit
    last = context.events.cursors.text(_TRANSFER, account_id, found[query.limit - 1]["id"]) if more else None
    return json_answer({"data": shown, "next_cursor": last})


def _checked(account_id: str) -> str:
    if not is_id(account_id, "acc"):
        raise NotFound("there is no such account; GET /v1/accounts lists them")
    return account_id


async def _shown(context: Context, account_id: str) -> AccountView:
    account: AccountRow | None = await accounts.find(context.reader, account_id, context.clock.now_ms())
    if account is None:
        raise NotFound("there is no such account; GET /v1/accounts lists them")
    return account_view(account, context.clock.now_ms())


ROUTES = (credit_account, limit_account, list_transfers)
