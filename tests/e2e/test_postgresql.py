"""The whole service on a PostgreSQL: a job's way, a kill, a restart of the server's connections, a second process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

import asyncpg
import httpx
import pytest

from service.sandbox.server import SandboxOptions, SandboxServer
from tests import postgres
from tests.e2e.process import Process
from tests.e2e.rig import ADMIN_KEY, CAT, check, free_port
from tests.e2e.test_clock import DAY_S, SteppedProcess, needs_cc
from tests.e2e.test_crash import settled
from tests.receiver import PATIENCE_S, Receiver

HEADERS = {"Authorization": f"Bearer {ADMIN_KEY}"}


def settings(directory: Path) -> dict[str, str]:
    """Of a service whose database is on the server."""
    return {
        "REMORA_DATABASE_URL": postgres.database_of(directory),
        "REMORA_SECRET_KEY": "a-key-of-at-least-32-characters!",
        "REMORA_STORAGE_URL": f"file:{directory}/results",
    }


async def taken(api: httpx.AsyncClient, url: str, number: int) -> str:
    """Take a job, as often as the service says that it cannot now; returns its id."""
    body = {
        "provider": "apimodels",
        "operation": "generate",
        "input": CAT | {"prompt": f"cat {number}"},
        "callback_url": url,
    }
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = await api.post("/v1/jobs", json=body, headers={"Idempotency-Key": f"k{number}"})
            if answer.status_code == 202:
                return str(answer.json()["id"])
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["retry-after"]) > 0
            await asyncio.sleep(0.05)  # well before the Retry-After of a machine's client


async def test_jobs_survive_a_kill_and_a_cut_server(tmp_path: Path) -> None:
    """Sixty jobs, a kill, and twice the server ends all connections: none is sent twice, no event is lost, the rules hold."""
    sandbox = SandboxServer(SandboxOptions(speed=40.0, seed=1))
    await sandbox.start()
    process = Process(tmp_path, free_port(), sandbox.base_urls, **settings(tmp_path))
    url = postgres.database_of(tmp_path)
    jobs: dict[int, str] = {}
    try:
        await process.start()
        async with (
            Receiver() as receiver,
            httpx.AsyncClient(base_url=process.url, headers=HEADERS, timeout=30, trust_env=False) as api,
        ):
            for number in range(60):
                if number in {15, 45}:
                    await _end_all(url)
                if number == 30:
                    await process.stop(signal.SIGKILL)
                    await process.start()
                jobs[number] = await taken(api, receiver.url, number)
            ended = await settled(api, process.url, set(jobs.values()))
            well = {job_id for job_id, status in ended.items() if status == "completed"}
            told = [
                each.job["id"] for each in await receiver.wait_for(len(well), of=lambda each: each.job["id"] in well)
            ]
        status = await process.stop(signal.SIGTERM)
    finally:
        await sandbox.stop()

    assert len(set(jobs.values())) == 60
    assert set(ended.values()) <= {"completed", "submit_unknown"}  # what the kill cut off waits for an operator
    assert len(well) >= 50
    assert sorted(told) == sorted(well)
    assert status == 0
    assert max(Counter(task.draft.prompt for task in sandbox.tasks).values()) == 1
    check(tmp_path, on_postgresql=True)


async def _end_all(url: str) -> None:
    killer = await asyncpg.connect(url)
    await killer.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await killer.close()


async def test_second_process_is_refused(tmp_path: Path) -> None:
    """With a sentence and exit status 3; `doctor` and `migrate` work beside the first one."""
    first = Process(tmp_path, free_port(), {}, **settings(tmp_path))
    second = Process(tmp_path, free_port(), {}, **settings(tmp_path))
    await first.start()
    try:
        with pytest.raises(AssertionError, match="is in use by another Remora process"):
            await second.start()
        refused = await second.ended()
        said = [await _command(first, name) for name in ("doctor", "migrate")]
    finally:
        await first.stop(signal.SIGTERM)

    assert refused == 3
    assert "is sound and up to date" in said[0]
    assert "in use by a running service" in said[0]
    assert "is up to date" in said[1]


async def _command(process: Process, name: str) -> str:
    """What a command prints, with the settings of a process."""
    running = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "service",
        name,
        env=process._environment | {"PYTHONPATH": os.getcwd()},  # noqa: PTH109
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(running.communicate(), PATIENCE_S)
    return " ".join(said.decode().split())


@needs_cc
async def test_machine_whose_clock_is_a_year_ahead_works_as_any_other(tmp_path: Path) -> None:
    """The time is the database's: the job is no year overdue, and its event is sent."""
    sandbox = SandboxServer(SandboxOptions(speed=40.0, seed=1))
    await sandbox.start()
    process = SteppedProcess(tmp_path, free_port(), sandbox.base_urls, **settings(tmp_path))
    process.step_to(365 * DAY_S)
    await process.start()
    try:
        async with (
            Receiver() as receiver,
            httpx.AsyncClient(base_url=process.url, headers=HEADERS, timeout=30, trust_env=False) as api,
        ):
            job = await taken(api, receiver.url, 1)
            [told] = await receiver.wait_for(1)
            at = (await api.get(f"/v1/jobs/{job}")).json()["created_at"]
    finally:
        await process.stop(signal.SIGTERM)
        await sandbox.stop()

    assert told.job["id"] == job
    assert abs(datetime.fromisoformat(at).timestamp() - time.time()) < 3_600
    check(tmp_path, on_postgresql=True)
