"""The verifying examples believe what we sign, through a rotation, and nothing else."""

from __future__ import annotations

import base64
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from service.clock import SeededRandomness
from service.signing import (
    Signer,
    decode_secret,
    encode_public_key,
    new_secret,
    new_seed,
    sign_v1,
    sign_v1a,
    signing_key,
)
from tests.verifiers import LANGUAGES, Message, captured, command, message, run_shell, subscriber, tool

SECRETS = [new_secret(SeededRandomness(seed)) for seed in range(3)]  # new, old, somebody else's
KEYS = [signing_key(new_seed(SeededRandomness(seed))) for seed in range(3)]
PUBLIC_KEYS = [encode_public_key(key) for key in KEYS]
SIGNERS: list[Signer] = [*map(decode_secret, SECRETS[:2]), *KEYS[:2]]  # in the grace of a rotation
OURS = [*SECRETS[:2], *PUBLIC_KEYS[:2]]
HELD = {"new secret": OURS[:1], "old secret": OURS[1:2], "new key": OURS[2:3], "old key": OURS[3:], "all": OURS}
HELD["a stranger's and ours"] = [SECRETS[2], PUBLIC_KEYS[2], OURS[1]]

BODIES = [
    b'{"type":"ping"}',
    json.dumps({"type": "job.completed", "größe": "12 €", "猫": "🐱\u2028"}, ensure_ascii=False).encode(),
    b'{\r\n "type": "job.failed" ,\t"a": "\\u0000%s.."}\r\n',
    json.dumps({"type": "job.completed", "data": "ü" * 200_000}, ensure_ascii=False).encode(),
]
TYPES = ["ping", "job.completed", "job.failed", "job.completed"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where Go's example is built, once."""
    return tmp_path_factory.mktemp("verify")


def lies() -> dict[str, Message]:
    """What nobody may believe, by what is wrong with it."""
    good = message(SIGNERS, BODIES[1])
    others: list[Signer] = [decode_secret(SECRETS[2]), KEYS[2]]
    stamp = good.headers["webhook-timestamp"]
    signed = ("evt_1", int(stamp), good.body)
    v1, v1a = sign_v1(decode_secret(SECRETS[0]), *signed), sign_v1a(KEYS[0], *signed)

    def changed(**headers: str) -> Message:
        return replace(good, headers={**good.headers, **{f"webhook-{name}": text for name, text in headers.items()}})

    return {
        "tampered body": replace(good, body=good.body.replace(b"12", b"13")),
        "longer body": replace(good, body=good.body + b" "),
        "no body": replace(good, body=b""),
        "another id": changed(id="evt_2"),
        "another time": changed(timestamp=str(int(stamp) + 1)),
        "padded time": changed(timestamp=f"0{stamp}"),
        "no number": changed(timestamp=f"{stamp}.0"),
        "huge number": changed(timestamp="9" * 400),
        "stale": message(SIGNERS, BODIES[1], offset_s=-330),
        "from the future": message(SIGNERS, BODIES[1], offset_s=330),
        "a stranger's": message(others, BODIES[1]),
        "crossed versions": changed(signature=f"v1,{v1a[4:]} v1a,{v1[3:]}"),
        "unknown version": changed(signature=f"v2,{v1[3:]} v1b,{v1a[4:]} {v1[3:]} {v1a[4:]}"),
        "cut": changed(signature=f"{v1[:-1]} {v1a[:-4]}"),
        "swapped": changed(signature=f"{v1[:3] + v1[3:].swapcase()} {v1a[:4] + v1a[4:].swapcase()}"),
        "garbage": changed(signature="v1, v1a, v1a,AAAA v1a,==== , * v1"),
        "empty": changed(signature=""),
        "too many": changed(signature=" ".join(["v1,AAAA"] * 20 + [v1, v1a])),
        **{
            f"no {name}": replace(good, headers={key: good.headers[key] for key in good.headers if key != name})
            for name in good.headers
        },
    }


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("language", LANGUAGES)
def test_subscriber_believes_what_we_sign(language: str, held: str, directory: Path) -> None:
    """With any one of the keys of a rotation, whatever the body's letters; each event is handled once."""
    with subscriber(command(language, directory), HELD[held]) as running:
        for number, body in enumerate(BODIES):
            sent = message(SIGNERS, body, event_id=f"evt_{number}", offset_s=280 * (number % 3 - 1))
            assert [running.status(sent), running.status(sent)] == [204, 204]
        printed, complained = running.stop()

    assert printed == [f"{event_type} evt_{number}" for number, event_type in enumerate(TYPES)]
    assert complained == ""


@pytest.mark.parametrize("language", LANGUAGES)
def test_subscriber_believes_nothing_else(language: str, directory: Path) -> None:
    """It answers 401, handles nothing, and goes on serving."""
    with subscriber(command(language, directory), OURS) as running:
        answers = {name: running.status(lie) for name, lie in lies().items()}
        after = running.status(message(SIGNERS, BODIES[0]))
        printed, complained = running.stop()

    assert answers == dict.fromkeys(answers, 401)
    assert (after, printed) == (204, ["ping evt_1"])
    assert complained.count("refused: ") == len(answers)
    assert len(complained.splitlines()) == len(answers)  # no traceback


@pytest.mark.parametrize("keys", [[], ["rmk_an-api-key-of-some-length"], ["whsec_MDEy"], ["whpk_MDEy", SECRETS[0]]])
@pytest.mark.parametrize("language", LANGUAGES)
def test_subscriber_wants_keys_that_can_verify(language: str, keys: list[str], directory: Path) -> None:
    """A key of the API would be taken for a secret, and no signature would ever fit; the mistake is told at the start."""
    with subscriber(command(language, directory), keys) as running:
        printed, complained = running.process.communicate(timeout=90)

    assert running.process.returncode == 1
    assert (running.url, printed) == ("", "")
    assert "REMORA_WEBHOOK_KEYS" in complained
    assert len(complained.splitlines()) == 1


@pytest.mark.parametrize("held", HELD)
def test_script_says_what_fits(held: str, tmp_path: Path) -> None:
    """One captured request, judged with OpenSSL; where more keys fit, it counts them."""
    tool("openssl")
    fitting = len(set(HELD[held]) & set(OURS))
    for body in BODIES:
        judged = run_shell(tmp_path, HELD[held], message(SIGNERS, body))
        assert (judged.returncode, judged.stderr) == (0, "")
        assert judged.stdout == f"evt_1: {fitting} of its signatures fit\n"


def test_script_refuses_everything_else(tmp_path: Path) -> None:
    """With the reason, and without a word on the output."""
    tool("openssl")
    for name, lie in lies().items():
        judged = run_shell(tmp_path, OURS, lie)
        assert (judged.returncode, judged.stdout) == (1, ""), name
        assert judged.stderr.startswith("refused: "), name
        assert len(judged.stderr.splitlines()) == 1, name
    for key in ("rmk_an-api-key", "whsec_MDEy"):
        assert run_shell(tmp_path, [key], message([b"012"], BODIES[0])).returncode == 1  # MDEy are these bytes


def test_captured_request_is_sent_again_with_curl(tmp_path: Path) -> None:
    """As the script's head says: a subscriber is tried with what was captured, byte for byte."""
    headers, body = captured(tmp_path, message(SIGNERS, BODIES[2]))
    with subscriber(command("python", tmp_path), OURS[:1]) as running:
        again = [
            tool("curl"),
            "-sS",
            "-i",
            "--noproxy",
            "*",
            "-H",
            f"@{headers}",
            "--data-binary",
            f"@{body}",
            running.url,
        ]
        answer = subprocess.run(again, capture_output=True, text=True, timeout=90, check=True)
        printed, _ = running.stop()

    assert " 204 " in answer.stdout.splitlines()[0]
    assert printed == ["job.failed evt_1"]


def test_secrets_of_every_length_fit(directory: Path) -> None:
    """Callers bring 24 to 64 bytes."""
    secrets = ["whsec_" + base64.b64encode(bytes(range(size))).decode() for size in (24, 25, 32, 63, 64)]
    sent = message([decode_secret(secret) for secret in secrets], BODIES[1])
    for language in LANGUAGES:
        for secret in secrets:
            with subscriber(command(language, directory), [secret]) as running:
                assert running.status(sent) == 204
    assert [run_shell(directory, [secret], sent).returncode for secret in secrets] == [0] * 5
