"""What the documents tell a newcomer to paste works."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from tests.cli.commands import PATIENCE_S, ROOT, environment, read_until, start


def block(file: str, mark: str) -> str:
    """The fenced block below a mark."""
    text = (ROOT / file).read_text("utf-8")
    found = re.search(rf"^<!-- {mark} -->\n```\w+\n(.+?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"{file} has no block {mark!r}"
    return found[1]


def free_port() -> int:
    """A port that is free, and the one behind it, which the sandbox takes too."""
    while True:
        with socket.socket() as first, socket.socket() as second, contextlib.suppress(OSError, OverflowError):
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            second.bind(("127.0.0.1", port + 1))
            return port


@contextlib.asynccontextmanager
async def running(*arguments: str, word: str, directory: Path, **settings: str) -> AsyncIterator[str]:
    """A command that stays, from the line with the word on; what it printed up to there."""
    process = await start(*arguments, directory=directory, **settings)
    try:
        yield "\n".join(await read_until(process, word))
    finally:
        process.terminate()
        await asyncio.wait_for(process.communicate(), PATIENCE_S)


async def paste(script: str, directory: Path) -> str:
    """What a shell answers to the lines, which all have to succeed."""
    shell = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", script),
        cwd=directory,
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    answers, complaints = await asyncio.wait_for(shell.communicate(), PATIENCE_S)
    assert shell.returncode == 0, (answers, complaints)
    return answers.decode()


def url_in(printed: str) -> str:
    found = re.search(r"http://127\.0\.0\.1:\d+", printed)
    assert found is not None
    return found[0]


def kind_of(picture: Path) -> bytes:
    return picture.read_bytes()[1:4]


async def test_tour_works_when_pasted(tmp_path: Path) -> None:
    """A job is taken and ends, its timeline and its picture come, and the mistake is explained."""
    async with running("serve", word="polling.", directory=tmp_path, REMORA_PORT="0") as printed:
        answers = await paste(
            block("README.md", "tour").replace("http://127.0.0.1:8080", url_in(printed)), directory=tmp_path
        )

    assert "HTTP/1.1 202" in answers
    assert '"status":"completed"' in answers
    assert '"type":"job.completed"' in answers
    assert "/input/prompt: is required" in answers
    assert kind_of(tmp_path / "picture.png") == b"PNG"


async def test_second_tour_works_when_pasted(tmp_path: Path) -> None:
    """Ping, event, retry reach the subscriber with good signatures; health, delivery and the refused cancel are shown."""
    script = (
        block("README.md", "second tour")
        .replace(".venv/bin/python examples", f"{sys.executable} {ROOT / 'examples'}")
        .replace("9000", str(free_port()))
    )
    settings = {"REMORA_PORT": "0", "REMORA_EGRESS_ALLOW": "127.0.0.0/8"}
    async with running("serve", word="polling.", directory=tmp_path, **settings) as printed:
        answers = await paste(script.replace("http://127.0.0.1:8080", url_in(printed)), tmp_path)

    assert '{"status":"ok"}' in answers
    assert '"status":"ready"' in answers
    assert re.search(r"^ping evt_\S+$", answers, re.MULTILINE)
    arrived = re.findall(r"^job\.completed (job_\S+) http://127\.0\.0\.1:\d+/r/", answers, re.MULTILINE)
    assert len(arrived) == 1, "the repeat has the same id and is not handled again"
    assert answers.count('"attempt_count":') >= 2
    assert '"status_code":204' in answers
    assert '"next_cursor":' in answers
    assert re.search(r"^event: ping\ndata: \{\"id\":\"evt_", answers, re.MULTILINE)
    assert '"code":"not_cancellable"' in answers
    assert "HTTP/1.1 204" in answers


async def test_apimodels_against_the_sandbox_works_when_pasted(tmp_path: Path) -> None:
    """With the settings of the document one job ends by its callback and one by polling, and no warning is printed."""
    ports = {"9090": str(free_port()), "8080": str(free_port())}

    def placed(text: str) -> str:
        for usual, free in ports.items():
            text = text.replace(f":{usual}", f":{free}")
        return text

    given = placed(block("docs/operations.md", "by hand: settings"))
    (tmp_path / ".env").write_text(f"{given}REMORA_PORT={ports['8080']}\n")
    async with (
        running("sandbox", "--port", ports["9090"], word="REMORA_PUBLIC_URL", directory=tmp_path) as settings,
        running("serve", word="callbacks to", directory=tmp_path) as printed,
    ):
        answers = await paste(placed(block("docs/operations.md", "by hand: tour")), tmp_path)

    assert {line for line in given.splitlines() if "BASE_URL" in line or "API_KEY" in line} <= set(
        settings.splitlines()
    )
    assert "OUT OF REACH" not in printed
    assert answers.count('"status":"completed"') == 2
    assert re.findall(r'"resolved_by":"(\w+)"', answers) == ["callback", "poll"]
    assert '"source":"callback"' in answers
