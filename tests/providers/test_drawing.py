"""The provider in this process: a picture at once, without a network."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

from service.clock import VirtualClock
from service.providers.client import PollVerdict, Verdict
from service.providers.mapping import Money, Seen
from service.providers.registry import Provider, Registry
from tests.providers.scripted import ScriptedEgress


def sandbox() -> Provider:
    found = Registry.load({}, None, ScriptedEgress(), VirtualClock()).get("sandbox")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ({}, (512, 512)),
        ({"aspect_ratio": "16:9"}, (672, 384)),
        ({"width": 64, "height": 96}, (64, 96)),
        ({"width": 64}, (64, 512)),
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
