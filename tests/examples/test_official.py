"""The official libraries accept every signature of ours: through a rotation, any letters, keys beside; the pin is kept."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks.webhooks import WebhookVerificationError

from service.clock import SeededRandomness
from service.signing import Signer, decode_secret, encode_secret, new_secret, new_seed, signing_key
from tests.verifiers import NPM, Message, ask_npm, ask_pypi, install_npm, message

NEW, OLD, STRANGERS = (new_secret(SeededRandomness(seed)) for seed in range(3))
KEYS = [signing_key(new_seed(SeededRandomness(seed))) for seed in range(2)]
V1: list[Signer] = [decode_secret(NEW)]
ROTATING: list[Signer] = [*V1, decode_secret(OLD)]
EVENTS: list[dict[str, object]] = [
    {"type": "ping"},
    {"größe": "12 €", "猫": "🐱", "تحية": "سلام", "lines": "\u2028\u0085\x7f\ufeff", "zero": "\x00"},
    {"data": "ü" * 100_000},
]


def sent() -> list[tuple[dict[str, object], Message]]:
    """Events as they are sent now: the libraries refuse what is older than five minutes, which a run of all tests takes."""
    return [
        (event, message(signers, json.dumps(event, ensure_ascii=False).encode()))
        for event in EVENTS
        for signers in (V1, [*V1, KEYS[0]], ROTATING, [*ROTATING, *KEYS])
    ]


@pytest.fixture(scope="module")
def npm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library from npm, installed as the lock says."""
    return install_npm(tmp_path_factory.mktemp("npm"))


def lies() -> list[Message]:
    """What they must refuse."""
    good = sent()[-1][1]
    return [
        replace(good, body=good.body + b" "),
        replace(good, headers={**good.headers, "webhook-id": "evt_2"}),
        message(ROTATING, good.body, offset_s=-330),
        message([decode_secret(STRANGERS), *KEYS], good.body),
    ]


def test_pypi_library_accepts_every_signature() -> None:
    """With the new secret, and with the old one while it co-signs."""
    for event, each in sent():
        assert ask_pypi(NEW, each) == event
        if each.headers["webhook-signature"].count("v1,") == 2:
            assert ask_pypi(OLD, each) == event


def test_npm_library_accepts_every_signature(npm: Path) -> None:
    """The same, and after the rotation the old secret fits nothing any more."""
    all_ = sent()
    rotating = [(event, each) for event, each in all_ if each.headers["webhook-signature"].count("v1,") == 2]
    accepted = ask_npm(npm, [(NEW, each) for _, each in all_] + [(OLD, each) for _, each in rotating])
    over = ask_npm(npm, [(OLD, message([*V1, KEYS[0]], b"{}"))])

    assert accepted == [{"event": event} for event, _ in [*all_, *rotating]]
    assert over == [{"refused": "No matching signature found"}]


def test_npm_library_refuses_what_we_did_not_sign(npm: Path) -> None:
    """Else its acceptance would mean nothing."""
    assert all("refused" in answer for answer in ask_npm(npm, [(NEW, lie) for lie in lies()]))


def test_pypi_library_refuses_what_we_did_not_sign() -> None:
    """Else its acceptance would mean nothing."""
    for lie in lies():
        with pytest.raises(WebhookVerificationError):
            ask_pypi(NEW, lie)


@pytest.mark.parametrize("size", [24, 25, 26, 63, 64])
def test_both_libraries_take_secrets_of_every_length(size: int, npm: Path) -> None:
    """Callers bring 24 to 64 bytes, whose text ends in none, one or two signs of padding."""
    secret = encode_secret(bytes(range(size)))
    sent = message([decode_secret(secret)], b'{"type":"ping"}')

    assert ask_pypi(secret, sent) == {"type": "ping"}
    assert ask_npm(npm, [(secret, sent)]) == [{"event": {"type": "ping"}}]


@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), max_size=20))
@settings(max_examples=10, deadline=None)
def test_both_libraries_take_any_letters(texts: list[str], npm: Path) -> None:
    """Whatever a prompt says."""
    sent = message([*ROTATING, KEYS[0]], json.dumps({"prompts": texts}, ensure_ascii=False).encode())

    assert ask_pypi(OLD, sent) == {"prompts": texts}
    assert ask_npm(npm, [(OLD, sent)]) == [{"event": {"prompts": texts}}]


def test_npm_package_is_pinned_and_names_no_registry() -> None:
    """The lock says what is installed, byte for byte, and leaves it to npm's own settings where from."""
    asked = json.loads((NPM / "package.json").read_text("utf-8"))["dependencies"]
    locked = json.loads((NPM / "package-lock.json").read_text("utf-8"))["packages"]
    installed = {name: entry for name, entry in locked.items() if name}

    assert asked == {"standardwebhooks": installed["node_modules/standardwebhooks"]["version"]}
    for entry in installed.values():
        assert "resolved" not in entry
        assert len(base64.b64decode(entry["integrity"].removeprefix("sha512-"), validate=True)) == 64
