"""Results last: our copies are made beside the events, served under the same link, and let go at their end."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.rig import Rig, rig
from tests.receiver import PATIENCE_S, Received


def of_type(event_type: str) -> Any:
    return lambda received: isinstance(received, Received) and received.type == event_type


async def kept(machine: Rig, job_id: str) -> dict[str, Any]:
    """The job once every result has its copy."""
    async with asyncio.timeout(PATIENCE_S):
        while (job := await machine.job(job_id))["status"] != "completed" or not all(
            each["stored"] for each in job["results"]
        ):
            await asyncio.sleep(0.02)
    return job


async def test_result_is_kept_and_its_link_stays(tmp_path: Path) -> None:
    """The link of the final event serves our copy later; one `result.stored` tells what it is."""
    async with rig(tmp_path) as machine:
        taken = await machine.take(callback_events=["job.completed", "result.stored"])
        [final] = await machine.receiver.wait_for(1, of=of_type("job.completed"))
        [stored] = await machine.receiver.wait_for(1, of=of_type("result.stored"))
        job = await kept(machine, taken["id"])
        url = final.job["results"][0]["url"]
        before = len(machine.sandbox.requests)
        async with httpx.AsyncClient(trust_env=False) as stranger:
            copy = await stranger.get(url)

    told = stored.event["data"]["result"]
    assert copy.status_code == 200
    assert told["sha256"] == hashlib.sha256(copy.content).hexdigest() == job["results"][0]["sha256"]
    assert told["size_bytes"] == len(copy.content)
    assert told["url"] == url
    assert (told["stored"], told["content_type"]) == (True, copy.headers["content-type"])
    assert told["width"] > 0
    assert told["height"] > 0
    assert "source_url" not in told
    assert stored.event["data"]["seq"] > final.event["data"]["seq"]
    assert [each for each in machine.sandbox.requests[before:] if "/files/" in each.path] == []
