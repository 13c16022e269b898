"""A job goes in, a callback comes back, one signed event goes out; whatever happens to the callback on its way."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from tests.e2e.rig import rig
from tests.receiver import Received, verified


async def test_callback_becomes_one_signed_event(tmp_path: Path) -> None:
    """Taken, submitted with our callback URL, called back, verified by a fetch, and delivered once with a signature that fits."""
    async with rig(tmp_path) as remora:
        secret = await remora.secret()
        taken = await remora.take(metadata={"order": "4711"})
        [received] = await remora.receiver.wait_for(1)
        job = await remora.finished(taken["id"])

    event = verified(received, secret)
    assert taken["status"] == "queued"
    assert event["type"] == "job.completed"
    assert event["data"]["job"]["id"] == taken["id"]
    assert event["data"]["job"]["metadata"] == {"order": "4711"}
    assert (job["status"], job["resolved_by"], job["callbacks"]) == ("completed", "callback", 1)
    assert job["cost"] == {"currency": "USD", "estimated": "0.010000", "charged": "0.010000", "basis": "price_list"}
    assert remora.submits() == 1


async def test_callback_may_be_trusted(tmp_path: Path) -> None:
    """With VERIFY=trust the callback is the fact, and nobody is asked."""
    async with rig(tmp_path, REMORA_PROVIDERS__APIMODELS__VERIFY="trust") as remora:
        taken = await remora.take()
        await remora.receiver.wait_for(1)
        job = await remora.finished(taken["id"])

    assert (job["status"], job["resolved_by"], job["polls"]) == ("completed", "callback", 0)


async def test_lost_callback_is_found_by_the_poller(tmp_path: Path) -> None:
    """No callback: after FALLBACK_AFTER the provider is asked."""
    async with rig(tmp_path, REMORA_PROVIDERS__APIMODELS__FALLBACK_AFTER="1s") as remora:
        taken = await remora.take("a cat [fault:lost-callback]")
        await remora.receiver.wait_for(1)
        job = await remora.finished(taken["id"])

    assert (job["status"], job["resolved_by"], job["callbacks"]) == ("completed", "poll", 0)


FAULTS = ("double-callback", "late-callback:1", "early-callback", "conflicting-callback", "garbled-callback")


@pytest.mark.parametrize(
    ("fault", "verify"),
    # Who trusts unsigned callbacks trusts forged ones: that is what the setting says, so forging is tried with `fetch` only.
    [(fault, verify) for fault in FAULTS for verify in ("fetch", "trust")] + [("forged-callback", "fetch")],
)
async def test_callbacks_that_go_wrong_end_in_one_state_and_one_event(tmp_path: Path, fault: str, verify: str) -> None:
    """Doubled, late, early, forged, conflicting, garbled: one final state, one event."""
    fallback = {"REMORA_PROVIDERS__APIMODELS__FALLBACK_AFTER": "2s", "REMORA_PROVIDERS__APIMODELS__VERIFY": verify}
    async with rig(tmp_path, env=fallback) as remora:
        taken = await remora.take(f"a cat [fault:{fault}]")
        job = await remora.finished(taken["id"])
        await remora.receiver.wait_for(1)
        await remora.sandbox.until(lambda: all(callback.status is not None for callback in remora.sandbox.callbacks))
        again = await remora.job(taken["id"])

    assert job["status"] == again["status"] == "completed"
    assert [received.type for received in remora.receiver.received] == ["job.completed"]
    assert remora.submits() == 1


async def test_failed_task_is_one_failed_event(tmp_path: Path) -> None:
    """The provider's failure, in our code and its words; nothing is charged."""
    async with rig(tmp_path) as remora:
        taken = await remora.take("a cat [fault:moderated]")
        [received] = await remora.receiver.wait_for(1)
        job = await remora.finished(taken["id"])

    assert received.type == "job.failed"
    assert job["error"] == {"code": "content_moderated", "message": "Content policy violation"}
    assert job["cost"]["charged"] == "0.000000"
    assert job["results"] == []


async def test_unknown_callback_token_is_404_and_leaves_no_trace(tmp_path: Path) -> None:
    """A guessed token is told nothing."""
    async with rig(tmp_path) as remora:
        guessed = await remora.api.post("/callbacks/" + "A" * 43, json={"code": 200})
        deeper = await remora.api.post("/callbacks/" + "A" * 43 + "/callback", json={"code": 200})

    assert (guessed.status_code, deeper.status_code) == (404, 404)


async def test_many_jobs_each_get_exactly_one_event(tmp_path: Path) -> None:
    """Fifty jobs with every fault among them: fifty events, none doubled, none lost."""
    faults = "lost-callback=0.2,double-callback=0.2,early-callback=0.2,garbled-callback=0.1"
    async with rig(tmp_path, faults=faults, REMORA_PROVIDERS__APIMODELS__FALLBACK_AFTER="1s") as remora:
        taken = await asyncio.gather(*(remora.take(f"cat {number}") for number in range(50)))
        await remora.receiver.wait_for(50)
        jobs = await asyncio.gather(*(remora.finished(job["id"]) for job in taken))

    assert {job["status"] for job in jobs} == {"completed"}
    assert sorted(received.job["id"] for received in remora.receiver.received) == sorted(job["id"] for job in taken)
    assert remora.submits() == 50


async def test_event_is_retried_with_the_same_id_and_bytes(tmp_path: Path) -> None:
    """A subscriber that fails twice gets the same event again, id and bytes unchanged, and then it is delivered."""
    async with rig(tmp_path) as remora:
        remora.receiver.answer = lambda _: 503 if len(remora.receiver.received) < 3 else 200
        secret = await remora.secret()
        taken = await remora.take()
        received = await remora.receiver.wait_for(3)
        await remora.finished(taken["id"])
        delivery = await _delivery(remora.api, "delivered")

    assert len({each.id for each in received}) == 1
    assert len({each.body for each in received}) == 1
    assert verified(received[2], secret)["type"] == "job.completed"
    assert [attempt["status_code"] for attempt in delivery["attempts"]] == [503, 503, 200]


async def test_dead_delivery_can_be_retried_by_hand(tmp_path: Path) -> None:
    """When the schedule is used up the delivery is dead; an operator sends it again."""
    async with rig(tmp_path, REMORA_DELIVERY_SCHEDULE="1s") as remora:
        remora.receiver.answer = lambda _: 500
        await remora.take()
        await remora.receiver.wait_for(2)
        dead = await _delivery(remora.api, "dead")
        remora.receiver.answer = lambda _: 200
        answer = await remora.api.post(f"/v1/deliveries/{dead['id']}/retry")
        await remora.receiver.wait_for(3)
        delivered = await _delivery(remora.api, "delivered")

    assert answer.status_code == 202
    assert delivered["id"] == dead["id"]
    assert delivered["attempt_count"] == 3


async def test_redirect_is_never_followed(tmp_path: Path) -> None:
    """A 302 to another address is a failed attempt, nothing more."""

    def redirect(_: Received) -> web.Response:
        return web.Response(status=302, headers={"Location": remora.receiver.url.replace("hooks", "elsewhere")})

    async with rig(tmp_path, REMORA_DELIVERY_SCHEDULE="1s") as remora:
        remora.receiver.answer = redirect
        await remora.take()
        await remora.receiver.wait_for(2)
        dead = await _delivery(remora.api, "dead")

    assert [attempt["status_code"] for attempt in dead["attempts"]] == [302, 302]


async def _delivery(api: httpx.AsyncClient, status: str) -> dict[str, Any]:
    """The newest delivery once it has that status, with its attempts."""
    async with asyncio.timeout(20):
        while not (found := (await api.get("/v1/deliveries", params={"status": status})).json()["data"]):  # noqa: ASYNC110 - the API is what is asked, as a caller would
            await asyncio.sleep(0.02)
    return (await api.get(f"/v1/deliveries/{found[0]['id']}")).json()  # type: ignore[no-any-return]
