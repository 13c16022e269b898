"""Cancelling a task: what is asked, and what each answer means. The bodies are those of sharkai-images.txt, where it has some."""

from __future__ import annotations

import json

import pytest

from service.clock import VirtualClock
from service.egress import Answer
from service.errors import EgressCut, EgressError, EgressNotSent, EgressRefused
from service.providers.client import CancelOutcome, CancelVerdict
from service.providers.mapping import Seen
from service.providers.registry import Registry
from tests.providers.scripted import KEY, ScriptedEgress, answer, provider

TASK_URL = "https://shark.ai/api/v1/images/generations/task_abc123"


def told(status: str) -> bytes:
    return json.dumps({"id": "task_abc123", "object": "image.generation.task", "status": status}).encode()


async def cancelled(given: Answer | EgressError) -> CancelOutcome:
    return await provider(ScriptedEgress(given), name="sharkai").cancel("generate", "task_abc123")


async def test_cancel_asks_the_documented_address() -> None:
    """POST …/:id/cancel with the key and no body."""
    egress = ScriptedEgress(answer(200, told("cancelled")))

    outcome = await provider(egress, name="sharkai").cancel("generate", "task_abc123")

    (call,) = egress.calls
    assert (call.method, call.url, call.body) == ("POST", f"{TASK_URL}/cancel", None)
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert outcome.verdict is CancelVerdict.CANCELLED
    assert outcome.observation is not None
    assert outcome.observation.seen is Seen.CANCELLED
    assert (outcome.http_status, outcome.duration_ms) == (200, 12)


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        (f"{TASK_URL}/cancel?now=1", f"{TASK_URL}/cancel?now=1"),
        ("https://shark.ai.evil.example/cancel", f"{TASK_URL}/cancel"),
        ("http://shark.ai/cancel", f"{TASK_URL}/cancel"),
    ],
)
async def test_cancel_url_of_the_answer_is_asked_on_the_own_origin_only(given: str, asked: str) -> None:
    """Our key goes to the provider and nowhere else."""
    egress = ScriptedEgress(answer(200))

    await provider(egress, name="sharkai").cancel("generate", "task_abc123", given)

    assert egress.calls[0].url == asked


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (answer(200), CancelVerdict.CANCELLED),
        (answer(204), CancelVerdict.CANCELLED),
        (answer(202, told("cancelled")), CancelVerdict.CANCELLED),
        (answer(200, told("completed")), CancelVerdict.TOO_LATE),
        (answer(200, told("failed")), CancelVerdict.TOO_LATE),
        (answer(200, told("running")), CancelVerdict.RETRY),
        (answer(409, b'{"error":{"message":"already started"}}'), CancelVerdict.TOO_LATE),
        (answer(400), CancelVerdict.TOO_LATE),
        (answer(404), CancelVerdict.NOT_FOUND),
        (answer(401), CancelVerdict.DENIED),
        (answer(403), CancelVerdict.DENIED),
        (answer(429, retry_after="3"), CancelVerdict.RETRY),
        (answer(500), CancelVerdict.RETRY),
        (answer(502), CancelVerdict.RETRY),
        (answer(504), CancelVerdict.RETRY),
        (answer(302, b"", location="/login"), CancelVerdict.RETRY),
        (EgressCut("timeout", "no answer"), CancelVerdict.RETRY),
        (EgressNotSent("connect", "refused"), CancelVerdict.RETRY),
        (EgressRefused("forbidden", "private"), CancelVerdict.RETRY),
    ],
)
async def test_cancel_tells_what_is_certain_from_what_is_not(
    given: Answer | EgressError, verdict: CancelVerdict
) -> None:
    """Cancelled only with the provider's word; too late only with it; anything else may be asked again."""
    outcome = await cancelled(given)

    assert outcome.verdict is verdict
    assert (outcome.message is None) == (verdict is CancelVerdict.CANCELLED)


async def test_too_late_is_told_in_the_providers_words() -> None:
    """What the caller reads, without our key."""
    outcome = await cancelled(answer(409, json.dumps({"error": {"message": f"already started {KEY}"}}).encode()))

    assert outcome.message == "sharkai answered 409: already started [secret]"


async def test_operation_without_cancel_is_never_asked() -> None:
    """Only sharkai's asynchronous operation has a cancel."""
    egress = ScriptedEgress()
    can = {
        (name, operation)
        for name in ("apimodels", "sandbox", "sharkai", "sharkapi", "sharkapi-v1")
        for operation in provider(egress, name=name).card.operations
        if provider(egress, name=name).can_cancel(operation)
    }
    outcome = await provider(egress).cancel("generate", "clxxx...")

    assert can == {("sharkai", "generate")}
    assert (outcome.verdict, outcome.message) == (CancelVerdict.DENIED, "apimodels cannot cancel generate")
    assert egress.calls == []


async def test_cancel_without_a_key_is_never_asked() -> None:
    """What is not configured sends nothing, and says why."""
    egress = ScriptedEgress()
    sharkai = Registry.load({}, None, egress, VirtualClock()).get("sharkai")
    assert sharkai is not None

    outcome = await sharkai.cancel("generate", "task_abc123")

    assert (outcome.verdict, outcome.message) == (CancelVerdict.DENIED, sharkai.reason)
    assert egress.calls == []
