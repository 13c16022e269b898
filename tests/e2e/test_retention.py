from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from tests.e2e.rig import Rig, rig

HUNDRED_DAYS_MS = 100 * 86_400_000
PROMPT = "A prompt that nobody should find a hundred days later"


def hundred_days_pass(directory: Path) -> None:
    """Everything in the database happened a hundred days earlier; the service does not run."""
    columns = {
        "jobs": ("created_at", "submitted_at", "finished_at", "expires_at"),
        "events": ("at",),
        "callbacks": ("received_at",),
        "deliveries": ("created_at", "finished_at"),
        "attempts": ("at",),
        "results": ("expires_at", "due_at", "sweep_at"),
    }
    with contextlib.closing(sqlite3.connect(directory / "remora.db")) as connection, connection:
        for table, names in columns.items():
            shifts = ", ".join(f"{name} = {name} - {HUNDRED_DAYS_MS}" for name in names)
            connection.execute(f"UPDATE {table} SET {shifts}")


async def clean(remora: Rig) -> None:
    """The clean-up's tick, without its minute; results end first."""
    duties = {duty.name: duty for duty in remora.service._stages.duties}
    await duties["sweeper"].run_once()
    await duties["cleaner"].run_once()


async def test_a_hundred_days_later_a_job_is_there_without_its_prompt(tmp_path: Path) -> None:
    """By default the job, its timeline and its money can be read; its prompt, events and deliveries are gone, and it says so."""
    async with rig(tmp_path) as remora:
        done = await remora.finished((await remora.take(PROMPT))["id"])
        failed = await remora.finished((await remora.take(f"{PROMPT} [fault:failed]"))["id"])
        cursor = (await remora.api.get("/v1/events", params={"limit": 1})).json()["next_cursor"]
        before = await remora.timeline(done["id"])
    hundred_days_pass(tmp_path)
    async with rig(tmp_path) as remora:
        await clean(remora)
        job = await remora.job(done["id"])
        after = await remora.timeline(done["id"])
        deliveries = await remora.api.get("/v1/deliveries")
        feed = await remora.api.get("/v1/events", params={"cursor": cursor})
        again = await remora.api.post(f"/v1/jobs/{failed['id']}/resubmit")
        metrics = await remora.api.get("/metrics")

    assert (done["status"], failed["status"]) == ("completed", "failed")
    assert (job["status"], job["input"], job["erased"], job["cost"]) == ("completed", {}, True, done["cost"])
    assert [row["type"] for row in after][: len(before)] == [row["type"] for row in before]
    assert deliveries.json()["data"] == []
    assert (feed.status_code, feed.json()["code"]) == (410, "cursor_expired")
    assert (again.status_code, again.json()["code"]) == (409, "input_erased")
    assert 'remora_retention_removed_total{what="inputs"} 2.0' in metrics.text
    assert remora.receiver.received == []  # nothing is sent again
