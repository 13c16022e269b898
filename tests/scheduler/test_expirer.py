"""Deadlines that pass, and what is left in flight: a job that cannot be written hides no other, nor does another provider's."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from service.db.transaction import Row
from service.jobs import queries
from service.jobs.queries import START, Place
from service.scheduler.expirer import Expirer
from service.states import JobStatus
from tests.api.conftest import serve
from tests.db.test_plans import Recorder
from tests.scheduler.overdue import Late, late


@pytest.fixture
async def jobs(tmp_path: Path) -> AsyncIterator[Late]:
    """An empty store with a sweep."""
    async with late(tmp_path) as made:
        yield made


class WithoutPlace(Expirer):
    """Planted: every look begins with the job that has been due longest."""

    def _behind(self, found: Sequence[Row], count: int) -> Place:
        return START


async def sweep(expirer: Expirer) -> None:
    """One sweep, which may tell of jobs that cannot be written."""
    try:
        await expirer.run_once()
    except sqlite3.IntegrityError as error:
        assert str(error) == "stuck"  # noqa: PT017 - whether there is one is not the question


def put_due(jobs: Late, kind: str, account: str, count: int, *, ago_ms: int) -> None:
    """Jobs of a kind that a sweep looks for."""
    at = jobs.queue.clock.now_ms() - ago_ms
    columns: dict[str, dict[str, Any]] = {
        "deadline": {"expires_at": at},
        "overdue": {"status": JobStatus.RUNNING, "overdue_at": at},
        "abandoned": {"status": JobStatus.SUBMITTING, "due_at": at},
    }
    jobs.put(account, count, **columns[kind])


#: What is left of those that a sweep should have ended or noticed.
LEFT = {
    "deadline": "status = 'queued'",
    "overdue": "overdue_at IS NOT NULL",
    "abandoned": "status = 'submitting'",
}


@pytest.mark.parametrize("kind", LEFT)
async def test_jobs_that_cannot_be_written_hide_no_other(jobs: Late, kind: str) -> None:
    """Three hundred of them have been due for longer, all since one moment; one sweep passes them, and so does the next."""
    put_due(jobs, kind, "stuck", 300, ago_ms=2_000)
    put_due(jobs, kind, "good", 250, ago_ms=1_000)
    expirer = jobs.expirer()
    with pytest.raises(sqlite3.IntegrityError, match="stuck"):
        await expirer.run_once()
    first = [job for job in jobs.left(LEFT[kind]) if job.startswith("good")]
    put_due(jobs, kind, "good_later", 5, ago_ms=3_000)
    await sweep(expirer)
    left = jobs.left(LEFT[kind])

    assert first == []
    assert len(left) == 300
    assert {job.partition("-")[0] for job in left} == {"stuck"}


@pytest.mark.parametrize("kind", LEFT)
async def test_sweep_without_a_place_is_seen(jobs: Late, kind: str) -> None:
    """Else the check would mean nothing: those at the head hide the others, however often it is tried."""
    put_due(jobs, kind, "stuck", 4, ago_ms=2_000)
    put_due(jobs, kind, "good", 4, ago_ms=1_000)
    for _ in range(3):
        await sweep(jobs.expirer(WithoutPlace, batch=4))

    assert len(jobs.left(LEFT[kind])) == 8


async def test_sweep_that_was_cut_off_goes_on_where_it_was(jobs: Late) -> None:
    """More are due than one sweep looks at: what cannot be written at the head costs the next one nothing."""
    put_due(jobs, "deadline", "stuck", 120, ago_ms=2_000)
    put_due(jobs, "deadline", "good", 3, ago_ms=1_000)
    expirer = jobs.expirer(batch=2)  # a hundred a sweep
    await sweep(expirer)
    before = jobs.left("status = 'queued' AND id LIKE 'good%'")
    await sweep(expirer)

    assert len(before) == 3
    assert jobs.left("status = 'queued' AND id LIKE 'good%'") == []


@pytest.mark.parametrize("others", ["queued", "abandoned", "stuck"])
async def test_abandoned_submits_wait_for_no_other_provider(jobs: Late, others: str) -> None:
    """Those of one are found in the first look, whatever another has: jobs that wait, submits that were abandoned earlier."""
    now_ms = jobs.queue.clock.now_ms()
    if others == "queued":
        jobs.put("flood", 20_000, provider="a", due_at=now_ms - 9_000)
    else:
        account = "stuck" if others == "stuck" else "flood"
        count = 300 if others == "stuck" else 5_000
        jobs.put(account, count, provider="a", status=JobStatus.SUBMITTING, due_at=now_ms - 9_000)
    jobs.put("few", 3, provider="b", status=JobStatus.SUBMITTING, due_at=now_ms - 1)
    await sweep(jobs.expirer())
    written = [row["job_id"] for row in jobs.queue.raw.execute("SELECT job_id FROM events ORDER BY rowid")]
    first = [job.partition("-")[0] for job in written[:200]]  # what one look takes of all providers

    assert first.count("few") == 3
    assert len(jobs.left("status = 'submitting'")) == (300 if others == "stuck" else 0)


async def test_a_look_is_bounded_work(jobs: Late) -> None:
    """Each statement goes into its index at the place where the walk is, and sorts nothing."""
    recorder = Recorder(jobs.queue.raw)
    await queries.past_deadline(recorder, 1, START, 200)
    await queries.newly_overdue(recorder, 1, START, 200)
    await queries.abandoned(recorder, 1, "p", START, 200)
    plans = [line for line in recorder.plans() if "jobs" in line or "B-TREE" in line]

    assert [re.sub(r"COVERING |<.*", "", line) for line in plans] == [
        "SEARCH jobs USING INDEX ix_jobs_for_expiry ((expires_at,id)>(?,?) AND expires_at",
        "SEARCH jobs USING INDEX ix_jobs_for_overdue ((overdue_at,id)>(?,?) AND overdue_at",
        "SEARCH jobs USING INDEX ix_jobs_for_abandoned (provider=? AND (due_at,id)>(?,?) AND due_at",
    ]


async def test_job_that_cannot_be_ended_keeps_no_other(tmp_path: Path) -> None:
    """In a service that serves: all others end in the same sweep, however many there are; the failure is told behind them."""
    async with serve(tmp_path) as served:
        jobs = [await served.take() for _ in range(7)]
        with contextlib.closing(sqlite3.connect(tmp_path / "remora.db")) as connection:
            connection.execute(
                "CREATE TRIGGER stuck BEFORE UPDATE OF status ON jobs WHEN old.seq = 1 AND old.id = "
                f"'{jobs[0]['id']}' BEGIN SELECT RAISE(ABORT, 'stuck'); END"
            )
        base = served.service._base
        await served.sql("UPDATE jobs SET expires_at = created_at - 1")
        with pytest.raises(sqlite3.IntegrityError, match="stuck"):
            await Expirer(base.store.writer, base.store.reader, base.clock, batch=3).run_once()
        left = await served.rows("SELECT id FROM jobs WHERE status <> 'expired'")

    assert left == [{"id": jobs[0]["id"]}]
