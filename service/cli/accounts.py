"""`remora accounts`: the accounts of a running service and their money, asked over HTTP with an admin key.

Owns the commands' words. It must not know how money moves.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import urlencode

import msgspec
import typer

from service.cli.api_client import ServiceClient, connected
from service.cli.outcome import NOT_WELL, Refused, told
from service.clock import SystemRandomness
from service.environment import load
from service.errors import EgressCut
from service.ids import is_id
from service.printable import one_line, shown_json
from service.schemas.words import LimitKind

T = TypeVar("T")

_PAGE: Final = 200
_HEAD: Final = ("id", "name", "limit", "balance", "held", "available")

app = typer.Typer(
    add_completion=False, help="The accounts of a running service, their limits and their money.", no_args_is_help=True
)

AsJson = Annotated[bool, typer.Option("--json", help="Print what the service answered.")]


@app.callback()
def accounts() -> None:
    """The accounts of a running service, their limits and their money."""


@app.command("list")
def list_accounts(*, as_json: AsJson = False) -> None:
    """Show every account and what it has."""
    found = _asked(_all)
    _show({"data": found} if as_json else found, as_json=as_json)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the account is called.", show_default=False)],
    *,
    limit: Annotated[LimitKind, typer.Option(help="What the account may spend.")] = LimitKind.NONE,
    budget: Annotated[str, typer.Option(help="With monthly: what a month may cost, in USD.")] = "",
    credit: Annotated[str, typer.Option(help="What it begins with, in USD.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make an account; its first key and its signing secret are shown here only."""
    given = {"name": name, "limit": limit.value, "budget": budget, "credit": credit}
    body = {field: value for field, value in given.items() if value}
    made = _asked(lambda client: _create(client, body))
    _show(made if as_json else [made], as_json=as_json)
    if not as_json:
        typer.echo(f"\nkey     {made['key']['secret']}\nsecret  {made['secret']}\nThey are not shown again.")


@app.command("credit", context_settings={"ignore_unknown_options": True})
def credit_account(
    account: Annotated[str, typer.Argument(metavar="NAME|ID", help="The account.", show_default=False)],
    amount: Annotated[
        str, typer.Argument(help='In USD, such as "5.00"; negative for a correction.', show_default=False)
    ],
    *,
    reason: Annotated[str, typer.Option(help="Why; stands in the account's statement.")] = "",
    key: Annotated[str, typer.Option(help="The same key puts an amount in once, however often it is used.")] = "",
    as_json: AsJson = False,
) -> None:
    """Put money into an account."""
    used = key or SystemRandomness().bytes(8).hex()
    credited = _asked(lambda client: _credit(client, account, {"amount": amount, "reason": reason or None}, used))
    _show(credited if as_json else [credited], as_json=as_json)


@app.command("limit")
def limit_account(
    account: Annotated[str, typer.Argument(metavar="NAME|ID", help="The account.", show_default=False)],
    limit: Annotated[LimitKind, typer.Argument(help="What the account may spend.", show_default=False)],
    *,
    budget: Annotated[str, typer.Option(help="With monthly: what a month may cost, in USD.")] = "",
    as_json: AsJson = False,
) -> None:
    """Give an account another limit; jobs that were taken already go on."""
    body = {"limit": limit.value} | ({"budget": budget} if budget else {})
    limited = _asked(lambda client: _limit(client, account, body))
    _show(limited if as_json else [limited], as_json=as_json)


async def _create(client: ServiceClient, body: dict[str, str]) -> Any:
    """A second account of the same name is mostly the same command, given twice."""
    there = [each["id"] for each in await _all(client) if each["name"] == body.get("name", "").strip()]
    if there:
        raise Refused(f"there is an account named {body['name']!r}, {there[0]}; choose another name", NOT_WELL)
    return await client.post("/v1/accounts", body)


async def _limit(client: ServiceClient, account: str, body: dict[str, str]) -> Any:
    return await client.patch(f"/v1/accounts/{await _id_of(client, account)}", body)


async def _credit(client: ServiceClient, account: str, body: dict[str, str | None], key: str) -> Any:
    account_id = await _id_of(client, account)
    try:
        return await client.post(f"/v1/accounts/{account_id}/credit", body, {"Idempotency-Key": key})
    except EgressCut as error:
        raise Refused(f"{error}; it may be in or not: the same command with --key {key} puts it in once") from error


async def _id_of(client: ServiceClient, name: str) -> str:
    if is_id(name, "acc"):
        return name
    found = [each["id"] for each in await _all(client) if each["name"] == name]
    if not found:
        raise Refused(f"there is no account named {name!r}; `remora accounts list` shows them", NOT_WELL)
    if len(found) > 1:
        raise Refused(f"{len(found)} accounts are named {name!r}; say which: {', '.join(found)}", NOT_WELL)
    return str(found[0])


async def _all(client: ServiceClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        asked = {"limit": str(_PAGE)} | ({} if cursor is None else {"cursor": cursor})
        page = await client.get(f"/v1/accounts?{urlencode(asked)}")
        found += page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def _asked(question: Callable[[ServiceClient], Awaitable[T]]) -> T:
    """What the service answers, or the end of the command."""

    async def ask() -> T:
        async with connected(load(os.environ, Path.cwd())) as client:
            return await question(client)

    with told():
        return asyncio.run(ask())


def _show(what: Any, *, as_json: bool) -> None:
    if as_json:
        typer.echo(shown_json(msgspec.json.format(msgspec.json.encode(what)).decode()))
        return
    rows = [_row(account) for account in what]
    if not sys.stdout.isatty():  # for another program: nothing is aligned, and a tab is between two cells
        typer.echo("".join("\t".join(row) + "\n" for row in rows), nl=False)
        return
    # By hand, since a table of rich's cuts what is too wide, and an id that is cut is none.
    widths = [max(map(len, column)) for column in zip(_HEAD, *rows, strict=True)]
    for row in (_HEAD, *rows):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _row(account: dict[str, Any]) -> tuple[str, ...]:
    balance = account["balance"]
    cells = (account["id"], account["name"], balance["limit"], *(balance[name] for name in _HEAD[3:]))
    return tuple(one_line(cell) for cell in cells)  # a name is what somebody chose
