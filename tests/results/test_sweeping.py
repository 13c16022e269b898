"""The end of results: announced a day before, files gone at the end, each once, whatever fails or steps in between."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.db.sqlite.inline_store import InlineConnection
from service.errors import StorageUnavailable
from service.jobs.erase import Erase
from service.results.storage import LocalStorage, input_key, result_key
from tests.results.bench import ACCOUNT, Bench, bench
from tests.results.files import FileServer, answer, picture

DAY_S = 86_400


class Shaky(LocalStorage):
    """A directory that can be away."""

    away = False

    def _judge(self) -> None:
        if self.away:
            raise StorageUnavailable("away")

    async def put(self, key: str, file: Path | bytes, content_type: str) -> None:
        self._judge()
        await super().put(key, file, content_type)

    async def delete(self, keys: Iterable[str]) -> None:
        self._judge()
        await super().delete(keys)

    async def is_ours(self) -> bool:
        self._judge()
        return await super().is_ours()


@pytest.fixture
async def host() -> AsyncIterator[FileServer]:
    async with FileServer() as server:
        server.put("/a.png", answer(picture()))
        yield server


@pytest.fixture
async def kept(tmp_path: Path, host: FileServer) -> AsyncIterator[Bench]:
    storage = Shaky(tmp_path / "kept")
    storage.prepare()
    async with bench(tmp_path, storage, host.url) as made:
        yield made


def shaky(kept: Bench) -> Shaky:
    assert isinstance(kept.storage, Shaky)
    return kept.storage


async def test_end_is_announced_a_day_before_and_comes(kept: Bench, host: FileServer) -> None:
    """`result.expiring` after six days, `result.expired` after seven; then file and link are gone."""
    job_id = await kept.complete(f"{host.url}/a.png")
    await kept.later(6 * DAY_S - 60)
    before = kept.events(job_id)
    await kept.later(120)
    warned = kept.events(job_id)
    await kept.later(3_600)
    await kept.later(DAY_S)
    await kept.later(DAY_S)

    assert before == ["job.completed", "result.stored"]
    assert warned == ["job.completed", "result.stored", "result.expiring"]
    assert kept.events(job_id) == [*warned, "result.expired"]
    assert kept.files() == []
    assert (kept.result(job_id)["stored"], kept.result(job_id)["sweep_at"]) == (0, None)


async def test_stepped_clock_announces_nothing_twice(kept: Bench, host: FileServer) -> None:
    """Back and forth over both moments: each event once."""
    job_id = await kept.complete(f"{host.url}/a.png")
    for step in (6 * DAY_S + 60, -DAY_S, DAY_S, DAY_S, -3 * DAY_S, 4 * DAY_S):
        await kept.later(step)

    assert kept.events(job_id) == ["job.completed", "result.stored", "result.expiring", "result.expired"]


async def test_many_ends_come_in_batches(kept: Bench, host: FileServer) -> None:
    """More than one sweep takes at a time: the next ticks go on, and nothing is left or told twice."""
    jobs = [await kept.complete(*[f"{host.url}/a.png"] * 100) for _ in range(3)]
    for _ in range(6):
        await kept.later(1)
    for _ in range(6):
        await kept.later(8 * DAY_S)

    assert [kept.events(job_id).count("result.expired") for job_id in jobs] == [100, 100, 100]
    assert kept.files() == []


async def test_storage_away_at_the_end_is_swept_later(kept: Bench, host: FileServer) -> None:
    """The row says gone only when the file is; nothing is lost meanwhile."""
    job_id = await kept.complete(f"{host.url}/a.png")
    shaky(kept).away = True
    await kept.later(8 * DAY_S)
    during = kept.events(job_id)
    shaky(kept).away = False
    await kept.later(61)

    assert "result.expired" not in during
    assert kept.events(job_id)[-1] == "result.expired"
    assert kept.files() == []


async def test_storage_away_for_an_hour_loses_nothing(kept: Bench, host: FileServer) -> None:
    """Files wait in their hosts' hands and are fetched when the storage is back; meanwhile few are fetched in vain."""
    shaky(kept).away = True
    jobs = [await kept.complete(f"{host.url}/a.png") for _ in range(30)]
    for _ in range(60):
        await kept.later(60)
    in_vain = len(host.requests)
    shaky(kept).away = False
    for _ in range(20):
        await kept.later(30)

    assert {kept.result(job_id)["stored"] for job_id in jobs} == {1}
    assert {kept.events(job_id).count("result.stored") for job_id in jobs} == {1}
    assert in_vain < 100
    assert not [each for each in kept.files() if ".spool" in each.parts]


def block(kept: Bench, job_id: str) -> Path:
    """Put a directory in the place of the job's first file, which nobody can remove as a file; returns it."""
    [path] = [each for each in kept.files() if each.name.startswith(f"{job_id}-0-")]
    path.unlink()
    (path / "full").mkdir(parents=True)
    return path


async def test_file_that_cannot_be_removed_keeps_no_other(kept: Bench, host: FileServer) -> None:
    """All others go, those of its own job too, and every end is told once; it is tried again each hour, by itself."""
    jobs = [await kept.complete(*[f"{host.url}/a.png"] * 2) for _ in range(5)]
    blocked = block(kept, jobs[0])
    with capture_logs() as lines:
        for seconds in (6 * DAY_S + 60, DAY_S, 60, 60):
            await kept.later(seconds)
    files = kept.files()
    shutil.rmtree(blocked)
    blocked.write_bytes(b"x")
    await kept.later(3_600)

    assert files == []
    assert [kept.events(job_id).count("result.expired") for job_id in jobs] == [2] * 5
    told = [line for line in lines if line["event"] == "files_not_removed"]
    assert [(line["jobs"], line["job"]) for line in told] == [(1, jobs[0])]
    assert not blocked.exists()
    assert kept.rows("SELECT 1 FROM results WHERE storage_key IS NOT NULL OR sweep_at IS NOT NULL") == []


async def test_erased_file_that_cannot_be_removed_keeps_no_other(kept: Bench, host: FileServer) -> None:
    """Of the same job, and of others that are erased later; what is left is counted."""
    jobs = [await kept.complete(*[f"{host.url}/a.png"] * 3) for _ in range(2)]
    blocked = block(kept, jobs[0])
    for job_id in jobs:
        await kept.store.writer.run(Erase(job_id, ACCOUNT))
        await kept.stages.keeping.sweeper.erase(job_id)
    files = kept.files()
    await kept.later(60)
    shutil.rmtree(blocked)
    await kept.later(3_600)

    assert files == []
    assert b"remora_files_not_removed_total 1.0" in kept.metrics.render()[0]
    assert kept.rows("SELECT 1 FROM results WHERE sweep_at IS NOT NULL") == []


async def test_input_that_cannot_be_removed_keeps_no_other(kept: Bench, host: FileServer) -> None:
    """Files of erased inputs go on beside one that is stuck, and beside results that are."""
    jobs = [await kept.complete(f"{host.url}/a.png") for _ in range(3)]
    for job_id in jobs:
        await kept.storage.put(input_key(job_id), b"{}", "application/json")
        kept.change(
            "INSERT INTO inputs (job_id, sha256, size_bytes, storage_key, storage_place, sweep_at) VALUES (?, 'x', 2, ?, ?, 1)",
            job_id,
            input_key(job_id),
            kept.storage.place,
        )
    path = kept.directory / "kept" / input_key(jobs[0])
    path.unlink()
    (path / "full").mkdir(parents=True)
    block(kept, jobs[1])
    await kept.later(8 * DAY_S)

    assert kept.rows("SELECT job_id FROM inputs") == [{"job_id": jobs[0]}]
    assert kept.files() == []


async def test_stranger_that_cannot_be_removed_keeps_no_other(kept: Bench, host: FileServer) -> None:
    """Nor does a directory that cannot be read; and a clock that was stepped ahead makes no young file old."""
    job_id = await kept.complete(f"{host.url}/a.png")
    keys = [result_key(f"{job_id[:-2]}{ending}", 0, 77, "png") for ending in ("aa", "bb", "cc")]
    now_s = kept.clock.now_ms() / 1000
    for number, key in enumerate(keys):
        path = kept.directory / "kept" / key
        await kept.storage.put(key, b"x", "image/png")
        if number == 0:
            path.unlink()
            (path / "full").mkdir(parents=True)
        os.utime(path, (now_s - 60, now_s - 60))
    kept.clock.step(30 * DAY_S)
    young = await kept.stages.keeping.sweeper.find_strangers()
    kept.clock.step(-30 * DAY_S)
    kept.clock.advance(2 * DAY_S)
    removed = await kept.stages.keeping.sweeper.find_strangers()

    assert (young, removed) == (0, 2)


async def test_file_without_a_row_is_found_after_a_day(kept: Bench, host: FileServer) -> None:
    """What a crash left between a file and its row goes; young files, files of rows and strangers' own stay."""
    job_id = await kept.complete(f"{host.url}/a.png")
    old = result_key(job_id, 0, 77, "png")
    await kept.storage.put(old, b"x", "image/png")
    young = result_key(job_id, 0, 78, "png")
    await kept.storage.put(young, b"x", "image/png")
    (kept.directory / "kept" / "results" / "mine.txt").write_text("x")
    now_s = kept.clock.now_ms() / 1000
    for path in kept.files():
        age_s = 0 if path.name.endswith("-78.png") else 2 * DAY_S
        os.utime(path, (now_s - age_s, now_s - age_s))
    removed = await kept.stages.keeping.sweeper.find_strangers()

    assert removed == 1
    assert {path.name for path in kept.files()} == {
        "mine.txt",
        young.rpartition("/")[2],
        str(kept.result(job_id)["storage_key"]).rpartition("/")[2],
    }


async def test_erasure_goes_on_where_the_storage_was_away(kept: Bench, host: FileServer) -> None:
    """The prompt goes at once, the file when the storage is back; no event tells of it twice."""
    job_id = await kept.complete(f"{host.url}/a.png")
    shaky(kept).away = True
    assert await kept.store.writer.run(Erase(job_id, ACCOUNT)) is True
    await kept.stages.keeping.sweeper.erase(job_id)
    left = kept.files()
    shaky(kept).away = False
    await kept.later(61)

    assert len(left) == 1
    assert kept.files() == []
    assert kept.rows("SELECT input, input_full FROM jobs") == [{"input": "{}", "input_full": None}]
    assert kept.rows("SELECT 1 FROM events WHERE body IS NOT NULL") == []
    assert "result.expired" not in kept.events(job_id)


async def test_number_of_an_erased_event_never_comes_again(kept: Bench, host: FileServer) -> None:
    """After a restart the feed goes on behind what was erased, also where that was the newest."""
    job_id = await kept.complete(f"{host.url}/a.png")
    [newest] = kept.rows("SELECT max(pos) AS pos FROM events")
    await kept.store.writer.run(Erase(job_id, ACCOUNT))

    assert kept.rows("SELECT feed_erased AS pos FROM accounts WHERE feed_erased > 0") == [newest]
    assert kept.rows("SELECT max(left_pos) AS pos FROM events WHERE pos IS NULL") == [newest]
    again = InlineConnection(kept.store.path)
    await again.close()
    assert again.last_pos == newest["pos"]
