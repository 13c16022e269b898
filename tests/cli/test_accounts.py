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


def test_key_that_was_made_is_used_on_this_machine_only(tmp_path: Path) -> None:
    """Beside the database lies an admin key: it goes to loopback, and to no other address."""
    (tmp_path / "remora.db.admin-key").write_text("rmk_made\n")
    near = run("accounts", "list", directory=tmp_path, REMORA_URL="http://127.0.0.1:9")
    far = run("accounts", "list", directory=tmp_path, REMORA_URL="http://remora.example")

    assert "no key" not in near.stderr
    assert near.returncode == 3
    assert "set REMORA_API_KEY" in far.stderr
    assert far.returncode == 2
