"""Events of the real service are believed by every verifier, before, during and after a rotation of secret and key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.rig import Rig, rig
from tests.receiver import Received
from tests.verifiers import LANGUAGES, Message, ask_npm, ask_pypi, command, install_npm, run_shell, subscriber, tool

PROMPT = "Ein Café für die 猫 🐱, “größer” als 12 €"


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Rig]:
    """The whole service, a sandbox and a receiver."""
    async with rig(tmp_path) as running:
        yield running


async def post(at: Rig, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """POST, which must succeed."""
    answer = await at.api.post(path, json=body)
    assert answer.is_success, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def received_after(at: Rig, trigger: str, body: dict[str, Any]) -> Message:
    """The request that comes to the subscription for what is asked for, as it came."""
    before = len(at.receiver.received)
    await post(at, trigger, body)
    received: Received = (await at.receiver.wait_for(before + 1))[-1]
    headers = {name.lower(): value for name, value in received.headers.items()}
    return Message({name: headers[name] for name in headers if name.startswith("webhook-")}, received.body)


def kinds(sent: Message) -> list[str]:
    """The versions of its signatures, in their order."""
    return [each.partition(",")[0] for each in sent.headers["webhook-signature"].split(" ")]


def believed(key: str, sent: Message, directory: Path) -> dict[str, bool]:
    """Who of the examples believes it with this key alone."""
    answers = {"shell": run_shell(directory, [key], sent).returncode == 0}
    for language in LANGUAGES:
        with subscriber(command(language, directory), [key]) as running:
            answers[language] = running.status(sent) == 204
    return answers


async def test_examples_believe_the_service_through_a_rotation(at: Rig, tmp_path: Path) -> None:
    """A job's event, one in the grace of a rotation and one after it; old keys fit as long as they co-sign."""
    for name in ("node", "go", "openssl"):
        tool(name)
    made = await post(at, "/v1/subscriptions", {"url": at.receiver.url, "signatures": ["v1a"]})
    path = f"/v1/subscriptions/{made['id']}"
    job = {"provider": "apimodels", "operation": "generate", "input": {"model": "sparkpix", "prompt": PROMPT}}
    first = await received_after(at, "/v1/jobs", job)
    rotated = await post(at, f"{path}/rotate-secret", {"grace_s": 3600})
    second = await received_after(at, f"{path}/test", {})
    ended = await post(at, f"{path}/rotate-secret", {"grace_s": 0})
    third = await received_after(at, f"{path}/test", {})

    def all_say(key: str, sent: Message, *, yes: bool) -> None:
        assert believed(key, sent, tmp_path) == dict.fromkeys(["shell", *LANGUAGES], yes)

    assert PROMPT.encode() in first.body
    assert [kinds(each) for each in (first, second, third)] == [
        ["v1", "v1a"],
        ["v1", "v1", "v1a", "v1a"],
        ["v1", "v1a"],
    ]
    assert rotated["previous_public_key"] == made["public_key"] != rotated["public_key"]
    for kind in ("secret", "public_key"):
        all_say(made[kind], first, yes=True)
        all_say(made[kind], second, yes=True)
        all_say(rotated[kind], second, yes=True)
        all_say(rotated[kind], third, yes=False)
        all_say(ended[kind], third, yes=True)


async def test_official_libraries_believe_the_service_through_a_rotation(at: Rig, tmp_path: Path) -> None:
    """Both know `v1` only, and are not put off by `v1a` beside it."""
    (tmp_path / "npm").mkdir()
    npm = install_npm(tmp_path / "npm")
    made = await post(at, "/v1/subscriptions", {"url": at.receiver.url, "signatures": ["v1", "v1a"]})
    path = f"/v1/subscriptions/{made['id']}"
    job = {"provider": "apimodels", "operation": "generate", "input": {"model": "sparkpix", "prompt": PROMPT}}
    first = await received_after(at, "/v1/jobs", job)
    rotated = await post(at, f"{path}/rotate-secret", {"grace_s": 3600})
    second = await received_after(at, "/v1/jobs", job)
    believed_with = [(made["secret"], first), (made["secret"], second), (rotated["secret"], second)]
    answers = ask_npm(npm, [*believed_with, (rotated["secret"], first)])

    for (secret, sent), answer in zip(believed_with, answers[:3], strict=True):
        event = ask_pypi(secret, sent)
        assert event["data"]["job"]["input"]["prompt"] == PROMPT
        assert answer == {"event": event}
    assert answers[3] == {"refused": "No matching signature found"}
