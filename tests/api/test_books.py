"""Money over HTTP: limits, credits and statements; who may, what is refused, and what a caller without money is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.api.conftest import STUCK, Served

STRANGE = ["", "5.", "1e3", "NaN", "-Infinity", "0x1", "1.0000001", "9" * 5_000, 5, 5.5, True, None, [], {"a": 1}]


async def _account(served: Served, **given: Any) -> dict[str, Any]:
    answer = await served.client.post("/v1/accounts", json={"name": "shop", **given})
    assert answer.status_code == 201, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def test_account_begins_with_its_limit_and_its_credit(served: Served) -> None:
    """Three free generations: they stand in the balance and in the statement."""
    made = await _account(served, limit="prepaid", credit="0.03")
    async with served.keyed(made["key"]["secret"]) as client:
        own = (await client.get("/v1/account")).json()
        [first] = (await client.get("/v1/account/transfers")).json()["data"]

    prepaid = {"limit": "prepaid", "balance": "0.030000", "held": "0.000000", "available": "0.030000"}
    assert made["balance"] == own["balance"] == prepaid | {"currency": "USD"}
    assert (first["kind"], first["amount"], first["reason"]) == ("credit", "0.030000", "first credit")
    assert (first["debit"], first["credit"], first["job_id"]) == ("funding", "available", None)


async def test_jobs_are_taken_until_the_balance_is_held(served: Served) -> None:
    """Twenty at once on a credit for three: three are taken, the others are told what is missing."""
    made = await _account(served, limit="prepaid", credit="0.03")
    async with served.keyed(made["key"]["secret"]) as client:
        answers = await asyncio.gather(*(client.post("/v1/jobs", json=STUCK) for _ in range(20)))
        own = (await client.get("/v1/account")).json()["balance"]
        jobs = (await client.get("/v1/jobs")).json()["data"]
        moves = (await client.get("/v1/account/transfers", params={"limit": 1})).json()

    assert sorted(answer.status_code for answer in answers) == [202] * 3 + [402] * 17
    refusal = next(answer for answer in answers if answer.status_code == 402)
    assert refusal.headers["content-type"] == "application/problem+json"
    assert refusal.json() | {"detail": ""} == {
        "type": "about:blank",
        "title": "The balance is too small",
        "status": 402,
        "code": "insufficient_balance",
        "detail": "",
        "limit": "prepaid",
        "currency": "USD",
        "needed": "0.010000",
        "available": "0.000000",
        "missing": "0.010000",
    }
    assert (own["balance"], own["held"], own["available"]) == ("0.030000", "0.030000", "0.000000")
    assert len(jobs) == 3
    assert (moves["data"][0]["kind"], moves["data"][0]["job_id"]) == ("hold", jobs[0]["id"])
    assert moves["next_cursor"]


async def test_credit_is_put_in_once_for_its_key(served: Served) -> None:
    """Sent three times with one key it counts once; with another amount the key is refused."""
    account = (await _account(served, limit="prepaid"))["id"]
    url, headers = f"/v1/accounts/{account}/credit", {"Idempotency-Key": "invoice-7"}
    body = {"amount": "5.00", "reason": "invoice 7"}
    answers = await asyncio.gather(*(served.client.post(url, json=body, headers=headers) for _ in range(3)))
    other = await served.client.post(url, json=body | {"amount": "6.00"}, headers=headers)
    corrected = await served.client.post(url, json={"amount": "-5.25"})
    moves = (await served.client.get("/v1/account/transfers", params={"account_id": account})).json()["data"]

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert {answer.json()["balance"]["balance"] for answer in answers} == {"5.000000"}
    assert sorted(answer.headers.get("idempotent-replayed", "") for answer in answers) == ["", "true", "true"]
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert corrected.json()["balance"]["available"] == "-0.250000"
    assert [(move["kind"], move["amount"], move["reason"]) for move in moves] == [
        ("debit", "5.250000", None),
        ("credit", "5.000000", "invoice 7"),
    ]
    assert all(move["actor"].startswith("key_") for move in moves)


@pytest.mark.parametrize("amount", [*STRANGE, "0", "-0.000000", "1000000000.01"])
async def test_strange_amount_is_refused(served: Served, amount: Any) -> None:
    """422 at the field, and nothing moves."""
    account = (await served.client.get("/v1/account")).json()["id"]
    answer = await served.client.post(f"/v1/accounts/{account}/credit", json={"amount": amount})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/amount"
    assert await served.rows("SELECT id FROM transfers") == []


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/limit"),
        ({"limit": "daily"}, "/limit"),
        ({"limit": ["none"]}, "/limit"),
        ({"limit": "monthly"}, "/budget"),
        ({"limit": "none", "budget": "5"}, "/budget"),
        ({"limit": "monthly", "budget": "-5"}, "/budget"),
        ({"limit": "none", "credit": "5"}, "/credit"),
        *(({"limit": "monthly", "budget": strange}, "/budget") for strange in STRANGE),
    ],
)
async def test_strange_limit_is_refused(served: Served, body: dict[str, Any], pointer: str) -> None:
    """422 at the field, and the limit stays."""
    account = (await served.client.get("/v1/account")).json()["id"]
    answer = await served.client.patch(f"/v1/accounts/{account}", json=body)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert (await served.client.get("/v1/account")).json()["balance"]["limit"] == "none"


async def test_limit_is_changed_and_told(served: Served) -> None:
    """A month's budget shows what is spent of it and when it begins anew; jobs follow it at once."""
    made = await _account(served)
    async with served.keyed(made["key"]["secret"]) as client:
        before = await client.post("/v1/jobs", json=STUCK)
        changed = await served.client.patch(f"/v1/accounts/{made['id']}", json={"limit": "monthly", "budget": "0.015"})
        after = await client.post("/v1/jobs", json=STUCK)
        own = (await client.get("/v1/account")).json()["balance"]
        lifted = await served.client.patch(f"/v1/accounts/{made['id']}", json={"limit": "none"})
        again = await client.post("/v1/jobs", json=STUCK)

    assert [before.status_code, changed.status_code, after.status_code, again.status_code] == [202, 200, 402, 202]
    assert own == changed.json()["balance"]
    assert (own["budget"], own["spent"], own["held"], own["available"]) == (
        "0.015000",
        "0.000000",
        "0.010000",
        "0.005000",
    )
    assert after.json()["resets_at"] == own["resets_at"]
    assert own["resets_at"].endswith("-01T00:00:00.000Z")
    assert set(lifted.json()["balance"]) == {"currency", "limit", "balance", "held", "available"}


async def test_money_is_the_admins(served: Served) -> None:
    """403 for everybody else, also to look at another account; 404 for accounts that there are not."""
    mine = (await served.client.get("/v1/account")).json()["id"]
    async with await served.account() as client:
        refused = [
            await client.post(f"/v1/accounts/{mine}/credit", json={"amount": "5"}),
            await client.patch(f"/v1/accounts/{mine}", json={"limit": "none"}),
            await client.get("/v1/account/transfers", params={"account_id": mine}),
        ]
    for unknown in ("acc_01990000-0000-7000-8000-000000000000", "acc_1", "x" * 300, "%00"):
        missing = [
            await served.client.post(f"/v1/accounts/{unknown}/credit", json={"amount": "5"}),
            await served.client.patch(f"/v1/accounts/{unknown}", json={"limit": "none"}),
        ]
        assert [answer.status_code for answer in missing] == [404, 404], unknown

    assert [answer.status_code for answer in refused] == [403, 403, 403]
    assert await served.rows("SELECT id FROM transfers") == []


async def test_statement_is_paged(served: Served) -> None:
    """Pages join, newest first; a cursor of another list is refused."""
    account = (await served.client.get("/v1/account")).json()["id"]
    for amount in ("1", "2", "3"):
        await served.client.post(f"/v1/accounts/{account}/credit", json={"amount": amount})
    first = (await served.client.get("/v1/account/transfers", params={"limit": 2})).json()
    rest = (await served.client.get("/v1/account/transfers", params={"cursor": first["next_cursor"]})).json()
    foreign = (await served.client.get("/v1/accounts", params={"limit": 1})).json()["next_cursor"] or "YWNjOjE"
    wrong = await served.client.get("/v1/account/transfers", params={"cursor": foreign})

    assert [move["amount"][0] for move in first["data"] + rest["data"]] == ["3", "2", "1"]
    assert rest["next_cursor"] is None
    assert wrong.status_code == 400


@pytest.mark.parametrize("reason", [7, "x" * 501, "a\nb", ["x"]])
async def test_strange_reason_is_refused(served: Served, reason: Any) -> None:
    """422 at the field."""
    account = (await served.client.get("/v1/account")).json()["id"]
    answer = await served.client.post(f"/v1/accounts/{account}/credit", json={"amount": "5", "reason": reason})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/reason"
