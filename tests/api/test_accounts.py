"""Accounts and keys over HTTP: who may make them, what is shown once, and what is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest

from service.signing import decode_secret
from tests.api.conftest import Served


async def test_account_is_made_with_a_key_that_works(served: Served) -> None:
    """201 with the account, its signing secret and a first key; both secrets are shown here only."""
    made = await served.client.post("/v1/accounts", json={"name": "shop"})
    account = made.json()
    async with served.keyed(account["key"]["secret"]) as client:
        own = (await client.get("/v1/account")).json()
        keys = (await client.get("/v1/keys")).json()["data"]

    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    assert len(decode_secret(account["secret"])) == 32
    assert re.fullmatch(r"rmk_[A-Za-z0-9_-]{43}", account["key"]["secret"])
    assert own == {
        "id": account["id"],
        "name": "shop",
        "status": "active",
        "webhook_secret_prefix": account["secret"][:10],
        "balance": {
            "currency": "USD",
            "limit": "none",
            "balance": "0.000000",
            "held": "0.000000",
            "available": "0.000000",
        },
        "created_at": own["created_at"],
    }
    assert [(key["id"], key["prefix"], "secret" in key) for key in keys] == [
        (account["key"]["id"], account["key"]["secret"][:8], False)
    ]
    assert keys[0]["scopes"] == ["account", "deliveries", "jobs:read", "jobs:write", "subscriptions"]


async def test_secret_is_rotated_and_shown_once(served: Served) -> None:
    """Another secret each time, its beginning in the account, and the time until which the old one co-signs."""
    first = await served.client.post("/v1/account/rotate-secret")
    second = await served.client.post("/v1/account/rotate-secret", json={})
    own = (await served.client.get("/v1/account")).json()

    assert first.status_code == second.status_code == 200
    assert first.json()["secret"] != second.json()["secret"]
    assert own["webhook_secret_prefix"] == second.json()["secret"][:10]
    assert "secret" not in own
    assert second.json()["previous_secret_until"] > second.json()["created_at"]


async def test_key_gives_only_what_its_maker_has(served: Served) -> None:
    """A key of an account makes no admin, nor a key of another account; an admin makes both."""
    mine = (await served.client.get("/v1/account")).json()["id"]
    client = await served.account()
    async with client:
        admin = await client.post("/v1/keys", json={"name": "x", "scopes": ["admin"]})
        foreign = await client.post("/v1/keys", json={"name": "x", "scopes": ["jobs:read"], "account_id": mine})
        looked = await client.get("/v1/keys", params={"account_id": mine})
        narrow = await client.post("/v1/keys", json={"name": "x", "scopes": ["account"]})
        async with served.keyed(narrow.json()["secret"]) as narrower:
            wider = await narrower.post("/v1/keys", json={"name": "x", "scopes": ["account", "jobs:read"]})

    assert [each.status_code for each in (admin, foreign, looked, narrow, wider)] == [403, 403, 403, 201, 403]
    assert "jobs:read" in wider.json()["detail"]


async def test_key_of_another_account_cannot_be_revoked(served: Served) -> None:
    """404 for the stranger, 204 for the admin, and the stranger's own is his to end."""
    mine = (await served.client.get("/v1/keys")).json()["data"][0]["id"]
    client = await served.account()
    async with client:
        own = (await client.get("/v1/keys")).json()["data"][0]["id"]
        refused = await client.delete(f"/v1/keys/{mine}")
        unknown = await client.delete("/v1/keys/key_1")
        by_admin = await served.client.delete(f"/v1/keys/{own}")
        after = await client.get("/v1/keys")

    assert [each.status_code for each in (refused, unknown, by_admin, after)] == [404, 404, 204, 401]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"scopes": ["jobs:read"]}, "/name"),
        ({"name": "", "scopes": ["jobs:read"]}, "/name"),
        ({"name": "x" * 101, "scopes": ["jobs:read"]}, "/name"),
        ({"name": "a\nb", "scopes": ["jobs:read"]}, "/name"),
        ({"name": "REMORA_ADMIN_KEY", "scopes": ["jobs:read"]}, "/name"),
        ({"name": "x"}, "/scopes"),
        ({"name": "x", "scopes": []}, "/scopes"),
        ({"name": "x", "scopes": "admin"}, "/scopes"),
        ({"name": "x", "scopes": ["jobs:read", "root"]}, "/scopes/1"),
        ({"name": "x", "scopes": [["admin"]]}, "/scopes/0"),
        ({"name": "x", "scopes": ["admin"], "expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"name": "x", "scopes": ["admin"], "expires_at": "tomorrow"}, "/expires_at"),
        ({"name": "x", "scopes": ["admin"], "expires_at": "2099-01-01T00:00:00"}, "/expires_at"),
        ({"name": "x", "scopes": ["admin"], "expires_at": 10**15}, "/expires_at"),
        ({"name": "x", "scopes": ["admin"], "account_id": "acc_1"}, "/account_id"),
        ({"name": "x", "scopes": ["admin"], "account_id": "acc_01990000-0000-7000-8000-000000000000"}, "/account_id"),
        ({"name": "x", "scopes": ["admin"], "secret": "rmk_mine"}, "/secret"),
    ],
)
async def test_bad_key_is_refused(served: Served, body: dict[str, Any], pointer: str) -> None:
    """422 with a pointer to the field, and no key."""
    before = await served.rows("SELECT id FROM keys")
    answer = await served.client.post("/v1/keys", json=body)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert await served.rows("SELECT id FROM keys") == before


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/name"),
        ({"name": "default"}, "/name"),
        ({"name": "x", "limit": "weekly"}, "/limit"),
        ({"name": "x", "limit": None}, "/limit"),
        ({"name": "x", "limit": "monthly"}, "/budget"),
        ({"name": "x", "limit": "monthly", "budget": 25}, "/budget"),
        ({"name": "x", "limit": "monthly", "budget": "-1"}, "/budget"),
        ({"name": "x", "limit": "prepaid", "budget": "1"}, "/budget"),
        ({"name": "x", "credit": "-1"}, "/credit"),
        ({"name": "x", "credit": "1e3"}, "/credit"),
        ({"name": 7}, "/name"),
    ],
)
async def test_bad_account_is_refused(served: Served, body: dict[str, Any], pointer: str) -> None:
    """422 with a pointer to the field."""
    answer = await served.client.post("/v1/accounts", json=body)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer


async def test_lists_are_paged_newest_first(served: Served) -> None:
    """Accounts and keys: pages that join."""
    for number in range(3):
        await served.client.post("/v1/accounts", json={"name": f"a{number}"})
        await served.client.post("/v1/keys", json={"name": f"k{number}", "scopes": ["jobs:read"]})
    for url, names in (("/v1/accounts", ["a2", "a1", "a0", "default"]), ("/v1/keys", ["k2", "k1", "k0"])):
        first = (await served.client.get(url, params={"limit": 3})).json()
        rest = (await served.client.get(url, params={"cursor": first["next_cursor"]})).json()

        assert [each["name"] for each in first["data"] + rest["data"]][: len(names)] == names
        assert (len(first["data"]), rest["next_cursor"]) == (3, None)


async def test_expired_key_is_refused(served: Served) -> None:
    """A key's end is its end, also when it was used before."""
    made = await served.client.post(
        "/v1/keys", json={"name": "x", "scopes": ["jobs:read"], "expires_at": "2099-01-01T01:00:00+01:00"}
    )
    assert made.json()["expires_at"] == "2099-01-01T00:00:00.000Z"
    await served.sql("UPDATE keys SET expires_at = 1 WHERE id = :id", id=made.json()["id"])
    async with served.keyed(made.json()["secret"]) as key:
        answer = await key.get("/v1/jobs")

    assert answer.status_code == 401
