"""Adapters: whatever the code of others does, a job survives it and an operator reads what is wrong."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from pydantic import SecretStr

from service.clock import VirtualClock
from service.errors import CardInvalid
from service.providers.adapters import Adapters, Heard
from service.providers.client import PollVerdict, Verdict
from service.providers.registry import Provider, read_card
from service.providers.signatures import Judged
from service.settings import ProviderSettings
from service.states import ErrorCode
from tests.providers.scripted import CALLBACK_URL, ScriptedEgress, answer

CARD = """\
card: 1
name: painter
adapter: mine
base_url: https://painter.example
operations:
  generate:
    input: {type: object}
    submit: {path: /jobs}
    poll: {path: "/jobs/{id}", observe: {task_id: id, state: status, states: {done: completed}, urls: url}}
    cancel: {path: "/jobs/{id}"}
    callback: {slot: {field: hook}}
"""
TAKEN, DONE = answer(200, b'{"id":"t1"}'), answer(200, b'{"id":"t1","status":"done","url":"https://a.example/1"}')


def broken(*_: object) -> NoReturn:
    raise KeyError("s3cret of a request")


def nonsense(*_: object) -> object:
    return {"seen": "completed"}


def painter(egress: ScriptedEgress, **functions: Callable[..., object]) -> Provider:
    adapters = Adapters({"mine": lambda: SimpleNamespace(**functions)})
    settings = ProviderSettings(webhook_secrets=(SecretStr("hook"),))
    return Provider(read_card(CARD, "one.yaml", adapters), settings, egress, VirtualClock(), adapters=adapters)


@pytest.mark.parametrize("wrong", [broken, nonsense])
async def test_submit_survives_a_broken_adapter(wrong: Callable[..., object]) -> None:
    """Nothing is sent that was not built; what was sent and cannot be read may have been taken."""
    egress = ScriptedEgress(TAKEN)

    unsent = await painter(egress, build=wrong).submit("generate", {}, CALLBACK_URL)
    unread = await painter(egress, parse_submit=wrong).submit("generate", {}, CALLBACK_URL)

    assert (unsent.verdict, unsent.error_code) == (Verdict.REJECTED, ErrorCode.INTERNAL)
    assert (unread.verdict, unread.error_code, len(egress.calls)) == (Verdict.UNKNOWN, ErrorCode.SUBMIT_UNKNOWN, 1)
    assert "s3cret" not in f"{unsent.message} {unread.message}"
    assert "'mine'" in (unsent.message or "")


@pytest.mark.parametrize("wrong", [broken, nonsense])
async def test_polls_and_cancels_survive_a_broken_adapter(wrong: Callable[..., object]) -> None:
    """Nothing was learnt: asked again later."""
    unasked = await painter(ScriptedEgress(), build=wrong).poll("generate", "t1", None)
    unread = await painter(ScriptedEgress(DONE), parse_poll=wrong).poll("generate", "t1", None)
    uncancelled = await painter(ScriptedEgress(), build=wrong).cancel("generate", "t1")

    assert [unasked.verdict, unread.verdict] == [PollVerdict.RETRY, PollVerdict.RETRY]
    assert uncancelled.verdict.value == "retry"


@pytest.mark.parametrize("wrong", [broken, nonsense])
def test_callbacks_survive_a_broken_adapter(wrong: Callable[..., object]) -> None:
    """Unread is a hint, unjudged is no evidence."""
    provider = painter(ScriptedEgress(), parse_callback=wrong, verify=wrong)

    assert provider.read_callback("generate", DONE.body, {}).seen is None
    judged = provider.verify_callback("generate", DONE.body, {})
    assert (judged.valid, judged.evidence) == (None, False)
    assert "s3cret" not in judged.reason


async def test_what_an_adapter_lacks_the_card_does() -> None:
    """One function is enough."""
    provider = painter(ScriptedEgress(TAKEN, DONE), build=lambda ask: ask.call)

    taken = await provider.submit("generate", {}, CALLBACK_URL)
    done = await provider.poll("generate", "t1", None)

    assert taken.verdict is Verdict.ACCEPTED
    assert done.observation is not None
    assert done.observation.urls == ("https://a.example/1",)
    assert not provider.verify_callback("generate", DONE.body, {}).evidence


def unimportable() -> object:
    raise ImportError("No module named 'lxml'")


@pytest.mark.parametrize(
    ("loader", "reason"),
    [
        (unimportable, "cannot be imported: ImportError: No module named 'lxml'"),
        (SimpleNamespace, "has none of the functions build, parse_submit, parse_poll, parse_callback, verify"),
        (lambda: SimpleNamespace(build=7), "build of adapter 'mine' is no function"),
    ],
)
def test_unusable_adapter_is_told_with_the_cards_line(loader: Callable[[], object], reason: str) -> None:
    """As everything that is wrong with a card: file, line, field, reason."""
    with pytest.raises(CardInvalid) as caught:
        read_card(CARD, "one.yaml", Adapters({"mine": loader}))

    assert str(caught.value).startswith("one.yaml:3: adapter: ")
    assert reason in str(caught.value)


def test_only_what_a_card_names_is_imported() -> None:
    """An installed adapter that nobody asked for runs none of its code."""
    adapters = Adapters({"mine": lambda: SimpleNamespace(build=print), "other": unimportable})

    assert read_card(CARD, "one.yaml", adapters).adapter == "mine"


async def test_adapter_reads_what_was_packed() -> None:
    """Unpacked for those that read, as it came for the one that judges: a signature is over what was sent."""
    seen: list[Heard] = []

    def kept(heard: Heard, by_card: Any) -> Any:
        seen.append(heard)
        return by_card

    def judged(heard: Heard, _: object) -> Judged:
        seen.append(heard)
        return Judged(None, False, "")

    packed = answer(200, gzip.compress(b"\xef\xbb\xbf" + TAKEN.body), content_encoding="gzip")
    provider = painter(ScriptedEgress(packed), parse_submit=kept, parse_callback=kept, verify=judged)

    taken = await provider.submit("generate", {}, CALLBACK_URL)
    provider.read_callback("generate", packed.body, packed.headers)
    provider.verify_callback("generate", packed.body, packed.headers)

    assert taken.verdict is Verdict.ACCEPTED
    assert [(heard.body == packed.body, "content-encoding" in heard.headers) for heard in seen] == [
        (False, False),
        (False, False),
        (True, True),
    ]
    assert all(heard.document["id"] == "t1" for heard in seen)
