"""What the readme tells a newcomer to paste works."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from tests.cli.commands import PATIENCE_S, ROOT, read_until, start


def tour() -> str:
    block = re.search(
        r"^<!-- tour -->\n```sh\n(.+?)^```$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert block is not None
    return block[1]


def kind_of(picture: Path) -> bytes:
    return picture.read_bytes()[1:4]


async def test_tour_works_when_pasted(tmp_path: Path) -> None:
    """A job is taken and ends, its timeline and its picture come, and the mistake is explained."""
    service = await start("serve", directory=tmp_path, REMORA_PORT="0")
    printed = "\n".join(await read_until(service, "polling."))
    url = re.search(r"http://127\.0\.0\.1:\d+", printed)
    assert url is not None
    shell = await asyncio.create_subprocess_exec(
        "bash",
        "-euo",
        "pipefail",
        "-c",
        tour().replace("http://127.0.0.1:8080", url[0]),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
    )
    answers, _ = await asyncio.wait_for(shell.communicate(), PATIENCE_S)
    service.terminate()
    await asyncio.wait_for(service.communicate(), PATIENCE_S)

    assert shell.returncode == 0, answers
    assert b"HTTP/1.1 202" in answers
    assert b'"status":"completed"' in answers
    assert b'"type":"job.completed"' in answers
    assert b"/input/prompt" in answers
    assert kind_of(tmp_path / "picture.png") == b"PNG"
