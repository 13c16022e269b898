"""Those who verify what we signed: the examples in `examples/verify`, and the official libraries. Each is a real process."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks.webhooks import Webhook

from service.signing import Signer, signature_headers

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples" / "verify"
NPM = ROOT / "tests" / "examples" / "npm"
PATIENCE_S = 30.0
BUILD_PATIENCE_S = 240.0  # a first build of Go's own library, or a slow registry
LANGUAGES = ("python", "node", "go")


@dataclass(frozen=True, slots=True)
class Message:
    """One request as it would arrive."""

    headers: Mapping[str, str]
    body: bytes


def message(signers: Sequence[Signer], body: bytes, *, offset_s: float = 0, event_id: str = "evt_1") -> Message:
    """One that is signed now, or so many seconds from now."""
    return Message(signature_headers(signers, event_id, int(time.time() + offset_s), body), body)


def tool(name: str) -> str:
    """A program of this machine; without it the test is skipped, and says so."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed, so that what needs it is not verified here")
    return found


def command(language: str, directory: Path) -> list[str]:
    """How the example of a language is started; Go's is built into the directory first."""
    if language == "python":
        return [sys.executable, str(EXAMPLES / "subscriber.py")]
    if language == "node":
        return [tool("node"), str(EXAMPLES / "subscriber.mjs")]
    built = directory / "subscriber"
    if not built.exists():
        environ = {**os.environ, "GOPROXY": "off", "GOTOOLCHAIN": "local"}
        source = str(EXAMPLES / "subscriber.go")
        build = [tool("go"), "build", "-o", str(built), source]
        subprocess.run(build, cwd=directory, env=environ, check=True, timeout=BUILD_PATIENCE_S)
    return [str(built)]


@dataclass(slots=True)
class Subscriber:
    """An example that listens."""

    url: str
    process: subprocess.Popen[str]

    def status(self, sent: Message) -> int:
        """What it answers."""
        with httpx.Client(trust_env=False, timeout=PATIENCE_S) as client:
            return client.post(self.url, content=sent.body, headers=dict(sent.headers)).status_code

    def stop(self) -> tuple[list[str], str]:
        """The lines that it printed, and what it complained about."""
        self.process.terminate()
        printed, complained = self.process.communicate(timeout=PATIENCE_S)
        return printed.splitlines(), complained


@contextlib.contextmanager
def subscriber(started_with: Sequence[str], keys: Sequence[str]) -> Iterator[Subscriber]:
    """An example that listens, with these keys."""
    with subprocess.Popen(
        [*started_with, "0"],
        env={**os.environ, "REMORA_WEBHOOK_KEYS": " ".join(keys)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as process:
        try:
            assert process.stdout is not None
            yield Subscriber(process.stdout.readline().strip(), process)
        finally:
            process.kill()


def run_shell(directory: Path, keys: Sequence[str], sent: Message) -> subprocess.CompletedProcess[str]:
    """Let the script judge one captured request."""
    headers, body = captured(directory, sent)
    return subprocess.run(
        [tool("sh"), str(EXAMPLES / "verify.sh"), str(headers), str(body)],
        env={**os.environ, "REMORA_WEBHOOK_KEYS": " ".join(keys)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def captured(directory: Path, sent: Message) -> tuple[Path, Path]:
    """The request as two files, as a subscriber would write it down."""
    headers, body = directory / "headers.txt", directory / "body.json"
    headers.write_bytes("".join(f"{name}: {value}\n" for name, value in sent.headers.items()).encode())
    body.write_bytes(sent.body)
    return headers, body


def install_npm(directory: Path, project: Path = NPM) -> Path:
    """A project with what it needs from npm, as its lock pins it; skipped where there is no npm or no registry.

    Args:
        directory: Where it is put.
        project: What is copied; else the one of the official library.
    """
    npm = tool("npm")
    tool("node")
    shutil.copytree(project, directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.py"))
    install = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-timeout=20000"]
    try:
        done = subprocess.run(
            install, cwd=directory, capture_output=True, text=True, timeout=BUILD_PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip("npm did not reach its registry in time, so that what needs it is not tried here")
    if done.returncode != 0:
        # A lock that does not fit, or a package that is not the pinned one, is no matter of the network.
        assert not any(code in done.stderr for code in ("EINTEGRITY", "EUSAGE", "EJSONPARSE")), done.stderr
        why = " ".join(re.findall(r"^npm error (?:code|errno) .*", done.stderr, re.MULTILINE))
        pytest.skip(f"npm did not reach its registry, so that what needs it is not tried here: {why}")
    return directory


def ask_npm(directory: Path, asked: Sequence[tuple[str, Message]]) -> list[dict[str, Any]]:
    """What the official library of npm says to each message with that secret: its event, or why it is refused."""
    lines = [
        json.dumps({"secret": secret, "headers": dict(each.headers), "body": base64.b64encode(each.body).decode()})
        for secret, each in asked
    ]
    done = subprocess.run(
        [tool("node"), "verify.mjs"],
        cwd=directory,
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.split("\n") if line]  # splitlines would split within strings


def ask_pypi(secret: str, sent: Message) -> Any:
    """The event, as the official library of PyPI believes it; raises what that raises."""
    return Webhook(secret).verify(sent.body, dict(sent.headers))
