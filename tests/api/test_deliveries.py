"""The attempt log over HTTP: what an operator and a receiver's owner see of each request, and what nobody sees."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.api.test_subscriptions import ended, get, make, post
from tests.e2e.rig import Rig, free_port, rig

SECRET = "sesame-7f3a"


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Rig]:
    """The whole service and a receiver."""
    async with rig(tmp_path) as running:
        yield running


def busy_for_an_hour() -> web.Response:
    """Nobody comes back before the test is over."""
    return web.Response(status=503, headers={"Retry-After": "3600"})


async def test_attempts_tell_all_but_secrets(at: Rig) -> None:
    """Time, parts of it, answer and headers of each request; the second one goes over the kept connection."""
    answers = [web.Response(status=503, text="x" * 20_000), web.Response(status=204)]
    at.receiver.answer = lambda _: answers.pop(0)
    made = await make(at, headers={"X-Key": SECRET}, schedule=[0.1])
    sent = await post(at, f"/v1/subscriptions/{made['id']}/test", status=202)
    delivery = await ended(at, sent["id"], "delivered")
    first, second = delivery["attempts"]
    received = {name.lower(): value for name, value in at.receiver.received[0].headers.items()}

    assert (first["status_code"], first["error_class"], first["error"]) == (503, "http_5xx", None)
    assert (first["response_body"], first["response_truncated"]) == ("x" * 16_384, True)
    assert first["timing"]["dns_ms"] is None
    assert 0 <= first["timing"]["connect_ms"] <= first["timing"]["first_byte_ms"] <= first["duration_ms"]
    assert (second["status_code"], second["error_class"]) == (204, None)
    assert (second["response_body"], second["response_truncated"]) == (None, False)
    assert {name: second["timing"][name] for name in ("dns_ms", "connect_ms", "tls_ms")} == {
        "dns_ms": None,
        "connect_ms": None,
        "tls_ms": None,
    }
    assert first["request_headers"] == {
        "X-Key": "…",
        "content-type": "application/json",
        "user-agent": received["user-agent"],
        "webhook-id": received["webhook-id"],
        "webhook-timestamp": received["webhook-timestamp"],
        "webhook-signature": "v1,…",
    }
    assert SECRET not in json.dumps(delivery)


async def test_store_keeps_no_secret_of_a_request(at: Rig) -> None:
    """Neither the header's value nor the signature is anywhere in the store's log of attempts."""
    made = await make(at, headers={"X-Key": SECRET})
    sent = await post(at, f"/v1/subscriptions/{made['id']}/test", status=202)
    await ended(at, sent["id"], "delivered")
    signature = at.receiver.received[0].headers["webhook-signature"].partition(",")[2]
    with contextlib.closing(sqlite3.connect(f"file:{at.directory}/remora.db?mode=ro", uri=True)) as connection:
        log = repr(connection.execute("SELECT * FROM attempts").fetchall())

    assert "X-Key" in log
    assert SECRET not in log
    assert signature not in log


async def test_dead_delivery_says_why(at: Rig) -> None:
    """Where no answer came, the word and the sentence say so, and the delivery tells why there is no further try."""
    made = await make(at, url=f"http://127.0.0.1:{free_port()}/hook", schedule=[])
    sent = await post(at, f"/v1/subscriptions/{made['id']}/test", status=202)
    delivery = await ended(at, sent["id"], "dead")
    [attempt] = delivery["attempts"]

    assert delivery["reason"] == "schedule_used_up"
    assert (attempt["status_code"], attempt["error_class"]) == (None, "connect_refused")
    assert attempt["error"] == "connect_refused: 127.0.0.1 refused the connection"
    assert attempt["timing"] == {"dns_ms": None, "connect_ms": None, "tls_ms": None, "first_byte_ms": None}


async def test_deliveries_of_one_event_are_listed(at: Rig) -> None:
    """The id that receivers see as `webhook-id` leads to all its deliveries; another kind of id is told."""
    made = await make(at)
    sent = await post(at, f"/v1/subscriptions/{made['id']}/test", status=202)
    await ended(at, sent["id"], "delivered")
    refused = await at.api.get("/v1/deliveries", params={"event": "job_1"})

    assert [each["id"] for each in (await get(at, "/v1/deliveries", event=sent["event_id"]))["data"]] == [sent["id"]]
    assert (await get(at, "/v1/deliveries", event=sent["event_id"], status="dead,pending"))["data"] == []
    assert refused.status_code == 400
    assert "evt_" in refused.text


async def test_health_tells_how_a_destination_does(at: Rig) -> None:
    """One failure and one success: when, how many, how fast, and nothing left to send."""
    answers = [503, 204]
    at.receiver.answer = lambda _: answers.pop(0)
    made = await make(at, schedule=[0.1])
    sent = await post(at, f"/v1/subscriptions/{made['id']}/test", status=202)
    await ended(at, sent["id"], "delivered")
    health = (await get(at, f"/v1/subscriptions/{made['id']}"))["health"]
    [listed] = (await get(at, "/v1/subscriptions"))["data"]

    assert health["last_failure_at"] < health["last_success_at"]
    assert health["failing_since"] is None
    assert (health["attempts_1h"], health["success_rate_1h"]) == (2, 0.5)
    assert 0 <= health["latency_ms"]["p50"] <= health["latency_ms"]["p95"]
    assert (health["backlog"], health["backlog_capped"], health["oldest_due_at"]) == (0, False, None)
    assert (health["breaker"], health["next_probe_at"], health["in_flight"]) == ("closed", None, 0)
    assert listed["health"] == health


async def test_health_and_metrics_tell_of_a_destination_that_is_down(at: Rig) -> None:
    """Five failures open its breaker; operators see it with the word for what goes wrong, and no address."""
    at.receiver.answer = lambda received: busy_for_an_hour() if received.type == "ping" else 204
    made = await make(at, schedule=[])
    for _ in range(5):
        sent = await post(at, f"/v1/subscriptions/{made['id']}/test", status=202)
        await ended(at, sent["id"], "dead")
    job = await at.finished((await at.take())["id"])
    [waits] = (await get(at, "/v1/deliveries", job=job["id"], subscription=made["id"]))["data"]
    health = (await get(at, f"/v1/subscriptions/{made['id']}"))["health"]
    told = (await at.api.get("/metrics")).text

    assert (health["breaker"], health["attempts_1h"], health["success_rate_1h"]) == ("open", 5, 0.0)
    assert health["next_probe_at"] > health["last_failure_at"] >= health["failing_since"]
    assert (waits["status"], health["backlog"], health["oldest_due_at"]) == ("pending", 1, waits["created_at"])
    assert 'remora_delivery_attempts_total{error_class="http_5xx",outcome="dead"} 5.0' in told
    assert "remora_lanes_open 1.0" in told
    assert f'remora_destination_pending{{subscription="{made["id"]}"}} 1.0' in told
    assert f'remora_destination_success_ratio{{subscription="{made["id"]}"}} 0.0' in told
    assert "127.0.0.1" not in told
