"""What an account may have of keys and subscriptions, by setting; and the key without which nobody is admin."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.api.conftest import Served, serve


async def test_keys_and_subscriptions_are_capped_by_setting(tmp_path: Path) -> None:
    """However many are asked for at once: 409 with a code, and what there is stays."""
    async with serve(tmp_path, REMORA_MAX_KEYS="3", REMORA_MAX_SUBSCRIPTIONS="2") as served:
        client = await served.account()
        async with client:
            keys = await asyncio.gather(
                *(client.post("/v1/keys", json={"name": "x", "scopes": ["jobs:read"]}) for _ in range(5))
            )
            subscriptions = await asyncio.gather(
                *(client.post("/v1/subscriptions", json={"url": "https://shop.example/"}) for _ in range(4))
            )
            listed = (await client.get("/v1/keys")).json()["data"]

    assert sorted(each.status_code for each in keys) == [201, 201, 409, 409, 409]
    assert {each.json()["code"] for each in keys if each.status_code == 409} == {"too_many_keys"}
    assert sorted(each.status_code for each in subscriptions) == [201, 201, 409, 409]
    assert {each.json()["code"] for each in subscriptions if each.status_code == 409} == {"too_many_subscriptions"}
    assert len(listed) == 3


async def test_last_admin_key_is_not_revoked(served: Served) -> None:
    """409 with the fix, which works."""
    own = (await served.client.get("/v1/keys")).json()["data"][0]["id"]
    refused = await served.client.delete(f"/v1/keys/{own}")
    made = await served.client.post("/v1/keys", json={"name": "second", "scopes": ["admin"]})
    revoked = await served.client.delete(f"/v1/keys/{own}")
    async with served.keyed(made.json()["secret"]) as second:
        still = await second.get("/v1/accounts")

    assert (refused.status_code, refused.json()["code"]) == (409, "last_admin_key")
    assert "POST /v1/keys" in refused.json()["detail"]
    assert (revoked.status_code, still.status_code) == (204, 200)
