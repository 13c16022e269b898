"""A process whose wall clock is stepped while it works: a preloaded library gives it another time of day, from one moment to the next."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.sandbox.server import SandboxOptions, SandboxServer
from tests.e2e.process import Process
from tests.e2e.rig import ADMIN_KEY, CAT, check, free_port
from tests.receiver import PATIENCE_S, Received, Receiver

DAY_S = 86_400
STEPS_S = [30 * DAY_S, -3_600, 3_650 * DAY_S, -3_650 * DAY_S]
WAIT_S = 2.0  # until a delivery that failed is sent again


class SteppedProcess(Process):
    """`remora serve` with a wall clock that a test sets."""

    def __init__(self, directory: Path, port: int, providers: Mapping[str, str], **more: str) -> None:
        super().__init__(directory, port, providers, **more)
        library, self._offset = directory / "stepped_clock.so", directory / "offset"
        source = Path(__file__).with_name("stepped_clock.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
        self._offset.write_bytes(struct.pack("q", 0))
        self._environment |= {
            "LD_PRELOAD": str(library),
            "STEPPED_CLOCK": str(self._offset),
            "REMORA_DELIVERY_SCHEDULE": ",".join([f"{WAIT_S}s"] * 5),
        }

    def step_to(self, offset_s: int) -> None:
        """Set its wall clock so far from the machine's; it sees all of it at once."""
        with self._offset.open("r+b", buffering=0) as file:
            file.write(struct.pack("q", offset_s))

    def told(self, event: str) -> list[dict[str, Any]]:
        """Lines of its log."""
        lines = [line for line in (self._directory / "serve.log").read_text().splitlines() if line.startswith("{")]
        return [line for line in map(json.loads, lines) if line["event"] == event]


def _job(prompt: str = CAT["prompt"], **more: Any) -> dict[str, Any]:
    return {"provider": "apimodels", "input": CAT | {"prompt": prompt}, **more}


needs_cc = pytest.mark.skipif(
    shutil.which("cc") is None or os.uname().sysname != "Linux",
    reason="NOT TESTED HERE: steps of the clock in a real process need a C compiler (cc) and LD_PRELOAD",
)


@needs_cc
async def test_stepped_clock_delays_nothing_and_ends_nothing(tmp_path: Path) -> None:
    """30 days ahead, an hour back, ten years ahead and back: answers come, retries go out in time, nothing expires early."""
    sandbox = SandboxServer(SandboxOptions(speed=40.0, seed=1))
    await sandbox.start()
    process = SteppedProcess(tmp_path, free_port(), sandbox.base_urls)
    await process.start()
    tries: dict[str, list[float]] = {}  # by job: when, on the test's own monotonic clock
    offset_s = 0

    def refuse_once(received: Received) -> int:
        times = tries.setdefault(received.job["id"], [])
        times.append(time.monotonic())
        if len(times) == 1:
            process.step_to(offset_s)
        return 503 if len(times) == 1 else 204

    async with (
        Receiver(answer=refuse_once) as receiver,
        httpx.AsyncClient(
            base_url=process.url, headers={"Authorization": f"Bearer {ADMIN_KEY}"}, timeout=10, trust_env=False
        ) as client,
    ):
        stuck = (await client.post("/v1/jobs", json=_job("A cat that is never finished [fault:stuck]"))).json()
        for offset_s in STEPS_S:
            job = (await client.post("/v1/jobs", json=_job(callback_url=receiver.url))).json()
            [_, again] = await receiver.wait_for(2, of=lambda each, job=job: each.job["id"] == job["id"])  # type: ignore[misc]
            first_at, again_at = tries[job["id"]]
            ready = (await client.get("/readyz")).json()
            kept = await client.get(again.job["results"][0]["url"], follow_redirects=True)
            waiting = (await client.get(f"/v1/jobs/{stuck['id']}")).json()

            assert again_at - first_at > WAIT_S / 2
            assert abs(int(again.headers["webhook-timestamp"]) - time.time() - offset_s) < PATIENCE_S
            assert abs(ready["clock_offset_s"] - offset_s) < PATIENCE_S
            assert kept.status_code == 200
            assert waiting["status"] == "running"
    steps = [line["by_s"] for line in process.told("clock_stepped")]
    status = await process.stop(signal.SIGTERM)
    await sandbox.stop()

    assert status == 0
    assert [round(step) for step in steps] == [b - a for a, b in zip([0, *STEPS_S], STEPS_S, strict=False)]
    check(tmp_path)


async def _recorded(client: httpx.AsyncClient, url: str) -> None:
    """Wait until the first attempt is on record."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            [delivery] = (await client.get(f"{url}/v1/deliveries", params={"status": "pending"})).json()["data"]
            if delivery["attempt_count"]:
                return
            await asyncio.sleep(0.02)


@needs_cc
async def test_nothing_sleeps_after_a_clock_that_was_a_year_ahead(tmp_path: Path) -> None:
    """The clock is set right between two starts: a retry that was due in two seconds is due in two, and not in a year."""
    sandbox = SandboxServer(SandboxOptions(speed=40.0, seed=1))
    await sandbox.start()
    process = SteppedProcess(tmp_path, free_port(), sandbox.base_urls)
    process.step_to(365 * DAY_S)
    await process.start()
    async with (
        Receiver(answer=lambda _: 503) as receiver,
        httpx.AsyncClient(headers={"Authorization": f"Bearer {ADMIN_KEY}"}, trust_env=False) as client,
    ):
        await client.post(f"{process.url}/v1/jobs", json=_job(callback_url=receiver.url))
        [first] = await receiver.wait_for(1)
        await _recorded(client, process.url)
        await process.stop(signal.SIGKILL)
        receiver.answer = lambda _: 204
        process.step_to(0)
        await process.start()
        [_, again] = await receiver.wait_for(2)
    await process.stop(signal.SIGTERM)
    await sandbox.stop()

    assert again.id == first.id
    assert len(process.told("clock_behind_store")) == 1
    check(tmp_path)
