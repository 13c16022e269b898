"""The provider in this process: a picture at once, without a network."""

from __future__ import annotations

import base64
import io

import aiohttp
import pytest
from PIL import Image

from service.clock import VirtualClock
from service.providers.client import PollVerdict, Verdict
from service.providers.mapping import Money, Seen
from service.providers.registry import Provider, Registry
from service.sandbox.server import SandboxOptions, SandboxServer
from tests.providers.scripted import ScriptedEgress


def sandbox() -> Provider:
    found = Registry.load({}, None, ScriptedEgress(), VirtualClock()).get("sandbox")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ({}, (1024, 1024)),
        ({"aspect_ratio": "16:9"}, (1024, 576)),
        ({"width": 64, "height": 96}, (64, 96)),
        ({"width": 64}, (64, 1024)),
    ],
)
async def test_submit_answers_with_the_finished_picture(given: dict[str, object], size: tuple[int, int]) -> None:
    """A real PNG of the asked size, inside the URL, for nothing."""
    provider = sandbox()
    asked = {"prompt": "A cute cat wearing a space helmet", **given}
    assert provider.validate("generate", asked) == []

    outcome = await provider.submit("generate", asked, None)

    assert outcome.verdict is Verdict.ACCEPTED
    assert outcome.observation is not None
    assert (outcome.observation.seen, outcome.observation.cost) == (Seen.COMPLETED, Money(0, "price_list"))
    head, _, data = outcome.observation.urls[0].partition(",")
    assert head == "data:image/png;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (picture.format, picture.size) == ("PNG", size)


async def test_sandbox_is_asked_once_and_calls_nobody_back() -> None:
    """There is never a task to poll and no callback to wait for."""
    provider = sandbox()

    assert provider.configured
    assert not provider.can_poll("generate")
    assert not provider.wants_callback("generate")
    assert (await provider.poll("generate", "x", None)).verdict is PollVerdict.NOT_FOUND
    assert provider.read_callback("generate", b"{}", {}).seen is None


@pytest.mark.parametrize("prompt", ["A cute cat wearing a space helmet", "鲨鱼 🦈 \n in two lines", "x" * 2_000])
async def test_sandbox_over_http_draws_the_same_picture(prompt: str) -> None:
    """For one prompt it makes no difference to whom it was sent: the files are the same, byte for byte."""
    outcome = await sandbox().submit("generate", {"prompt": prompt}, None)
    server = SandboxServer(SandboxOptions(speed=1_000.0, seed=1))
    await server.start()
    try:
        url = f"{server.base_urls['sharkai']}/api/v1/images/generations"
        async with aiohttp.ClientSession(headers={"Authorization": "Bearer sk-test"}) as client:
            answer = await client.post(url, json={"model": "openai/gpt-image-2", "prompt": prompt})
            [made] = (await answer.json())["data"]
            picture = await (await client.get(made["url"])).read()
    finally:
        await server.stop()

    assert outcome.observation is not None
    assert base64.b64decode(outcome.observation.urls[0].partition(",")[2]) == picture
