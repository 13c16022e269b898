"""Erasing holds: whatever is heard of an erased job later, and whatever was left of it the first time."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.callbacks.inbox import ReceiveCallback
from service.jobs.erase import Erase
from service.jobs.row import JobRow
from service.jobs.track import Track
from service.jobs.transitions.facts import DeadlinePassed, Polled
from service.providers.client import PollOutcome, PollVerdict
from service.providers.mapping import Money, Observation, Seen
from service.results.storage import LocalStorage, result_key
from service.results.vault import StorageVault
from service.states import JobStatus
from tests.results.bench import ACCOUNT, Bench, Running, bench
from tests.results.files import FileServer, answer, picture


@pytest.fixture
async def host() -> AsyncIterator[FileServer]:
    async with FileServer() as server:
        server.put("/a.png", answer(picture()))
        yield server


@pytest.fixture
async def kept(tmp_path: Path, host: FileServer) -> AsyncIterator[Bench]:
    storage = LocalStorage(tmp_path / "kept")
    storage.prepare()
    async with bench(tmp_path, storage, host.url) as made:
        yield made


async def expired(kept: Bench) -> JobRow:
    """A job of which nothing was heard until its deadline."""
    now_ms = kept.clock.now_ms()
    job = JobRow(
        id=kept.ids.new("job"),
        account_id=ACCOUNT,
        provider="apimodels",
        operation="generate",
        status=JobStatus.RUNNING,
        created_at=now_ms - 9,
        expires_at=now_ms - 1,
        input='{"prompt": "x"}',
        submission_id=kept.ids.new("sbm"),
        provider_task_id="t1",
        due_at=now_ms - 1,
    )
    await kept.store.writer.run(Running(job))
    assert await kept.store.writer.run(Track(DeadlinePassed(job.id))) is True
    return job


async def test_late_completion_of_an_erased_job_is_booked_and_nothing_else(kept: Bench, host: FileServer) -> None:
    """The state and the cost are true; no file is fetched, no address, body or event is kept."""
    job = await expired(kept)
    assert await kept.store.writer.run(Erase(job.id, ACCOUNT)) is True
    url = f"{host.url}/a.png"
    await kept.store.writer.run(ReceiveCallback(job.id.encode(), url.encode(), kept.clock.now_ms()))
    said = Observation(
        seen=Seen.COMPLETED, task_id="t1", provider_status="completed", urls=(url,), cost=Money(500, "provider", "1")
    )
    outcome = PollOutcome(PollVerdict.OBSERVED, said, http_status=200)
    await kept.store.writer.run(Track(Polled(job.id, job.submission_id, job.lease_epoch, outcome)))
    await kept.later(60)

    assert kept.rows("SELECT status, cost_charged FROM jobs") == [{"status": "completed", "cost_charged": 500}]
    assert [each for each in host.requests if b"/a.png" in each] == []  # asking how the task stands is all right
    row = kept.result(job.id)
    assert (row["source_url"], row["error"], row["due_at"], row["storage_key"]) == ("", "erased", None, None)
    assert kept.rows("SELECT body FROM callbacks") == [{"body": b""}]
    assert kept.rows("SELECT type FROM events WHERE body IS NOT NULL OR pos IS NOT NULL") == []
    assert kept.rows("SELECT 1 FROM usage_recounts WHERE job_id = ?", job.id) != []


async def test_event_without_a_number_is_erased_as_one_that_has_it(kept: Bench, host: FileServer) -> None:
    """Its bytes go, it leaves no number behind that it never had, and its job is counted all the same."""
    job_id = await kept.complete(f"{host.url}/a.png")
    kept.change("UPDATE events SET pos = NULL WHERE job_id = ?", job_id)
    waiting = kept.rows("SELECT type FROM events WHERE body IS NOT NULL")
    assert await kept.store.writer.run(Erase(job_id, ACCOUNT)) is True

    assert {"type": "job.completed"} in waiting
    assert kept.rows("SELECT type FROM events WHERE body IS NOT NULL OR pos IS NOT NULL OR left_pos IS NOT NULL") == []
    assert kept.rows("SELECT 1 FROM usage_recounts WHERE job_id = ?", job_id) != []


async def test_second_erasure_takes_what_the_first_one_left(kept: Bench, host: FileServer) -> None:
    """Files and addresses of an erased job, wherever they came from, are gone after it; it is noted once."""
    job_id = await kept.complete(f"{host.url}/a.png", f"{host.url}/a.png")
    key = kept.result(job_id)["storage_key"]
    assert await kept.store.writer.run(Erase(job_id, ACCOUNT)) is True
    await kept.later(1)
    await kept.storage.put(key, b"x", "image/png")
    kept.change("UPDATE results SET storage_key = ?, stored = 1, source_url = 'u', error = NULL WHERE idx = 0", key)
    assert await kept.store.writer.run(Erase(job_id, ACCOUNT)) is True
    await kept.later(1)

    assert kept.files() == []
    assert kept.rows("SELECT 1 FROM results WHERE stored OR source_url <> '' OR error <> 'erased'") == []
    assert kept.events(job_id).count("job.erased") == 1


async def test_log_of_the_database_forgets_the_prompt(kept: Bench, host: FileServer) -> None:
    """Soon after an erasure neither the file nor its log holds the prompt, also where a reader stood in the way at first."""
    job_id = await kept.complete(f"{host.url}/a.png")
    secret = "a prompt that nobody shall find"
    kept.change("UPDATE jobs SET input = json_object('prompt', ?)", secret)
    log = kept.store.path.with_name(kept.store.path.name + "-wal")
    before = secret.encode() in log.read_bytes()
    await kept.store.writer.run(Erase(job_id, ACCOUNT))
    await kept.stages.keeping.sweeper.erase(job_id)
    with contextlib.closing(sqlite3.connect(kept.store.path)) as reader:
        cursor = reader.execute("SELECT 1 FROM jobs, events")
        cursor.fetchone()
        await kept.later(1)
        while_read = log.stat().st_size
        cursor.close()
    await kept.later(10)

    assert before
    assert while_read > 0
    assert log.stat().st_size == 0
    assert secret.encode() not in kept.store.path.read_bytes()


async def test_erasure_takes_files_that_no_row_knows(kept: Bench, host: FileServer) -> None:
    """A crash between a file and its row leaves one; it is the job's, and goes with it."""
    job_id = await kept.complete(f"{host.url}/a.png", f"{host.url}/none.png")
    await kept.storage.put(result_key(job_id, 1, 1, "png"), b"x", "image/png")
    other = await kept.complete(f"{host.url}/a.png")
    await kept.store.writer.run(Erase(job_id, ACCOUNT))
    await kept.stages.keeping.sweeper.erase(job_id)

    assert [path.name for path in kept.files()] == [str(kept.result(other)["storage_key"]).rpartition("/")[2]]


async def _large_input(kept: Bench, job_id: str) -> None:
    vault = StorageVault(kept.storage)
    key = await vault.put(job_id, b"{}")
    sql = "INSERT INTO inputs (job_id, sha256, size_bytes, storage_key, storage_place) VALUES (?, '', 2, ?, ?)"
    kept.change(sql, job_id, key, vault.place)


@pytest.mark.parametrize("elsewhere", [None, "another"])
async def test_files_in_another_storage_wait_for_it(
    kept: Bench, host: FileServer, tmp_path: Path, elsewhere: str | None
) -> None:
    """With `none` or another place in the setting nothing says that files are gone which are not; later they go."""
    erased, ended = await kept.complete(f"{host.url}/a.png"), await kept.complete(f"{host.url}/a.png")
    await _large_input(kept, erased)
    sweeper, first = kept.stages.keeping.sweeper, kept.storage
    sweeper.storage = None
    if elsewhere is not None:
        sweeper.storage = LocalStorage(tmp_path / elsewhere)
        sweeper.storage.prepare()
    await kept.store.writer.run(Erase(erased, ACCOUNT))
    await sweeper.erase(erased)
    await kept.later(8 * 86_400)
    left = len(kept.files())
    known = [kept.result(each)["storage_key"] for each in (erased, ended)] + kept.rows("SELECT * FROM inputs")
    told = kept.events(ended)
    sweeper.storage = first
    await kept.later(3_600)

    assert (left, all(known), len(known)) == (3, True, 3)
    assert kept.files() == []
    assert [kept.result(each)["storage_key"] for each in (erased, ended)] == [None, None]
    assert kept.rows("SELECT * FROM inputs") == []
    assert kept.events(ended) == told
    assert told.count("result.expired") == 1


async def test_moved_directory_is_still_the_place_of_its_files(kept: Bench, host: FileServer, tmp_path: Path) -> None:
    """It has another name and the same files: these are removed."""
    job_id = await kept.complete(f"{host.url}/a.png")
    moved = (tmp_path / "kept").rename(tmp_path / "moved")
    kept.stages.keeping.sweeper.storage = LocalStorage(moved)
    await kept.store.writer.run(Erase(job_id, ACCOUNT))
    await kept.stages.keeping.sweeper.erase(job_id)

    assert [each for each in moved.rglob("*") if each.is_file()] == []
    assert kept.result(job_id)["storage_key"] is None
