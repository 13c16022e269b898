"""`remora demo` as a process: the whole machine on this machine."""

from __future__ import annotations

import asyncio
import re
import signal
import sqlite3
from pathlib import Path

import pytest

from service.cli.demo.script import DOCUMENTED, plan
from service.db.inspection.invariants import breaches
from tests.cli.commands import PATIENCE_S, read_until, run, start

JOBS = len(plan(DOCUMENTED))  # every operation of every built-in card


def test_demo_once_ends_with_every_event(tmp_path: Path) -> None:
    """Status 0, one line for each final event with its latency, and nothing is left behind."""
    result = run("demo", "--once", directory=tmp_path, TMPDIR=str(tmp_path))

    assert result.returncode == 0, result.stdout + result.stderr
    lines = [line for line in result.stdout.splitlines() if re.search(r"job\.(completed|failed) ", line)]
    assert len(lines) == JOBS
    assert all(re.search(r"[\d,]+ ms  signature ✓", line) for line in lines)
    assert "callback lost → found by polling" in result.stdout
    assert f"All {JOBS} jobs ended with exactly one event" in result.stdout
    assert "\x1b" not in result.stdout
    assert result.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_demo_ignores_the_settings_around_it(tmp_path: Path) -> None:
    """A `.env` of a real service, and wrong settings, are not the demo's."""
    (tmp_path / ".env").write_text("REMORA_DATABASE_URL=sqlite:///precious.db\n")
    result = run("demo", "--once", directory=tmp_path, REMORA_PORT="wrong", REMORA_PUBLIC_URL="https://remora.example")

    assert result.returncode == 0, result.stdout + result.stderr
    assert not (tmp_path / "precious.db").exists()


async def test_demo_stays_up_and_its_lines_work_when_pasted(tmp_path: Path) -> None:
    """What it prints to be copied runs in a shell: a job is sent and found, its event shows up, a picture comes."""
    process = await start("demo", directory=tmp_path, TMPDIR=str(tmp_path))
    printed = await read_until(process, "picture.jpeg")
    pasted = printed[next(place for place, line in enumerate(printed) if line.startswith("URL=")) :]
    shell = await asyncio.create_subprocess_exec(
        "bash", "-euo", "pipefail", "-c", "\n".join(pasted), cwd=tmp_path, stdout=asyncio.subprocess.PIPE
    )
    answers, _ = await asyncio.wait_for(shell.communicate(), PATIENCE_S)
    job = re.match(rb"(job_[0-9a-f-]+)\n", answers)
    assert job is not None, answers
    shown = await read_until(process, job[1].decode())
    found = broken(tmp_path)
    process.send_signal(signal.SIGINT)
    rest, stderr = await asyncio.wait_for(process.communicate(), PATIENCE_S)

    assert shell.returncode == 0
    assert b'"status":"completed"' in answers
    assert "signature ✓" in shown[-1]
    assert picture(tmp_path)[:3] == b"\xff\xd8\xff"
    assert found == []
    assert (process.returncode, stderr) == (0, b"")
    assert rest.decode().splitlines()[-1] == "The demo has ended; its database and its log are removed."
    assert list(tmp_path.glob("remora-demo-*")) == []  # noqa: ASYNC240 - once, at the end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_demo_can_be_broken_off(number: signal.Signals, tmp_path: Path) -> None:
    """A signal in the middle ends it without a traceback and without anything left behind."""
    process = await start("demo", "--once", directory=tmp_path, TMPDIR=str(tmp_path))
    await read_until(process, "job.running")
    process.send_signal(number)
    _, stderr = await asyncio.wait_for(process.communicate(), PATIENCE_S)

    assert process.returncode not in {0, None}
    assert b"Traceback" not in stderr
    assert left_in(tmp_path) == []


def broken(directory: Path) -> list[object]:
    [database] = directory.glob("remora-demo-*/remora.db")
    connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
    try:
        return list(breaches(connection))
    finally:
        connection.close()


def picture(directory: Path) -> bytes:
    return (directory / "picture.jpeg").read_bytes()


def left_in(directory: Path) -> list[Path]:
    return list(directory.iterdir())
