"""`remora accounts` against a running service: what it shows, what it changes, and how it says that it cannot."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sys
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.api.conftest import ADMIN_KEY, Served, served
from tests.cli.commands import PATIENCE_S, environment, run

__all__ = ["served"]


async def _remora(running: Served, *arguments: str, directory: Path, key: str = ADMIN_KEY) -> CompletedProcess[str]:
    return await asyncio.to_thread(
        run, "accounts", *arguments, directory=directory, REMORA_URL=running.service.url, REMORA_API_KEY=key
    )


async def _balances(running: Served) -> dict[str, Any]:
    accounts = (await running.client.get("/v1/accounts")).json()["data"]
    return {account["name"]: account["balance"]["balance"] for account in accounts}


async def test_accounts_are_made_credited_and_listed(served: Served, tmp_path: Path) -> None:
    """A new account with its key; a credit by name, a correction by id; the list tells both, whole, with tabs in a pipe."""
    made = await _remora(served, "create", "shop", "--limit", "prepaid", "--credit", "0.03", directory=tmp_path)
    credited = await _remora(served, "credit", "shop", "5.00", "--reason", "invoice 7", "--json", directory=tmp_path)
    account = json.loads(credited.stdout)
    corrected = await _remora(served, "credit", account["id"], "-1.03", directory=tmp_path)
    listed = await _remora(served, "list", directory=tmp_path)

    assert [each.returncode for each in (made, credited, corrected, listed)] == [0, 0, 0, 0], corrected.stderr
    assert "rmk_" in made.stdout
    assert account["balance"]["balance"] == "5.030000"
    assert made.stdout.splitlines()[0] == f"{account['id']}\tshop\tprepaid\t0.030000\t0.000000\t0.030000"
    [row] = [line.split("\t") for line in listed.stdout.splitlines() if "\tshop\t" in line]
    assert row == [account["id"], "shop", "prepaid", "4.000000", "0.000000", "4.000000"]


async def test_limit_is_changed(served: Served, tmp_path: Path) -> None:
    """A month's budget, and none again; a budget without monthly is refused by the service."""
    await served.client.post("/v1/accounts", json={"name": "shop"})
    monthly = await _remora(served, "limit", "shop", "monthly", "--budget", "25.00", "--json", directory=tmp_path)
    wrong = await _remora(served, "limit", "shop", "prepaid", "--budget", "25.00", directory=tmp_path)
    none = await _remora(served, "limit", "shop", "none", directory=tmp_path)

    assert json.loads(monthly.stdout)["balance"]["budget"] == "25.000000"
    assert "/budget: belongs to the limit monthly" in wrong.stderr
    assert [each.returncode == 0 for each in (monthly, wrong, none)] == [True, False, True]


async def test_ids_are_whole_on_a_narrow_terminal(served: Served, tmp_path: Path) -> None:
    """A table with its head, and nothing cut."""
    mine, its = pty.openpty()
    settings = {"REMORA_URL": served.service.url, "REMORA_API_KEY": ADMIN_KEY, "COLUMNS": "40"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service", "accounts", "list"),
        cwd=tmp_path,
        env=environment(**settings),
        stdout=its,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
    os.close(its)
    [head, row] = os.read(mine, 65_536).decode().splitlines()
    os.close(mine)
    [account] = (await served.client.get("/v1/accounts")).json()["data"]

    assert head.split() == ["id", "name", "limit", "balance", "held", "available"]
    assert row.split()[:3] == [account["id"], "default", "none"]
    assert head.index("name") == row.index("default")


async def test_mistake_is_told_once(served: Served, tmp_path: Path) -> None:
    """The field and the fix, and not again; a budget that is missing is called so."""
    wrong = await _remora(served, "credit", "default", "1e3", directory=tmp_path)
    bare = await _remora(served, "create", "shop", "--limit", "monthly", directory=tmp_path)

    assert wrong.stderr.count("/amount: must be") == 1
    assert "/budget: monthly needs a budget" in bare.stderr
    assert bare.stderr.count("/budget") == 1


async def test_key_puts_an_amount_in_once(served: Served, tmp_path: Path) -> None:
    """The same command again with its key changes nothing."""
    for _ in range(2):
        done = await _remora(served, "credit", "default", "5", "--key", "once", directory=tmp_path)
        assert done.returncode == 0, done.stderr

    assert await _balances(served) == {"default": "5.000000"}


@pytest.mark.parametrize(
    ("arguments", "key", "ends"),
    [
        (("credit", "nobody", "5"), ADMIN_KEY, (1, "there is no account named 'nobody'")),
        (("credit", "twin", "5"), ADMIN_KEY, (1, "2 accounts are named 'twin'")),
        (("credit", "default", "1e3"), ADMIN_KEY, (1, "/amount: must be a decimal string")),
        (("credit", "default", "5"), "rmk_wrong", (2, "401")),
        (("create", "default"), ADMIN_KEY, (1, "there is an account named 'default'")),
        (("create", "twin"), ADMIN_KEY, (1, "there is an account named 'twin', acc_")),
        (("create", "new", "--budget", "1"), ADMIN_KEY, (1, "/budget: belongs to the limit monthly")),
    ],
)
async def test_refusal_is_told_in_a_line(
    served: Served, tmp_path: Path, arguments: tuple[str, ...], key: str, ends: tuple[int, str]
) -> None:
    """On standard error, without a traceback; nothing moved. The status tells that another time will not help."""
    for _ in range(2):
        await served.client.post("/v1/accounts", json={"name": "twin"})
    done = await _remora(served, *arguments, directory=tmp_path, key=key)

    assert done.returncode == ends[0]
    assert ends[1] in done.stderr
    assert "Traceback" not in done.stderr
    assert set((await _balances(served)).values()) == {"0.000000"}


@pytest.mark.parametrize("command", [("accounts", "list"), ("jobs", "export")])
@pytest.mark.parametrize("given", ["file", "setting"])
def test_admin_key_is_found_on_this_machine_only(command: tuple[str, ...], given: str, tmp_path: Path) -> None:
    """By every command, in the settings or beside the database: it goes to loopback, and to no other address."""
    settings = {"REMORA_ADMIN_KEY": ADMIN_KEY} if given == "setting" else {}
    if given == "file":
        (tmp_path / "remora.db.admin-key").write_text("rmk_made\n")
    near = run(*command, directory=tmp_path, REMORA_URL="http://127.0.0.1:9", **settings)
    far = run(*command, directory=tmp_path, REMORA_URL="http://remora.example", **settings)

    assert "no key" not in near.stderr
    assert near.returncode == 3
    assert "set REMORA_API_KEY" in far.stderr
    assert far.returncode == 2


async def test_name_that_somebody_chose_moves_no_cursor(served: Served, tmp_path: Path) -> None:
    """The API takes no such name, and one that is there all the same is shown escaped: in a row, as JSON, in a refusal."""
    name = "shop\u202e\x9b2J\u2028"
    assert (await served.client.post("/v1/accounts", json={"name": name})).status_code == 422
    await served.client.post("/v1/accounts", json={"name": "shop"})
    await served.sql("UPDATE accounts SET name = :name WHERE name = 'shop'", name=name)
    listed = await _remora(served, "list", directory=tmp_path)
    raw = await _remora(served, "list", "--json", directory=tmp_path)
    refused = await _remora(served, "credit", name, "1e3", directory=tmp_path)

    assert r"shop\u202e\x9b2J\u2028" in listed.stdout
    assert name in [each["name"] for each in json.loads(raw.stdout)["data"]]
    assert all(line.replace("\t", "").isprintable() for line in (listed.stdout + raw.stdout).split("\n"))
    assert all(line.isprintable() for line in refused.stderr.split("\n"))


async def test_answer_of_something_else_is_told(tmp_path: Path) -> None:
    """An address that leads to another program ends in a line, not in a traceback."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as other:
        url = f"http://127.0.0.1:{other.sockets[0].getsockname()[1]}"
        done = await asyncio.to_thread(
            run, "accounts", "list", directory=tmp_path, REMORA_URL=url, REMORA_API_KEY=ADMIN_KEY
        )

    assert done.returncode == 3
    assert "does REMORA_URL lead to Remora?" in done.stderr
    assert "Traceback" not in done.stderr
