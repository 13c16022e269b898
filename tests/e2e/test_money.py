"""Money from end to end: the real service and a provider in a box; the books after every kind of end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.rig import Rig, rig
from tests.receiver import PATIENCE_S


async def _shop(running: Rig, **given: Any) -> tuple[str, httpx.AsyncClient]:
    made = (await running.api.post("/v1/accounts", json={"name": "shop", "limit": "prepaid", **given})).json()
    headers = {"Authorization": f"Bearer {made['key']['secret']}"}
    return made["id"], httpx.AsyncClient(base_url=running.service.url, headers=headers, timeout=70, trust_env=False)


async def _balance(client: httpx.AsyncClient) -> tuple[str, str, str]:
    balance = (await client.get("/v1/account")).json()["balance"]
    return balance["balance"], balance["held"], balance["available"]


async def _take(client: httpx.AsyncClient, prompt: str = "A cat") -> httpx.Response:
    body = {
        "provider": "apimodels",
        "operation": "generate",
        "input": {"model": "sparkpix", "prompt": prompt, "aspect_ratio": "16:9"},
    }
    return await client.post("/v1/jobs", json=body, headers={"Prefer": "wait=30"})


async def test_three_free_generations_are_three(tmp_path: Path) -> None:
    """Each is held, charged and told; the fourth is 402 until somebody pays."""
    async with rig(tmp_path) as running:
        account, client = await _shop(running, credit="0.03")
        async with client:
            jobs = [(await _take(client)).json() for _ in range(3)]
            spent = await _balance(client)
            refused = await _take(client)
            await running.api.post(f"/v1/accounts/{account}/credit", json={"amount": "0.01", "reason": "paid"})
            paid = await _take(client)
            moves = (await client.get("/v1/account/transfers")).json()["data"]

    assert [(job["status"], job["cost"]["charged"]) for job in jobs] == [("completed", "0.010000")] * 3
    assert spent == ("0.000000", "0.000000", "0.000000")
    assert (refused.status_code, refused.json()["missing"]) == (402, "0.010000")
    assert (paid.status_code, paid.json()["status"]) == (200, "completed")
    assert [move["kind"] for move in reversed(moves)] == ["credit", *["hold", "charge"] * 3, "credit", "hold", "charge"]


async def test_failure_gives_the_money_back(tmp_path: Path) -> None:
    """Every task fails at the provider: nothing is charged, nothing stays held, and the next one fits."""
    async with rig(tmp_path, faults="failed") as running:
        _, client = await _shop(running, credit="0.01")
        async with client:
            for _ in range(3):
                job = (await _take(client)).json()
                assert (job["status"], job["cost"]["charged"]) == ("failed", "0.000000"), job

            assert await _balance(client) == ("0.010000", "0.000000", "0.010000")


async def test_repeated_callbacks_charge_once(tmp_path: Path) -> None:
    """Every callback comes twice, and every job is charged once."""
    async with rig(tmp_path, faults="double-callback") as running:
        _, client = await _shop(running, credit="1")
        async with client:
            jobs = await asyncio.gather(*(_take(client, f"A cat, number {number}") for number in range(10)))
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    if all(job["callbacks"] == 2 for job in (await client.get("/v1/jobs")).json()["data"]):
                        break
                    await asyncio.sleep(0.05)  # the second ones are on their way
            balance = await _balance(client)
            moves = (await client.get("/v1/account/transfers")).json()["data"]

    assert {job.json()["status"] for job in jobs} == {"completed"}
    assert balance == ("0.900000", "0.000000", "0.900000")
    assert sorted(move["kind"] for move in moves) == ["charge"] * 10 + ["credit"] + ["hold"] * 10
