"""Killed processes: whatever was answered 2xx is still there after kill -9 and a restart, and ends in one event."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from pathlib import Path

import httpx
import pytest

from service.sandbox.faults import parse_faults
from service.sandbox.server import SandboxOptions, SandboxServer
from tests.e2e.process import Process
from tests.e2e.rig import ADMIN_KEY, CAT, check, free_port
from tests.receiver import Receiver

JOBS = 40
KILLS = 3


async def _take(client: httpx.AsyncClient, url: str, number: int, receiver: str) -> str | None:
    """One job; None when the service died before it answered."""
    body = {"provider": "apimodels", "input": CAT | {"prompt": f"cat {number}"}, "callback_url": receiver}
    headers = {"Authorization": f"Bearer {ADMIN_KEY}", "Idempotency-Key": f"cat-{number}"}
    try:
        answer = await client.post(f"{url}/v1/jobs", json=body, headers=headers)
    except httpx.TransportError:
        return None
    return str(answer.json()["id"]) if answer.status_code == 202 else None


@pytest.mark.parametrize("seed", [1, 2])
async def test_kill_9_loses_nothing_that_was_answered(tmp_path: Path, seed: int) -> None:
    """Killed three times in the middle of everything: every taken job ends, no submission is sent twice, no event is lost."""
    chance = random.Random(seed)
    sandbox = SandboxServer(SandboxOptions(speed=20.0, faults=parse_faults("lost-callback=0.2"), seed=seed))
    await sandbox.start()
    process = Process(tmp_path, free_port(), sandbox.base_urls)
    taken: dict[int, str] = {}
    async with Receiver() as receiver, httpx.AsyncClient(timeout=10, trust_env=False) as client:
        await process.start()
        for _ in range(KILLS):
            numbers = [number for number in range(JOBS) if number not in taken][: JOBS // KILLS + 1]
            taking = asyncio.gather(*(_take(client, process.url, number, receiver.url) for number in numbers))
            # Not a wait for anything: the moment of the kill is meant to be arbitrary.
            await asyncio.sleep(chance.uniform(0.01, 0.4))
            await process.stop(signal.SIGKILL)
            answers = await taking
            taken |= {number: job for number, job in zip(numbers, answers, strict=True) if job is not None}
            await process.start()
        for number in range(JOBS):  # the same key again: taken once, whichever answer was lost
            job = await _take(client, process.url, number, receiver.url)
            assert job is not None
            assert taken.setdefault(number, job) == job
        jobs = await settled(client, process.url, set(taken.values()))
        ended = {job_id for job_id, status in jobs.items() if status != "submit_unknown"}
        await receiver.wait_for(len(ended), of=lambda each: each.job["id"] in ended)
        status = await process.stop(signal.SIGTERM)
    await sandbox.stop()

    assert status == 0
    assert len(jobs) == JOBS
    assert set(jobs.values()) <= {"completed", "submit_unknown"}
    events = {(received.id, received.job["id"]) for received in receiver.received}
    assert max(Counter(job_id for _, job_id in events).values()) == 1
    prompts = Counter(task.draft.prompt for task in sandbox.tasks)
    assert max(prompts.values()) == 1
    check(tmp_path)


async def settled(client: httpx.AsyncClient, url: str, wanted: set[str]) -> dict[str, str]:
    """Every job once it is final, or waits for an operator because the kill cut its submit off."""
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    async with asyncio.timeout(60):
        while True:
            found = (await client.get(f"{url}/v1/jobs", params={"limit": 200}, headers=headers)).json()["data"]
            jobs = {job["id"]: job["status"] for job in found}
            assert wanted <= set(jobs)
            if set(jobs.values()) <= {"completed", "submit_unknown"}:
                return jobs
            await asyncio.sleep(0.1)


async def test_second_process_on_the_same_database_is_refused(tmp_path: Path) -> None:
    """One process per file: the second one says so and ends."""
    sandbox = SandboxServer(SandboxOptions())
    await sandbox.start()
    first, second = Process(tmp_path, free_port(), sandbox.base_urls), Process(tmp_path, free_port(), sandbox.base_urls)
    await first.start()
    with pytest.raises(AssertionError, match="in use by another Remora process"):
        await second.start()
    status = await first.stop(signal.SIGTERM)
    await sandbox.stop()

    assert status == 0
