"""Every operation of every documented provider, over real sockets: to a subscriber there is no difference between them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.rig import rig
from tests.receiver import verified

OTTER = {
    "model": "openai/gpt-image-2",
    "prompt": "A cute baby sea otter floating on calm water",
    "quality": "high",
    "n": 1,
}
SHARK = {"prompt": "A great white shark in bioluminescent deep ocean, cinematic lighting, 8K", "variant": "1k"}

#: Card, operation, input as its document shows it, who tells of the end, what is charged and on whose word.
OPERATIONS: list[tuple[str, str, dict[str, Any], str, str, str]] = [
    (
        "apimodels",
        "sparkpix",
        {"prompt": "A cute cat", "aspect_ratio": "16:9", "seed": 42},
        "response",
        "0.010000",
        "price_list",
    ),
    (
        "apimodels",
        "sparkpix-edit",
        {
            "prompt": "Make the background a sunset beach",
            "images": ["https://example.com/photo.jpg"],
            "aspect_ratio": "16:9",
        },
        "response",
        "0.013000",
        "price_list",
    ),
    ("sharkai", "generate", OTTER, "poll", "0.040000", "provider"),
    ("sharkai", "generate-sync", OTTER, "response", "0.040000", "provider"),
    ("sharkapi", "generate", SHARK, "poll", "0.030000", "provider"),
    (
        "sharkapi-v1",
        "generate",
        {"mode": "2k", "prompt": "Deep ocean shark, cinematic, 8K"},
        "poll",
        "0.020000",
        "provider",
    ),
]
IDS = [f"{card}/{operation}" for card, operation, *_ in OPERATIONS]


def quick(card: str) -> dict[str, str]:
    """Polls at once: the sandbox's tasks take a moment, the documented cadence two seconds."""
    return {f"REMORA_PROVIDERS__{card.upper().replace('-', '_')}__POLL_EVERY": "1s"}


@pytest.mark.parametrize(("card", "operation", "given", "resolved_by", "charged", "basis"), OPERATIONS, ids=IDS)
async def test_operation_ends_in_one_signed_event(  # noqa: PLR0917 - a row of the table
    tmp_path: Path, card: str, operation: str, given: dict[str, Any], resolved_by: str, charged: str, basis: str
) -> None:
    """Taken, done, charged as documented, and one event whose signature fits."""
    async with rig(tmp_path, env=quick(card)) as remora:
        secret = await remora.secret()
        taken = await remora.take(provider=card, operation=operation, input=given)
        [received] = await remora.receiver.wait_for(1)
        job = await remora.finished(taken["id"])

    event = verified(received, secret)
    assert event["type"] == "job.completed"
    assert (job["status"], job["resolved_by"]) == ("completed", resolved_by)
    assert (job["cost"]["charged"], job["cost"]["basis"]) == (charged, basis)
    assert len(remora.sandbox.tasks) == 1
    assert len(remora.receiver.received) == 1


@pytest.mark.parametrize(("card", "operation", "given"), [row[:3] for row in OPERATIONS], ids=IDS)
async def test_moderated_prompt_fails_and_costs_nothing(
    tmp_path: Path, card: str, operation: str, given: dict[str, Any]
) -> None:
    """Whichever way the provider says it, it is `content_moderated`, and nothing is charged."""
    async with rig(tmp_path, env=quick(card)) as remora:
        marked = given | {"prompt": given["prompt"] + " [fault:moderated]"}
        taken = await remora.take(provider=card, operation=operation, input=marked)
        await remora.receiver.wait_for(1)
        job = await remora.finished(taken["id"])

    assert (job["status"], job["error"]["code"]) == ("failed", "content_moderated")
    assert job["cost"]["charged"] in {None, "0.000000"}


@pytest.mark.parametrize(("card", "operation", "given"), [row[:3] for row in OPERATIONS], ids=IDS)
async def test_submit_whose_answer_is_cut_is_never_sent_twice(
    tmp_path: Path, card: str, operation: str, given: dict[str, Any]
) -> None:
    """With a callback it heals, without one it waits for an operator; one task in either case."""
    async with rig(tmp_path, env=quick(card)) as remora:
        marked = given | {"prompt": given["prompt"] + " [fault:cut-submit]"}
        taken = await remora.take(provider=card, operation=operation, input=marked)
        heals = card == "apimodels"
        job = await (remora.finished(taken["id"]) if heals else remora.until(taken["id"], "submit_unknown"))

    assert job["status"] == ("completed" if heals else "submit_unknown")
    assert len(remora.sandbox.tasks) == 1


async def test_pending_task_is_cancelled_by_its_provider(tmp_path: Path) -> None:
    """Shark AI cancels what is pending: one cancelled event, and nothing is charged."""
    async with rig(tmp_path, speed=2.0, env=quick("sharkai")) as remora:
        taken = await remora.take(provider="sharkai", operation="generate", input=OTTER)
        await remora.until(taken["id"], "running")
        answer = await remora.api.post(f"/v1/jobs/{taken['id']}/cancel")
        [received] = await remora.receiver.wait_for(1)

    assert answer.status_code == 200, answer.text
    assert (answer.json()["status"], answer.json()["resolved_by"]) == ("cancelled", "api")
    assert received.type == "job.cancelled"


async def test_task_that_has_started_is_not_cancelled(tmp_path: Path) -> None:
    """409 from the provider is `not_cancellable`, and the job goes on to its end."""
    async with rig(tmp_path, speed=10.0, env=quick("sharkai")) as remora:
        marked = OTTER | {"prompt": "an otter [fault:late-cancel]"}
        taken = await remora.take(provider="sharkai", operation="generate", input=marked)
        await remora.until(taken["id"], "running")
        answer = await remora.api.post(f"/v1/jobs/{taken['id']}/cancel")
        job = await remora.finished(taken["id"])

    assert answer.status_code == 409
    assert answer.json()["code"] == "not_cancellable"
    assert job["status"] == "completed"


async def test_provider_without_cancel_refuses_it(tmp_path: Path) -> None:
    """SharkAPI has none."""
    async with rig(tmp_path, speed=4.0, env=quick("sharkapi")) as remora:
        taken = await remora.take(provider="sharkapi", operation="generate", input=SHARK)
        await remora.until(taken["id"], "running")
        answer = await remora.api.post(f"/v1/jobs/{taken['id']}/cancel")
        await remora.finished(taken["id"])

    assert answer.status_code == 409
    assert answer.json()["code"] == "not_cancellable"


async def test_provider_that_is_down_queues_jobs_and_is_told(tmp_path: Path) -> None:
    """Five failures in a row open the breaker: jobs wait, `/v1/providers` and `/readyz` say so, and nothing fails."""
    async with rig(tmp_path) as remora:
        await remora.sandbox.stop()
        taken = await asyncio.gather(*(remora.take(f"cat {number}") for number in range(8)))
        async with asyncio.timeout(20):
            while (await remora.api.get("/v1/providers/apimodels")).json()["health"]["status"] != "down":  # noqa: ASYNC110 - as an operator would
                await asyncio.sleep(0.05)
        ready = (await remora.api.get("/readyz")).json()
        jobs = [await remora.job(job["id"]) for job in taken]

    assert "apimodels" in ready["providers_down"]
    assert {job["status"] for job in jobs} == {"queued"}
