"""Subscriptions and deliveries over HTTP, with a real receiver at the other end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.deliveries.fanout import PART
from tests.api.conftest import Served
from tests.e2e.rig import Rig, rig
from tests.receiver import PATIENCE_S, verified

NEVER_MADE = "0199a000-0000-7000-8000-00000000000f"
CREATED = {
    *(
        "id",
        "url",
        "description",
        "events",
        "providers",
        "operations",
        "tags",
        "headers",
        "rate_per_s",
        "max_in_flight",
    ),
    *("schedule", "signatures", "stop_at_expiry", "public_key", "previous_public_key", "previous_secret_until"),
    *("status", "disabled_reason", "secret", "health", "created_at"),
}
DELIVERY = {
    *("id", "event_id", "type", "job_id", "subscription_id", "url", "status", "reason", "attempt_count"),
    *("next_attempt_at", "created_at"),
}


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Rig]:
    """The whole service, a sandbox and a receiver."""
    async with rig(tmp_path) as running:
        yield running


async def make(at: Rig, **fields: Any) -> dict[str, Any]:
    """A subscription to the receiver."""
    answer = await at.api.post("/v1/subscriptions", json={"url": at.receiver.url} | fields)
    assert answer.status_code == 201, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def post(at: Rig, path: str, body: object = None, *, status: int = 200) -> dict[str, Any]:
    """POST, with the status that is expected."""
    answer = await at.api.post(path, json=body) if body is not None else await at.api.post(path)
    assert answer.status_code == status, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def get(at: Rig, path: str, **query: str) -> dict[str, Any]:
    """GET what is there."""
    answer = await at.api.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def ended(at: Rig, delivery_id: str, *statuses: str) -> dict[str, Any]:
    """The delivery once it has one of these states: asked again and again, since an attempt is recorded after its answer."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = await get(at, f"/v1/deliveries/{delivery_id}")
            if found["status"] in statuses:
                return found


async def second_account(at: Rig) -> dict[str, str]:
    """The headers of somebody else."""
    made = await post(at, "/v1/accounts", {"name": "other"}, status=201)
    return {"Authorization": f"Bearer {made['key']['secret']}"}


async def test_subscription_is_shown_as_the_contract_says(at: Rig) -> None:
    """At creation with its secret, later without; its headers' values never."""
    answer = await at.api.post("/v1/subscriptions", json={"url": at.receiver.url, "headers": {"X-Key": "sesame"}})
    made = answer.json()
    shown = await get(at, f"/v1/subscriptions/{made['id']}")

    assert answer.headers["location"] == f"/v1/subscriptions/{made['id']}"
    assert answer.headers["cache-control"] == "no-store"
    assert set(made) == CREATED
    assert shown == {name: made[name] for name in CREATED - {"secret"}}
    assert shown["events"] == ["job.completed", "job.failed", "job.cancelled", "job.expired"]
    assert shown["headers"] == {"X-Key": "…"}
    assert shown["health"] == {
        "last_success_at": None,
        "last_failure_at": None,
        "failing_since": None,
        "backlog": 0,
        "backlog_capped": False,
        "oldest_due_at": None,
        "in_flight": 0,
        "attempts_1h": 0,
        "success_rate_1h": None,
        "latency_ms": {"p50": None, "p95": None},
        "breaker": "closed",
        "next_probe_at": None,
    }


async def test_job_reaches_a_subscription_signed_and_once(at: Rig) -> None:
    """The event of a job arrives with the subscription's own signature and headers, and its delivery tells how."""
    made = await make(at, headers={"X-Key": "sesame"}, tags=["shop"])
    other = await make(at, tags=["other"])
    taken = await post(
        at,
        "/v1/jobs",
        {
            "provider": "apimodels",
            "operation": "generate",
            "tags": ["shop"],
            "input": {"model": "sparkpix", "prompt": "A cat"},
        },
        status=202,
    )
    [received] = await at.receiver.wait_for(1)
    [listed] = (await get(at, "/v1/deliveries", job=taken["id"]))["data"]
    delivery = await ended(at, listed["id"], "delivered")
    health = (await get(at, f"/v1/subscriptions/{made['id']}"))["health"]

    assert verified(received, made["secret"])["type"] == "job.completed"
    assert received.headers["X-Key"] == "sesame"
    assert set(listed) == DELIVERY
    assert set(delivery) == DELIVERY | {"attempts"}
    assert (delivery["event_id"], delivery["subscription_id"]) == (received.id, made["id"])
    assert (delivery["attempt_count"], delivery["next_attempt_at"]) == (1, None)
    assert [attempt["status_code"] for attempt in delivery["attempts"]] == [204]
    assert health["last_success_at"] is not None
    assert (await get(at, "/v1/deliveries", subscription=other["id"]))["data"] == []


async def test_event_for_more_than_a_part_of_the_destinations_reaches_all(tmp_path: Path) -> None:
    """Those behind the first thousand too, each with its own signature."""
    async with rig(tmp_path, REMORA_MAX_SUBSCRIPTIONS=str(PART + 20)) as at:
        made = [await make(at, tags=["crowd"], headers={"X-Key": str(number)}) for number in range(PART + 20)]
        taken = await at.take(tags=["crowd"], callback_url=None)
        received = await at.receiver.wait_for(PART + 20, of=lambda each: each.job["id"] == taken["id"])

        assert sorted(int(each.headers["X-Key"]) for each in received) == list(range(PART + 20))
        for each in received:
            verified(each, made[int(each.headers["X-Key"])]["secret"])


async def test_ping_arrives_and_rotation_satisfies_old_and_new(at: Rig) -> None:
    """A receiver with either secret accepts during the grace; without a grace only the new one fits."""
    made = await make(at)
    path = f"/v1/subscriptions/{made['id']}"
    rotated = await post(at, f"{path}/rotate-secret", {"grace_s": 60})
    sent = await post(at, f"{path}/test", status=202)
    [both] = await at.receiver.wait_for(1)
    last = await post(at, f"{path}/rotate-secret", {"grace_s": 0})
    await post(at, f"{path}/test", {}, status=202)
    one = (await at.receiver.wait_for(2))[1]

    assert (sent["type"], sent["event_id"]) == ("ping", both.id)
    assert verified(both, made["secret"]) == verified(both, rotated["secret"])
    assert both.event["data"]["subscription"]["id"] == made["id"]
    assert verified(one, last["secret"])["type"] == "ping"
    assert len(one.headers["webhook-signature"].split(" ")) == 1


async def test_gone_destination_is_disabled_and_enabled_again(at: Rig) -> None:
    """410 disables and tells the account's others; a ping is refused meanwhile; enabled, it is sent to again."""
    gone = await make(at, url=f"{at.receiver.url}/gone")
    await make(at, events=["subscription.disabled"])
    path = f"/v1/subscriptions/{gone['id']}"
    at.receiver.answer = lambda received: 410 if received.type == "ping" else 204
    sent = await post(at, f"{path}/test", status=202)
    [told] = await at.receiver.wait_for(1, of=lambda received: received.type == "subscription.disabled")
    dead = await ended(at, sent["id"], "dead", "skipped")
    shown = await get(at, path)
    refused = await post(at, f"{path}/test", status=409)
    again = await post(at, f"/v1/deliveries/{sent['id']}/retry", status=409)
    at.receiver.answer = lambda _: 204
    enabled = await post(at, f"{path}/enable")
    await post(at, f"/v1/deliveries/{sent['id']}/retry", status=202)
    delivered = await ended(at, sent["id"], "delivered")

    assert told.event["data"]["subscription"]["id"] == gone["id"]
    assert dead["attempts"][0]["status_code"] == 410
    assert (shown["status"], shown["disabled_reason"]) == ("disabled", "the destination answered 410 Gone")
    assert (refused["code"], again["code"]) == ("subscription_disabled", "subscription_disabled")
    assert enabled["status"] == "enabled"
    assert [attempt["status_code"] for attempt in delivered["attempts"]] == [410, 204]


async def test_caller_disables_and_enables(at: Rig) -> None:
    """A pause by hand: what comes meanwhile is skipped, and the reason is shown."""
    made = await make(at)
    path = f"/v1/subscriptions/{made['id']}"
    paused = await post(at, f"{path}/disable", {"reason": "moving house"})
    again = await post(at, f"{path}/disable")
    refused = await post(at, f"{path}/test", status=409)
    wrong = await post(at, f"{path}/disable", {"reason": ""}, status=422)
    enabled = await post(at, f"{path}/enable")
    await post(at, f"{path}/test", status=202)

    assert (paused["status"], paused["disabled_reason"]) == ("disabled", "moving house")
    assert again["disabled_reason"] == "moving house"
    assert path in refused["detail"]
    assert wrong["errors"][0]["pointer"] == "/reason"
    assert enabled["status"] == "enabled"


async def test_delivered_one_can_be_sent_again_with_the_same_bytes(at: Rig) -> None:
    """The id and the body are the same, so that a receiver knows a repeat."""
    made = await make(at)
    sent = await post(at, f"/v1/subscriptions/{made['id']}/test", status=202)
    await ended(at, sent["id"], "delivered")
    again = await post(at, f"/v1/deliveries/{sent['id']}/retry", status=202)
    first, second = await at.receiver.wait_for(2)

    assert (again["id"], again["status"]) == (sent["id"], "pending")
    assert (first.id, first.body) == (second.id, second.body)


async def test_lists_are_paged_newest_first_and_filtered(at: Rig) -> None:
    """Every entry once, over pages of two; each filter alone and together."""
    made = [(await make(at))["id"] for _ in range(3)]
    sent = [(await post(at, f"/v1/subscriptions/{each}/test", status=202))["id"] for each in made]
    for each in sent:
        await ended(at, each, "delivered")
    for path, expected in (("/v1/subscriptions", made), ("/v1/deliveries", sent)):
        first = await get(at, path, limit="2")
        rest = await get(at, path, limit="2", cursor=first["next_cursor"])
        assert [each["id"] for each in first["data"] + rest["data"]] == expected[::-1]
        assert rest["next_cursor"] is None
    both = await get(at, "/v1/deliveries", subscription=made[1], status="delivered,dead")

    assert [each["id"] for each in both["data"]] == [sent[1]]
    assert (await get(at, "/v1/deliveries", status="pending"))["data"] == []


async def test_change_and_end_of_a_subscription(at: Rig) -> None:
    """PATCH changes what it names; DELETE answers 204 and the thing is gone, its deliveries are not."""
    made = await make(at)
    path = f"/v1/subscriptions/{made['id']}"
    sent = await post(at, f"{path}/test", status=202)
    await ended(at, sent["id"], "delivered")
    changed = await at.api.patch(path, json={"description": "shop", "schedule": ["1m"]})
    deleted = await at.api.delete(path)

    assert (changed.status_code, changed.json()["description"], changed.json()["schedule"]) == (200, "shop", [60.0])
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert (await at.api.get(path)).status_code == 404
    assert (await at.api.delete(path)).status_code == 404
    assert (await get(at, f"/v1/deliveries/{sent['id']}"))["url"] is None
    assert (await post(at, f"/v1/deliveries/{sent['id']}/retry", status=409))["code"] == "subscription_deleted"


async def test_nothing_of_another_account_is_there(at: Rig) -> None:
    """Every route answers 404 to somebody else's key, and lists are empty."""
    made = await make(at)
    sent = await post(at, f"/v1/subscriptions/{made['id']}/test", status=202)
    stranger = await second_account(at)
    sub, dlv = f"/v1/subscriptions/{made['id']}", f"/v1/deliveries/{sent['id']}"
    async with httpx.AsyncClient(base_url=at.service.url, headers=stranger, trust_env=False) as other:
        answers = [
            await other.get(sub),
            await other.patch(sub, json={"description": "mine"}),
            await other.delete(sub),
            await other.post(f"{sub}/rotate-secret"),
            await other.post(f"{sub}/test"),
            await other.post(f"{sub}/enable"),
            await other.get(dlv),
            await other.post(f"{dlv}/retry"),
        ]
        lists = [
            await other.get("/v1/subscriptions"),
            await other.get("/v1/deliveries", params={"subscription": made["id"]}),
        ]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(404, "not_found")] * 8
    assert [answer.json()["data"] for answer in lists] == [[], []]


async def test_bad_requests_are_told_and_nothing_is_stored(at: Rig) -> None:
    """Wrong bodies, ids, filters and cursors: a problem each, never a 500."""
    refused = [
        (await at.api.post("/v1/subscriptions", json={"url": "http://10.0.0.1/"}), 422, "url_address_forbidden"),
        (await at.api.post("/v1/subscriptions", json={"url": "gopher://x"}), 422, "url_invalid"),
        (await at.api.post("/v1/subscriptions", json=[]), 422, "invalid"),
        (
            await at.api.post("/v1/subscriptions", content=b"{", headers={"Content-Type": "application/json"}),
            400,
            "malformed_json",
        ),
        (await at.api.post("/v1/subscriptions", content=b"x"), 415, "unsupported_media_type"),
        (await at.api.get(f"/v1/subscriptions/job_{NEVER_MADE}"), 404, "not_found"),
        (await at.api.get(f"/v1/subscriptions/sub_{NEVER_MADE}"), 404, "not_found"),
        (await at.api.get("/v1/subscriptions/%00%ff"), 404, "not_found"),
        (await at.api.patch("/v1/subscriptions/%ff", json={}), 404, "not_found"),
        (await at.api.get(f"/v1/deliveries/dlv_{NEVER_MADE}"), 404, "not_found"),
        (await at.api.post(f"/v1/deliveries/dlv_{NEVER_MADE}/retry"), 404, "not_found"),
        (await at.api.post("/v1/deliveries/%ff/retry"), 404, "not_found"),
        (await at.api.get("/v1/deliveries?status=lost"), 400, "query_invalid"),
        (await at.api.get("/v1/deliveries?status="), 400, "query_invalid"),
        (await at.api.get("/v1/deliveries?job=4711"), 400, "query_invalid"),
        (await at.api.get("/v1/deliveries?subscription=%ff"), 400, "query_invalid"),
        (await at.api.get("/v1/deliveries?cursor=abc"), 400, "query_invalid"),
        (await at.api.get("/v1/deliveries?limit=99999999999999999999"), 400, "query_invalid"),
        (await at.api.get("/v1/subscriptions?colour=red"), 400, "query_invalid"),
    ]

    for answer, status, code in refused:
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.request.url
        assert answer.headers["content-type"] == "application/problem+json"
    assert (await get(at, "/v1/subscriptions"))["data"] == []


async def _patched(at: Rig, made: dict[str, Any], **fields: Any) -> dict[str, Any]:
    answer = await at.api.patch(f"/v1/subscriptions/{made['id']}", json=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def test_headers_are_not_told_to_another_origin(at: Rig) -> None:
    """A new address elsewhere drops them, says so, and is sent without; sent again with the address they go along."""
    made = await make(at, headers={"X-Key": "sesame", "X-Shop": "7"})
    elsewhere = at.receiver.url.replace("127.0.0.1", "localhost")
    moved = await _patched(at, made, url=elsewhere)
    shown = await get(at, f"/v1/subscriptions/{made['id']}")
    await post(at, f"/v1/subscriptions/{made['id']}/test", status=202)
    [received] = await at.receiver.wait_for(1)
    back = await _patched(at, made, url=at.receiver.url, headers={"X-Key": "open"})
    await post(at, f"/v1/subscriptions/{made['id']}/test", status=202)
    [_, again] = await at.receiver.wait_for(2)

    assert moved["dropped_headers"] == ["X-Key", "X-Shop"]
    assert moved["headers"] == shown["headers"] == {}
    assert "dropped_headers" not in shown
    assert not {"x-key", "x-shop"} & {name.lower() for name in received.headers}
    assert "dropped_headers" not in back
    assert again.headers["X-Key"] == "open"


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://shop.example/other?token=2", True),
        ("HTTPS://SHOP.example:443/hook", True),
        ("https://shop.example:8443/hook", False),
        ("https://evil.shop.example/hook", False),
        ("http://shop.example/hook", False),
    ],
)
async def test_headers_stay_within_their_origin(at: Rig, url: str, kept: bool) -> None:
    """Scheme, host and port decide, however they are spelt; without an address nothing is dropped."""
    made = await make(at, url="https://shop.example/hook?token=1", headers={"X-Key": "sesame"})
    untouched = await _patched(at, made, description="new")
    changed = await _patched(at, made, url=url)

    assert untouched["headers"] == {"X-Key": "…"}
    assert changed["headers"] == ({"X-Key": "…"} if kept else {})


async def test_creation_takes_no_parameter(served: Served) -> None:
    """What is meant for the body and stands in the query would be lost without a word."""
    refused = await served.client.post("/v1/subscriptions?rate_per_s=1", json={"url": "http://127.0.0.1:9/"})

    assert (refused.status_code, refused.json()["code"]) == (400, "query_invalid")
    assert (await served.client.get("/v1/subscriptions")).json()["data"] == []
