"""`remora jobs export` against a running service: the whole history in small answers, and honest ends."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.api.conftest import ADMIN_KEY, Served, serve
from tests.cli.commands import PATIENCE_S, environment, run


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """A service with 450 jobs: two full answers and a part."""
    async with serve(tmp_path) as running:
        await running.take(metadata={"note": 'two\r\nlines, "quoted"'})
        [first] = await running.rows("SELECT * FROM jobs")
        names = ", ".join(name for name in first if name != "id")
        await running.sql(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 449) "
            f"INSERT INTO jobs (id, {names}) SELECT substr(jobs.id, 1, 28) || printf('%012x', i), {names} FROM n, jobs",
        )
        yield running


async def command(served: Served, *arguments: str, directory: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """A command that asks this service."""
    given = {"REMORA_URL": served.service.url, "REMORA_API_KEY": ADMIN_KEY} | more
    return await asyncio.to_thread(run, *arguments, directory=directory, **given)


async def test_csv_is_the_same_as_in_one_piece(served: Served, tmp_path: Path) -> None:
    """One line of names, every job once, also where a cell has line breaks; to a file as well."""
    whole = (await served.client.get("/v1/jobs/export")).text
    printed = await command(served, "jobs", "export", "--output", "jobs.csv", directory=tmp_path)
    written = (tmp_path / "jobs.csv").read_bytes().decode()

    assert printed.returncode == 0, printed.stderr
    assert written == whole
    assert len(list(csv.reader(io.StringIO(written, newline="")))) == 451
    assert not (tmp_path / "jobs.csv.part").exists()


async def test_jsonl_goes_to_standard_output(served: Served, tmp_path: Path) -> None:
    """Narrowed as asked."""
    await served.sql("UPDATE jobs SET status = 'cancelled', finished_at = 1, due_at = NULL WHERE id LIKE '%1'")
    arguments = ("jobs", "export", "--format", "jsonl", "--status", "cancelled")
    printed = await command(served, *arguments, directory=tmp_path)
    rows = [json.loads(line) for line in printed.stdout.splitlines()]

    assert printed.returncode == 0, printed.stderr
    assert rows
    assert {row["status"] for row in rows} == {"cancelled"}


async def test_what_callers_wrote_moves_no_cursor(served: Served, tmp_path: Path) -> None:
    """A terminal gets escapes; a pipe gets what was stored."""
    await served.take(metadata={"note": "\u202e\x9b2J"}, tags=["nasty"])
    mine, its = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service", "jobs", "export", "--tag", "nasty"),
        cwd=tmp_path,
        env=environment(REMORA_URL=served.service.url, REMORA_API_KEY=ADMIN_KEY),
        stdout=its,
    )
    assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
    os.close(its)
    shown = os.read(mine, 65_536).decode()
    os.close(mine)
    piped = await command(served, "jobs", "export", "--tag", "nasty", directory=tmp_path)

    assert r"\u202e\x9b2J" in shown
    assert all(line.isprintable() for line in shown.replace("\r", "").split("\n"))
    assert "\u202e\x9b2J" in piped.stdout


def test_nothing_stays_behind_where_nobody_answered(tmp_path: Path) -> None:
    """No empty file of a service that cannot be reached; one that holds a part would stay."""
    settings = {"REMORA_URL": "http://127.0.0.1:9", "REMORA_API_KEY": ADMIN_KEY}
    printed = run("jobs", "export", "--output", "jobs.csv", directory=tmp_path, **settings)

    assert printed.returncode == 3
    assert list(tmp_path.glob("jobs.csv*")) == []


@pytest.mark.parametrize(
    ("more", "arguments", "told"),
    [
        ({"REMORA_API_KEY": ""}, (), (2, "set REMORA_API_KEY")),
        ({"REMORA_API_KEY": "rmk_nobody-knows-this-key-here"}, (), (2, "401")),
        ({}, ("--created-after", "yesterday"), (1, "created_after")),
        ({"REMORA_URL": "http://127.0.0.1:9"}, (), (3, "connect")),
        ({}, ("--output", "/nowhere/at/all.csv"), (3, "cannot be written")),
    ],
)
async def test_what_goes_wrong_is_told(
    more: dict[str, str], arguments: tuple[str, ...], told: tuple[int, str], served: Served, tmp_path: Path
) -> None:
    """A line and a status, no traceback."""
    printed = await command(served, "jobs", "export", *arguments, directory=tmp_path, **more)

    assert printed.returncode == told[0]
    assert told[1] in printed.stderr
    assert "Traceback" not in printed.stderr
