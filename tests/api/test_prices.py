"""A limit cannot be passed by a job without a price: over HTTP, with next to nothing on a prepaid account."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.conftest import Served, serve

INPUT: dict[str, Any] = {"model": "sparkpix", "prompt": "A cat"}
LEAST = "0.000001"  # USD
OTHER = {"provider": "apimodels", "operation": "generate", "input": INPUT | {"model": "other"}}


async def _poor(served: Served, credit: str = LEAST) -> httpx.AsyncClient:
    made = await served.client.post("/v1/accounts", json={"name": "poor", "limit": "prepaid", "credit": credit})
    return served.keyed(made.json()["key"]["secret"])


@pytest.mark.parametrize("n", ["1.0", '"4"', "null", "true", "0", "10001", "[4]", "-0", "1e0", '{"n": 4}'])
async def test_count_that_is_none_is_refused_at_its_field(served: Served, n: str) -> None:
    """As it is written in JSON, of a balance that pays for nothing."""
    body = f'{{"provider": "apimodels", "input": {{"model": "sparkpix", "prompt": "A cat", "n": {n}}}}}'
    async with await _poor(served) as client:
        refused = await client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})

    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")
    assert [error["pointer"] for error in refused.json()["errors"]] == ["/input/n"]
    assert await served.count() == 0


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"model": "SparkPix"}, "/input/model"),
        ({"model": "sparkpix "}, "/input/model"),
        ({"model": "spark\u200bpix"}, "/input/model"),
        ({"num_images": 100}, "/input/num_images"),
        ({"N": 100}, "/input/N"),
    ],
)
async def test_price_that_nobody_knows_is_refused_at_what_decides(
    served: Served, change: dict[str, Any], pointer: str
) -> None:
    """However much there is; without a limit it is taken."""
    body = OTHER | {"input": INPUT | change}
    for credit in (LEAST, "1000"):
        async with await _poor(served, credit) as client:
            refused = await client.post("/v1/jobs", json=body)
            balance = (await client.get("/v1/account")).json()["balance"]

        assert (refused.status_code, refused.json()["code"]) == (422, "price_unknown")
        assert [error["pointer"] for error in refused.json()["errors"]] == [pointer]
        assert balance["held"] == "0.000000"
    assert await served.count() == 0
    await served.take(body)


async def test_refused_price_is_not_remembered(served: Served) -> None:
    """The same key takes the job once the account has no limit any more; in a month's budget it is refused as well."""
    made = (await served.client.post("/v1/accounts", json={"name": "shop", "limit": "prepaid"})).json()
    async with served.keyed(made["key"]["secret"]) as client:
        answers = []
        for limit in ({"limit": "prepaid"}, {"limit": "monthly", "budget": "5"}, {"limit": "none"}):
            await served.client.patch(f"/v1/accounts/{made['id']}", json=limit)
            answers.append(await client.post("/v1/jobs", json=OTHER, headers={"Idempotency-Key": "one"}))

    assert [answer.status_code for answer in answers] == [422, 422, 202]
    assert "idempotent-replayed" not in answers[2].headers


async def test_large_input_without_a_price_leaves_no_file(tmp_path: Path) -> None:
    """It is refused before anything is written."""
    async with serve(tmp_path, REMORA_STORAGE_URL=f"file:{tmp_path}/kept") as served, await _poor(served) as client:
        refused = await client.post(
            "/v1/jobs", json=OTHER | {"input": INPUT | {"model": "other", "prompt": "A" * 200_000}}
        )
        files = [each for each in (tmp_path / "kept").rglob("*") if each.is_file() and each.parts[-3] == "inputs"]

    assert (refused.status_code, refused.json()["code"], files) == (422, "price_unknown", [])


async def test_job_without_a_price_is_not_done_again_under_a_limit(served: Served) -> None:
    """It was taken while the account had no limit; done again it is a new job, and priced as one."""
    made = (await served.client.post("/v1/accounts", json={"name": "shop"})).json()
    async with served.keyed(made["key"]["secret"]) as client:
        job = (await client.post("/v1/jobs", json=OTHER)).json()
        await served.sql(
            "UPDATE jobs SET status = 'expired', finished_at = created_at, due_at = NULL, overdue_at = NULL, "
            "lease_owner = NULL, lease_until = NULL, lease_epoch = lease_epoch + 1"
        )
        await served.client.patch(f"/v1/accounts/{made['id']}", json={"limit": "prepaid"})
        refused = await client.post(f"/v1/jobs/{job['id']}/resubmit")

    assert (refused.status_code, refused.json()["code"]) == (422, "price_unknown")
    assert await served.count() == 1


async def test_ceiling_is_held_of_a_balance(tmp_path: Path) -> None:
    """Where a card says that only the completion tells the cost; what is held is the setting's, and stands on the provider."""
    more = {
        "REMORA_PROVIDERS__SHARKAI__API_KEY": "sk-test",
        "REMORA_PROVIDERS__SHARKAI__BASE_URL": "http://127.0.0.1:9",
        "REMORA_PROVIDERS__SHARKAI__PRICE_CEILING": "0.40",
    }
    body = {"provider": "sharkai", "input": {"model": "openai/gpt-image-2", "prompt": "A cat", "n": 4}}
    async with serve(tmp_path, **more) as served, await _poor(served, "0.79") as client:
        taken, refused = [await client.post("/v1/jobs", json=body) for _ in range(2)]
        balance = (await client.get("/v1/account")).json()["balance"]
        provider = (await client.get("/v1/providers/sharkai")).json()

    assert (taken.status_code, taken.json()["cost"]["estimated"], taken.json()["cost"]["basis"]) == (
        202,
        None,
        "unknown",
    )
    assert (refused.status_code, refused.json()["needed"], refused.json()["available"]) == (402, "0.400000", "0.390000")
    assert (balance["held"], balance["available"]) == ("0.400000", "0.390000")
    price = provider["operations"]["generate"]["price"]
    assert (price["unknown"], price["ceiling"]) == (True, "0.400000")
