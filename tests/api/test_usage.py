"""GET /v1/usage: the rows of the contract, narrowed and grouped, for the caller's own account, and no odd parameter a 500."""

from __future__ import annotations

import pytest

from tests.api.conftest import Served


async def test_usage_counts_what_just_ended(served: Served) -> None:
    """A job that is completed is in the answer that is asked for next; one that still runs is not."""
    job = await served.completed(tags=["shop", "new"])
    await served.take()
    answer = await served.client.get("/v1/usage")
    [row] = answer.json()["data"]

    assert answer.status_code == 200
    assert row == {
        "day": job["finished_at"][:10],
        "provider": "sandbox",
        "jobs": 1,
        "completed": 1,
        "failed": 0,
        "cancelled": 0,
        "expired": 0,
        "charged": job["cost"]["charged"] or "0.000000",
        "currency": "USD",
        "p50_s": row["p50_s"],
        "p95_s": row["p50_s"],
    }
    assert 0 < row["p50_s"] < 60


async def test_usage_is_grouped_and_narrowed_as_asked(served: Served) -> None:
    """Every group and every filter."""
    await served.completed(tags=["shop", "new"])
    await served.completed()
    stuck = await served.take()
    await served.client.post(f"/v1/jobs/{stuck['id']}/cancel")

    async def rows(asked: str) -> list[dict[str, object]]:
        answer = await served.client.get(f"/v1/usage?{asked}")
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]  # type: ignore[no-any-return]

    by_model = await rows("group_by=provider,model,status")
    assert [(row["provider"], row["model"], row["status"], row["jobs"]) for row in by_model] == [
        ("apimodels", "sparkpix", "cancelled", 1),
        ("sandbox", None, "completed", 2),
    ]
    assert [(row["tag"], row["jobs"]) for row in await rows("group_by=tag")] == [("new", 1), ("shop", 1)]
    [key] = await rows("group_by=key&status=completed&operation=generate")
    assert (str(key["key"])[:4], key["jobs"]) == ("key_", 2)
    assert [row["jobs"] for row in await rows("group_by=day&tag=shop")] == [1]
    assert await rows("from=2020-01-01&to=2020-01-31") == []
    assert await rows("provider=nobody") == []


async def test_usage_of_another_account_is_not_seen(served: Served) -> None:
    """Nothing crosses accounts, and the scope is asked for."""
    await served.completed()
    async with await served.account() as other, await served.account("jobs:read") as reader:
        own, refused = await other.get("/v1/usage"), await reader.get("/v1/usage")

    assert own.json() == {"data": []}
    assert refused.status_code == 403


async def test_usage_stays_when_its_job_is_forgotten(served: Served) -> None:
    """Erasing and retention take inputs, events and jobs; the figures stay as they were."""
    await served.completed()
    before = (await served.client.get("/v1/usage")).json()
    await served.sql("UPDATE events SET pos = NULL, body = NULL")
    await served.sql("UPDATE jobs SET input = '{}', input_full = NULL")

    assert (await served.client.get("/v1/usage")).json() == before


async def test_model_with_a_long_name_is_found(served: Served) -> None:
    """Names are counted by their first 100 characters, and asked for by as many."""
    job = await served.take()
    await served.client.post(f"/v1/jobs/{job['id']}/cancel")
    await served.sql("UPDATE jobs SET model = :model", model="m" * 100)
    for asked, found in (("m" * 101, [1]), ("m" * 100, [1]), ("m" * 99, [])):
        rows = (await served.client.get("/v1/usage", params={"model": asked})).json()["data"]

        assert [row["jobs"] for row in rows] == found


@pytest.mark.parametrize(
    "asked",
    [
        "from=yesterday",
        "from=2026-13-01",
        "from=2026-1-1",
        "to=10000-01-01",
        "from=0001-01-01&to=0001-01-02",
        "from=2026-02-01&to=2026-01-01",
        "from=2020-01-01&to=2026-01-01",
        "group_by=colour",
        "group_by=jobs",
        "group_by=",
        "group_by=,",
        "status=running",
        "status=",
        "key=key_1",
        "provider=",
        "limit=5",
        "tag=a&tag=b",
        "model=%00",
    ],
)
async def test_odd_parameters_are_told(asked: str, served: Served) -> None:
    """400 with the parameter's name."""
    answer = await served.client.get(f"/v1/usage?{asked}")

    assert answer.status_code == 400, answer.text
    assert answer.json()["code"] == "query_invalid"
    assert asked.partition("=")[0] in answer.json()["detail"] or "from" in answer.json()["detail"]


async def test_ends_of_time_are_days(served: Served) -> None:
    """The first and the last day that can be written."""
    for asked in ("from=1970-01-01&to=1970-01-01", "from=9999-12-31&to=9999-12-31"):
        assert (await served.client.get(f"/v1/usage?{asked}")).json() == {"data": []}
    assert (await served.client.get("/v1/usage?to=1970-01-02")).json() == {"data": []}
