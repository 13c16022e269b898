"""One body of tests for both kinds of places: a directory, and a bucket of a real S3 server."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from moto.server import ThreadedMotoServer

from service.clock import SystemClock
from service.errors import FileMissing, SettingsInvalid, StorageUnavailable
from service.results.buckets import open_storage
from service.results.storage import LocalStorage, Storage, input_key, owner_of, result_key, thumb_key

JOB = "job_0199a000-0000-7000-8000-0000000000ab"
KEY = result_key(JOB, 3, 1, "png")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An S3 server with a bucket; returns its address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    assert httpx.put(f"{url}/remora", trust_env=False).status_code == 200
    yield url
    server.stop()


@pytest.fixture(params=["directory", "bucket"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The setting for a place of either kind."""
    if request.param == "bucket":
        names = {"ENDPOINT_URL": request.getfixturevalue("s3"), "ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s"}
        for name, value in (names | {"REGION": "us-east-1"}).items():
            monkeypatch.setenv(f"AWS_{name}", value)
        return f"s3://remora/{tmp_path.name}"
    return f"file:{tmp_path}/kept"


@pytest.fixture
async def storage(url: str, tmp_path: Path) -> AsyncIterator[Storage]:
    made = open_storage(url, tmp_path / "spool", "ours")
    assert made is not None
    yield made
    async for some in made.listing():
        await made.delete([each.key for each in some])


async def content(storage: Storage, key: str, start: int, end: int) -> bytes:
    return b"".join([piece async for piece in await storage.read(key, start, end)])


async def test_file_is_put_read_listed_and_deleted(storage: Storage) -> None:
    """Bytes as they are, any part of them; deleting twice is deleting once."""
    await storage.put(KEY, b"0123456789", "image/png")
    listed = [each async for some in storage.listing() for each in some]

    assert await content(storage, KEY, 0, 10) == b"0123456789"
    assert await content(storage, KEY, 3, 7) == b"3456"
    assert [each.key for each in listed] == [KEY]
    assert abs(listed[0].modified_ms - SystemClock().now_ms()) < 60_000
    await storage.delete([KEY, thumb_key(KEY)])
    await storage.delete([KEY])
    with pytest.raises(FileMissing):
        await storage.read(KEY, 0, 1)


async def test_files_of_a_job_are_found(storage: Storage) -> None:
    """All that are the job's by their names, and no neighbour's."""
    mine = [KEY, result_key(JOB, 31, 7, "webp"), thumb_key(KEY), input_key(JOB)]
    neighbours = [
        result_key(f"job_{'0' * 34}{JOB[-2:]}", 0, 1, "png"),
        result_key(f"job_{'f' * 34}{JOB[-2:]}", 0, 1, "png"),
    ]
    for key in [*mine, *neighbours]:
        await storage.put(key, b"x", "image/png")

    assert sorted(await storage.of_job(JOB)) == sorted(mine)
    await storage.delete(mine)
    assert await storage.of_job(JOB) == []


async def test_file_of_the_spool_is_moved(storage: Storage) -> None:
    """A large file goes from the spool to its place, and is gone from the spool."""
    large = os.urandom(6 << 20)
    spooled = storage.spool / "some"
    spooled.write_bytes(large)
    await storage.put(KEY, spooled, "video/mp4")

    assert await content(storage, KEY, 0, len(large)) == large
    assert not spooled.exists()


async def test_link_of_a_bucket_leads_to_the_file(storage: Storage, s3: str) -> None:
    """A directory has no links of its own; a bucket's leads to the bytes, as an attachment of their type."""
    await storage.put(KEY, b"0123456789", "image/png")
    url = await storage.link(KEY, 60)
    if isinstance(storage, LocalStorage):
        assert url is None
        return
    assert url is not None
    async with httpx.AsyncClient(trust_env=False) as caller:
        answer = await caller.get(url)

    assert url.startswith(s3)
    assert (answer.status_code, answer.content) == (200, b"0123456789")
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-disposition"].startswith("attachment")


async def test_file_that_a_bucket_does_not_let_go_keeps_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that is refused (a lock, a policy) is told when all others were asked for."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        [key] = re.findall("<Key>(.*)</Key>", await request.text())
        asked.append(key)
        name = f"<Key>{key}</Key>"
        code = "<Code>AccessDenied</Code><Message>locked</Message>"
        said = f"<Error>{name}{code}</Error>" if "held" in name else f"<Deleted>{name}</Deleted>"
        return web.Response(text=f"<DeleteResult>{said}</DeleteResult>", content_type="application/xml")

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    async with TestServer(app) as server:
        names = {"ENDPOINT_URL": f"http://127.0.0.1:{server.port}", "ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s"}
        for name, value in (names | {"REGION": "us-east-1"}).items():
            monkeypatch.setenv(f"AWS_{name}", value)
        bucket = await asyncio.to_thread(open_storage, "s3://remora", tmp_path / "spool", "")
        assert bucket is not None
        with pytest.raises(StorageUnavailable):
            await bucket.delete(["a.png", "held.png", "b.png"])

    assert [key.rpartition("/")[2] for key in asked] == ["a.png", "held.png", "b.png"]


async def test_file_that_a_directory_does_not_let_go_keeps_no_other(tmp_path: Path) -> None:
    """What cannot be removed is told behind all others; nor does a place that cannot be listed keep them from the list."""
    storage = LocalStorage(tmp_path / "kept")
    storage.prepare()
    keys = [result_key(f"{JOB[:-2]}{ending}", 0, 1, "png") for ending in ("aa", "bb", "cc")]
    for key in keys:
        await storage.put(key, b"x", "image/png")
    (tmp_path / "kept" / keys[0]).unlink()
    (tmp_path / "kept" / keys[0]).mkdir()
    with pytest.raises(StorageUnavailable):
        await storage.delete(keys)

    assert [each.name for each in (tmp_path / "kept" / "results").rglob("*.png")] == [keys[0].rpartition("/")[2]]


async def test_bucket_that_is_away_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused connections are `StorageUnavailable`, without host or key in the message."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "my-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "my-secret")
    away = open_storage("s3://remora", tmp_path / "spool", "ours")
    assert away is not None
    with pytest.raises(StorageUnavailable) as told:
        await away.put(KEY, b"x", "image/png")

    assert "my-" not in str(told.value)
    assert "127.0.0.1" not in str(told.value)


async def test_place_of_another_installation_is_left_alone(url: str, storage: Storage, tmp_path: Path) -> None:
    """Two databases that name one place: the second is told before it listens, and removes nothing of the first's."""
    on_its_way = storage.spool / ("a" * 32)
    on_its_way.write_bytes(b"x")
    await storage.put(KEY, b"x", "image/png")
    with pytest.raises(SettingsInvalid, match="another installation"):
        open_storage(url, tmp_path / "other.spool", "theirs")

    assert on_its_way.exists()
    assert await content(storage, KEY, 0, 1) == b"x"
    assert await storage.is_ours()
    assert open_storage(url, tmp_path / "spool", "ours") is not None
    assert not on_its_way.exists()


def test_directory_beside_a_new_database_is_taken_over(tmp_path: Path) -> None:
    """The default place belongs to whatever database has its name; only what has the name of a file on its way goes."""
    url, spool = f"file:{tmp_path}/remora.db.results", tmp_path / "remora.db.spool"
    assert open_storage(url, spool, "old") is not None
    (tmp_path / "remora.db.results" / ".spool" / "mine.txt").write_text("x")

    assert open_storage(url, spool, "new") is not None
    assert (tmp_path / "remora.db.results" / ".spool" / "mine.txt").exists()
    with pytest.raises(SettingsInvalid):
        open_storage(url, tmp_path / "else.db.spool", "old")


async def test_directory_that_comes_back_empty_is_used_again(tmp_path: Path) -> None:
    """Its parts are made again, itself never: while it is away nothing is written in its place."""
    made = LocalStorage(tmp_path / "kept")
    made.prepare()
    shutil.rmtree(tmp_path / "kept")
    with pytest.raises(StorageUnavailable):
        await made.put(KEY, b"x", "image/png")
    away = (tmp_path / "kept").exists()
    (tmp_path / "kept").mkdir()
    await made.put(KEY, b"x", "image/png")

    assert not away
    assert await content(made, KEY, 0, 1) == b"x"


async def test_directory_gives_nothing_but_files_with_keys(tmp_path: Path) -> None:
    """No path leads out of it, and none to what lies in it by chance."""
    made = LocalStorage(tmp_path / "kept")
    made.prepare()
    (tmp_path / "kept" / "secret.txt").write_text("x")
    for key in ("secret.txt", "../remora.db", "results/ab/../../secret.txt", "results/ab/x.png/..", "/etc/passwd", ""):
        with pytest.raises(ValueError, match="no key"):
            await made.read(key, 0, 1)


async def test_link_in_the_directory_is_not_followed(tmp_path: Path) -> None:
    """A symbolic link under a key is no file of ours."""
    made = LocalStorage(tmp_path / "kept")
    made.prepare()
    (tmp_path / "outside").write_text("secret")
    path = tmp_path / "kept" / KEY
    path.parent.mkdir(parents=True)
    path.symlink_to(tmp_path / "outside")
    with pytest.raises(StorageUnavailable):
        await made.read(KEY, 0, 6)


def test_place_that_cannot_be_used_is_told_before_anything_listens(tmp_path: Path) -> None:
    """The setting is named with what is wrong."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(SettingsInvalid, match="REMORA_STORAGE_URL"):
        open_storage(f"file:{tmp_path}/file/kept", tmp_path / "spool", "ours")

    assert open_storage(None, tmp_path / "spool", "ours") is None


def test_key_tells_whose_it_is() -> None:
    """Results, their thumbnails and inputs; anything else is nobody's, and is left alone."""
    assert owner_of(KEY) == (JOB, 3)
    assert owner_of(thumb_key(KEY)) == (JOB, 3)
    assert owner_of(input_key(JOB)) == (JOB, None)
    assert owner_of("results/ab/other.png") is None
