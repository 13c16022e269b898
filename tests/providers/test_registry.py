"""Which providers there are, and what is in force where a setting and a card both say something."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from service.clock import VirtualClock
from service.errors import CardInvalid, SettingsInvalid
from service.notation import SubmitRate
from service.providers.client import PollVerdict, Verdict
from service.providers.mapping import Money
from service.providers.registry import Registry
from service.settings import ProviderSettings
from tests.providers.scripted import ScriptedEgress, answer, found, provider, quoted

CARD = """\
card: 1
name: {name}
base_url: https://{name}.example/v2
operations:
  generate:
    input: {{type: object}}
    submit: {{path: /jobs, observe: {{task_id: id}}}}
"""


def loaded(cards_dir: Path | None = None, **settings: ProviderSettings) -> Registry:
    return Registry.load(settings, cards_dir, ScriptedEgress(), VirtualClock())


def test_built_in_cards_are_there_without_settings() -> None:
    """The sandbox needs nothing; apimodels says which setting it lacks."""
    registry = loaded()

    assert [provider.name for provider in registry.all()] == [
        "apimodels",
        "sandbox",
        "sharkai",
        "sharkapi",
        "sharkapi-v1",
    ]
    assert found(registry, "sandbox").configured
    assert not found(registry, "apimodels").configured
    assert "REMORA_PROVIDERS__APIMODELS__API_KEY" in (found(registry, "apimodels").reason or "")
    assert registry.get("nobody") is None


def test_apimodels_is_as_its_document_says() -> None:
    """Polls every 2–3 s, files for seven days, 404 tolerated for a minute, callbacks fetched."""
    apimodels = provider(ScriptedEgress())

    assert apimodels.default_operation == "generate"
    assert 2.0 <= apimodels.poll_every_s <= 3.0
    assert apimodels.retention_s == 7 * 86_400
    assert apimodels.not_found_grace_s == 60.0
    assert apimodels.verify == "fetch"
    assert apimodels.max_in_flight == 100
    assert apimodels.wants_callback("generate")
    assert apimodels.can_poll("generate")
    assert apimodels.operation("sing") is None


def test_prices_are_the_documented_ones() -> None:
    """$0.0100 an image for SparkPix; the page says nothing of other models."""
    apimodels = provider(ScriptedEgress())

    assert apimodels.estimate("generate", {"model": "sparkpix", "prompt": "x"}) == Money(10_000, "price_list")
    assert apimodels.estimate("generate", {"model": "other", "prompt": "x"}) is None


def test_settings_go_before_the_card() -> None:
    """Every setting of a provider, against what its card says."""
    apimodels = provider(
        ScriptedEgress(),
        ProviderSettings(
            callbacks="off",
            verify="trust",
            fallback_after=timedelta(seconds=7),
            poll_every=timedelta(seconds=9),
            max_in_flight=3,
            max_submits=7,
            submit_rate=SubmitRate(1, 10.0),
        ),
    )

    assert not apimodels.wants_callback("generate")
    assert apimodels.verify == "trust"
    assert (apimodels.fallback_after_s, apimodels.poll_every_s, apimodels.max_in_flight) == (7.0, 9.0, 3)
    assert (apimodels.timing("generate").fallback_after_s, apimodels.timing("generate").poll_every_s) == (7.0, 9.0)
    assert (apimodels.submits.room(), apimodels.max_submits) == (1, 7)


async def test_base_url_replaces_the_origin_and_keeps_the_path(tmp_path: Path) -> None:
    """The setting is the scheme, host and port that the document's paths hang on."""
    (tmp_path / "mine.yaml").write_text(CARD.format(name="mine"))
    egress = ScriptedEgress(answer(200, b'{"id": 5}'))
    settings = ProviderSettings(base_url="http://127.0.0.1:9000")

    outcome = await provider(egress, settings, name="mine", cards_dir=tmp_path).submit("generate", {}, None)

    assert egress.calls[0].url == "http://127.0.0.1:9000/v2/jobs"
    assert outcome.observation is not None
    assert outcome.observation.task_id == "5"


async def test_provider_without_a_key_is_never_asked() -> None:
    """What is not configured sends nothing, and says why."""
    egress = ScriptedEgress()
    apimodels = found(Registry.load({}, None, egress, VirtualClock()), "apimodels")

    submitted = await apimodels.submit("generate", {"model": "m", "prompt": "p"}, None)
    polled = await apimodels.poll("generate", "clxxx...", None)

    assert (submitted.verdict, polled.verdict) == (Verdict.NOT_SENT, PollVerdict.DENIED)
    assert submitted.message == polled.message == apimodels.reason
    assert egress.calls == []
    assert apimodels.read_callback("generate", quoted("success-response"), {}).task_id == "clxxx..."


def test_own_card_replaces_the_built_in_one(tmp_path: Path) -> None:
    """A card without auth needs no key; a name that is taken is taken over."""
    (tmp_path / "a.yaml").write_text(CARD.format(name="apimodels"))
    (tmp_path / "b.yml").write_text(CARD.format(name="mine"))
    (tmp_path / "notes.txt").write_text("no card")

    registry = loaded(tmp_path)

    assert [provider.name for provider in registry.all()] == [
        "apimodels",
        "mine",
        "sandbox",
        "sharkai",
        "sharkapi",
        "sharkapi-v1",
    ]
    assert found(registry, "apimodels").configured
    assert not found(registry, "apimodels").can_poll("generate")


def test_all_wrong_cards_are_told_at_once(tmp_path: Path) -> None:
    """Each with its file."""
    (tmp_path / "a.yaml").write_text("card: 1")
    (tmp_path / "b.yaml").write_bytes(b"\xff")
    (tmp_path / "c.yaml").write_text(CARD.format(name="mine"))
    (tmp_path / "d.yaml").write_text(CARD.format(name="mine"))

    with pytest.raises(CardInvalid) as caught:
        loaded(tmp_path)

    text = str(caught.value)
    assert f"{tmp_path / 'a.yaml'}:1: name: is missing" in text
    assert f"{tmp_path / 'b.yaml'}:1: card: cannot be read as UTF-8 text" in text
    assert f"{tmp_path / 'd.yaml'}:2: name: {tmp_path / 'c.yaml'} has the name 'mine' already" in text


def test_settings_for_no_card_are_refused() -> None:
    """A slip in the name of a card is no silent nothing, and names the nearest."""
    with pytest.raises(SettingsInvalid, match=r"REMORA_PROVIDERS__APIMODEL__…: there is no card 'apimodel'.*apimodels"):
        loaded(apimodel=ProviderSettings(api_key=SecretStr("k")))
