"""A result is fetched at once, again when that fails, from a fresh link when its link died, and given up when nothing helps."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.jobs.erase import Erase
from service.results.capture_claim_store import VoidCaptures, host_of
from service.results.storage import LocalStorage
from tests.results.bench import ACCOUNT, Bench, bench
from tests.results.files import FileServer, answer, mp4, padded, picture

PNG = picture()
POLL = "/api/v1/images/generations?task_id=t1"


@pytest.fixture
async def host() -> AsyncIterator[FileServer]:
    async with FileServer() as server:
        yield server


@pytest.fixture
async def kept(tmp_path: Path, host: FileServer) -> AsyncIterator[Bench]:
    storage = LocalStorage(tmp_path / "kept")
    storage.prepare()
    async with bench(tmp_path, storage, host.url) as made:
        yield made


def said(*urls: str) -> bytes:
    """What the provider says of its task."""
    data = {"taskId": "t1", "state": "completed", "resultUrls": urls, "createTime": 1, "completeTime": 2}
    return json.dumps({"code": 200, "msg": "success", "data": data}).encode()


async def test_result_is_fetched_once_and_told_once(kept: Bench, host: FileServer) -> None:
    """The file lies under its key with its digest; one `result.stored` follows the final event; nothing is due any more."""
    job_id = await kept.complete(host.put("/a.png", answer(PNG, "Content-Type: text/html")))
    row = kept.result(job_id)
    for _ in range(3):
        await kept.later(60)

    assert (row["stored"], row["due_at"], row["error"]) == (1, None, None)
    assert (row["content_type"], row["width"], row["height"]) == ("image/png", 64, 48)
    assert row["sha256"] == hashlib.sha256(PNG).hexdigest()
    assert (kept.directory / "kept" / row["storage_key"]).read_bytes() == PNG
    assert kept.events(job_id) == ["job.completed", "result.stored"]
    assert len(host.requests) == 1
    assert b"sk-secret" not in host.requests[0]
    assert b"Accept-Encoding: identity" in host.requests[0]


async def test_every_result_has_its_own_event(kept: Bench, host: FileServer) -> None:
    """Two files, two events, each about its own, with the job as it stands."""
    urls = [host.put("/a.png", answer(PNG)), host.put("/b.mp4", answer(mp4()))]
    job_id = await kept.complete(*urls)
    told = [body["data"]["result"] for body in kept.bodies(job_id, "result.stored")]

    assert sorted((each["index"], each["content_type"]) for each in told) == [(0, "image/png"), (1, "video/mp4")]
    assert [len(body["data"]["job"]["results"]) for body in kept.bodies(job_id, "result.stored")] == [2, 2]
    assert kept.events(job_id).count("result.stored") == 2


async def test_picture_in_a_data_url_is_kept_too(kept: Bench) -> None:
    """A picture instead of an address is put in its place, and leaves the row."""
    url = "data:image/png;base64," + base64.b64encode(padded((900, 700), 9_000)).decode()
    job_id = await kept.complete(url)
    await kept.later(1)
    row = kept.result(job_id)

    assert (row["stored"], row["width"]) == (1, 900)
    assert row["source_url"].startswith("sha256:")


async def test_failure_is_tried_again_with_growing_waits(kept: Bench, host: FileServer) -> None:
    """5 s, 30 s: a server that is down for a while costs nothing but time."""
    down = answer(b"", status="503 Service Unavailable")
    job_id = await kept.complete(host.put("/a.png", down, down, answer(PNG)))
    first = kept.result(job_id)["due_at"] - kept.clock.now_ms()
    await kept.later(7)
    second = kept.result(job_id)["due_at"] - kept.clock.now_ms()
    await kept.later(40)

    assert 4_000 <= first <= 6_000
    assert 24_000 <= second <= 36_000
    assert kept.result(job_id)["stored"] == 1
    assert len(host.requests) == 3


async def test_dead_link_is_replaced_by_a_fresh_one(kept: Bench, host: FileServer) -> None:
    """403: the provider is asked once, its new link is used, and is the result's from then on."""
    fresh = host.put("/fresh.png", answer(PNG))
    host.put(POLL, answer(said(fresh), "Content-Type: application/json"))
    job_id = await kept.complete(host.put("/old.png", answer(b"", status="403 Forbidden")))
    await kept.later(1)
    row = kept.result(job_id)

    assert (row["stored"], row["source_url"], row["refreshed"]) == (1, fresh, 1)
    assert kept.events(job_id) == ["job.completed", "result.stored"]


async def test_bad_link_beside_a_good_one_costs_only_itself(kept: Bench, host: FileServer) -> None:
    """The good one is kept, also by a fresh link that stands behind the bad one; the bad one is never fetched or swept."""
    fresh = host.put("/fresh.png", answer(PNG))
    host.put(POLL, answer(said("no link", fresh), "Content-Type: application/json"))
    job_id = await kept.complete(None, host.put("/old.png", answer(b"", status="404 Not Found")))
    await kept.later(1)
    good, bad = kept.result(job_id, 1), kept.result(job_id, 0)
    await kept.later(8 * 86_400)

    assert (good["stored"], good["source_url"]) == (1, fresh)
    assert (bad["stored"], bad["source_url"], bad["error"], bad["due_at"]) == (0, "", "url_invalid", None)
    assert kept.events(job_id) == ["job.completed", "result.lost", "result.stored", "result.expired"]


async def test_results_without_an_address_are_counted_as_lost(kept: Bench, host: FileServer) -> None:
    """Two of three links were no URLs: the metric shows them beside the one that was stored."""
    await kept.complete(None, host.put("/a.png", answer(PNG)), None)
    lines = kept.metrics.render()[0].decode().splitlines()

    assert 'remora_results_total{outcome="lost"} 2.0' in lines
    assert 'remora_results_total{outcome="stored"} 1.0' in lines


async def test_long_link_outlives_its_copy(kept: Bench, host: FileServer) -> None:
    """A presigned link of eight thousand characters is fetched, and stays what it is beside the copy."""
    url = host.put("/a.png?sig=%2F%7e&token=" + "x" * 8_000, answer(PNG))
    row = kept.result(await kept.complete(url))

    assert (row["stored"], row["source_url"]) == (1, url)


@pytest.mark.parametrize("status", ["404 Not Found", "403 Forbidden", "410 Gone"])
async def test_dead_link_is_given_up(kept: Bench, host: FileServer, status: str) -> None:
    """Asked once and nothing new: tried a few times more, then `result_gone`; the job stays completed."""
    old = host.put("/old.png", answer(b"", status=status))
    host.put(POLL, answer(said(old), "Content-Type: application/json"))
    job_id = await kept.complete(old)
    for _ in range(8):
        await kept.later(200)
    row = kept.result(job_id)

    assert (row["stored"], row["due_at"], row["error"]) == (0, None, "result_gone")
    assert sum(b"task_id=t1" in head for head in host.requests) == 1
    assert kept.events(job_id) == ["job.completed", "result.lost"]
    assert kept.rows("SELECT status FROM jobs")[0]["status"] == "completed"


async def test_link_that_dies_has_an_end(kept: Bench, host: FileServer) -> None:
    """A host that never answers is asked until the provider's seven days are over, hourly at last."""
    job_id = await kept.complete(host.put("/a.png", answer(b"", status="500 Oops")))
    for _ in range(8 * 24):
        await kept.later(3_600)
    row = kept.result(job_id)

    assert (row["stored"], row["due_at"], row["error"]) == (0, None, "result_gone")
    assert 100 < len(host.requests) < 190


async def test_what_did_not_fit_is_fetched_by_the_tick(kept: Bench, host: FileServer) -> None:
    """More results than places: the rest is due in the store and comes with the next ticks, each once."""
    host.put("/a.png", answer(PNG))
    jobs = [await kept.complete(*[f"{host.url}/a.png"] * 100) for _ in range(3)]
    for _ in range(10):
        await kept.later(1)

    assert {kept.result(job_id, index)["stored"] for job_id in jobs for index in range(100)} == {1}
    assert len(host.requests) == 300


async def test_what_a_crash_left_is_fetched_after_the_start(kept: Bench, host: FileServer) -> None:
    """A lease of a process that is gone is void at the next start; its late copy is refused and removed."""
    gate = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await answer(PNG)(reader, writer)

    host.put("/a.png", slow, answer(PNG))
    taking = asyncio.create_task(kept.complete(f"{host.url}/a.png"))
    await kept.until(lambda: host.requests)
    assert await kept.store.writer.run(VoidCaptures()) == 1
    await kept.stages.keeping.duties[0].run_once()
    await kept.until(kept.stored)
    gate.set()
    job_id = await taking

    assert kept.result(job_id)["lease_epoch"] == 3  # claimed, void, claimed again
    assert kept.events(job_id).count("result.stored") == 1
    assert [path.relative_to(kept.directory / "kept").as_posix() for path in kept.files()] == [
        kept.result(job_id)["storage_key"]
    ]


async def test_erased_while_it_is_fetched_leaves_nothing(kept: Bench, host: FileServer) -> None:
    """A file that comes after the erasure is not kept, and nobody is told of it."""
    gate = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await answer(PNG)(reader, writer)

    taking = asyncio.create_task(kept.complete(host.put("/a.png", slow)))
    await kept.until(lambda: host.requests)
    [job] = kept.rows("SELECT id FROM jobs")
    assert await kept.store.writer.run(Erase(job["id"], ACCOUNT)) is True
    gate.set()
    job_id = await taking
    await kept.later(60)

    assert kept.files() == []
    assert kept.result(job_id)["stored"] == 0
    assert kept.events(job_id) == ["job.completed", "job.erased"]


async def test_one_slow_host_delays_no_other(kept: Bench, host: FileServer) -> None:
    """Four places for a host: a hundred stalled files elsewhere do not hold this one up."""
    gate = asyncio.Event()

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()

    async with FileServer() as other:
        other.put("/slow.png", stall)
        slow = asyncio.create_task(kept.complete(*[f"{other.url}/slow.png"] * 50))
        await kept.until(lambda: len(other.requests) >= 4)
        quick = asyncio.create_task(kept.complete(host.put("/a.png", answer(PNG))))
        await kept.until(kept.stored)
        most = len(other.requests)
        kept.captures._open = False
        gate.set()
        await asyncio.gather(slow, quick)

    assert most == 4


async def test_slow_host_leaves_places_for_others(kept: Bench, host: FileServer) -> None:
    """Four hundred stalled files of one host: neither new results of another nor what is due in the store waits for them."""
    gate = asyncio.Event()

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()

    async with FileServer() as other:
        other.put("/slow.png", stall)
        slow = [asyncio.create_task(kept.complete(*[f"{other.url}/slow.png"] * 100)) for _ in range(4)]
        await kept.until(lambda: len(kept.rows("SELECT 1 FROM results")) == 400)
        [(_, admitted)] = kept.captures.waiting()
        for _ in range(3):
            await kept.stages.keeping.duties[0].run_once()
        quick = asyncio.create_task(kept.complete(*[host.put("/a.png", answer(PNG))] * 100))
        await kept.until(lambda: len(kept.rows("SELECT 1 FROM results WHERE stored")) >= 48)
        await kept.stages.keeping.duties[0].run_once()
        await kept.until(lambda: len(kept.rows("SELECT 1 FROM results WHERE stored")) == 100)
        waiting = dict(kept.captures.waiting())
        kept.captures._open = False
        gate.set()
        await asyncio.gather(*slow, quick)

    assert admitted <= 48  # the other places are kept for what is due in the store
    assert waiting == {other.url.removeprefix("http://"): 64}


async def test_what_waited_too_long_is_given_back(kept: Bench, host: FileServer) -> None:
    """A place in the queue that took most of the lease is given up at once, and the next tick fetches the file."""
    gate = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await answer(PNG)(reader, writer)

    taking = asyncio.create_task(kept.complete(*[host.put("/a.png", slow)] * 6))
    await kept.until(lambda: len(host.requests) == 4)
    kept.clock.advance(960)
    gate.set()
    job_id = await taking
    before = [kept.result(job_id, index)["stored"] for index in range(6)]
    await kept.later(1)

    assert (before.count(1), before.count(0)) == (4, 2)
    assert [kept.result(job_id, index)["stored"] for index in range(6)] == [1] * 6
    assert [kept.result(job_id, index)["tries"] for index in range(6)] == [0] * 6
    assert len(host.requests) == 6


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("https://CDN.example:8443/a/b.png", "cdn.example:8443"),
        ("https://cdn.example?x=https://other/", "cdn.example"),
        ("https://cdn.example#f", "cdn.example"),
        ("data:image/png;base64,AAAA", ""),
        ("", ""),
    ],
)
def test_host_of_a_file_is_what_slow_ones_are_told_by(url: str, wanted: str) -> None:
    """Port and all, in small letters; a picture in its own address has none."""
    assert host_of(url) == wanted
