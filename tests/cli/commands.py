"""The command line as a user has it: a process of its own, in a directory and an environment of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

PATIENCE_S = 90.0  # for a process on a busy machine; only a hang takes as long
ROOT = Path(__file__).resolve().parent.parent.parent


def environment(**settings: str) -> dict[str, str]:
    """This process's environment without any setting of ours but these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("REMORA_", "COV"))}
    usual = {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "PYTHONUNBUFFERED": "1", "REMORA_LOG_FORMAT": "console"}
    return kept | usual | settings


def run(*arguments: str, directory: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        cwd=directory,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


async def start(*arguments: str, directory: Path, **settings: str) -> asyncio.subprocess.Process:
    """Start a command that stays."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "service",
        *arguments,
        cwd=directory,
        env=environment(**settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def read_until(process: asyncio.subprocess.Process, word: str) -> list[str]:
    """What it prints, up to the line with the word."""
    assert process.stdout is not None
    lines: list[str] = []
    async with asyncio.timeout(PATIENCE_S):
        while not lines or word not in lines[-1]:
            line = await process.stdout.readline()
            assert line, f"{word!r} never came: {lines}, {(await process.communicate())[1]!r}"
            lines.append(line.decode().rstrip())
    return lines
