"""Our copies over HTTP: whole, in ranges, conditional, small; under every name only what was kept, and never as a page."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from moto.server import ThreadedMotoServer
from PIL import Image

from service.errors import SettingsInvalid
from tests.api.conftest import Served, serve


@pytest.fixture
async def keeper(tmp_path: Path) -> AsyncIterator[Served]:
    """A service that makes copies."""
    async with serve(tmp_path, REMORA_STORAGE_URL=f"file:{tmp_path}/kept") as made:
        yield made


async def stored(served: Served) -> tuple[dict[str, Any], str]:
    """A result with its copy, and the path of its link."""
    job = await served.completed()
    async with asyncio.timeout(20):
        while True:
            [result] = (await served.client.get(f"/v1/jobs/{job['id']}")).json()["results"]
            if result["stored"]:
                return result, result["url"][result["url"].index("/r/") :]
            await asyncio.sleep(0.02)


async def test_copy_is_served_as_a_file(keeper: Served) -> None:
    """The bytes with their own type, as an attachment that no browser runs; HEAD the same without them."""
    result, path = await stored(keeper)
    answer = await keeper.stranger.get(path)
    head = await keeper.stranger.head(path)

    assert answer.status_code == 200
    assert Image.open(io.BytesIO(answer.content)).size == (result["width"], result["height"])
    for each in (answer, head):
        assert each.headers["content-type"] == "image/png"
        assert each.headers["content-length"] == str(result["size_bytes"])
        assert each.headers["x-content-type-options"] == "nosniff"
        assert each.headers["content-disposition"].startswith('attachment; filename="job_')
        assert each.headers["content-security-policy"] == "default-src 'none'; sandbox"
        assert each.headers["etag"] == f'"{result["sha256"]}"'
        assert each.headers["accept-ranges"] == "bytes"
        assert each.headers["cache-control"].startswith("private")
    assert (head.status_code, head.content) == (200, b"")


async def test_part_of_a_copy_is_served(keeper: Served) -> None:
    """206 for a range, 416 beyond the end, the whole for another version of the file; 304 for who has it."""
    result, path = await stored(keeper)
    whole = (await keeper.stranger.get(path)).content
    etag, size = f'"{result["sha256"]}"', result["size_bytes"]

    async def get(**headers: str) -> httpx.Response:
        return await keeper.stranger.get(path, headers={name.replace("_", "-"): each for name, each in headers.items()})

    part, last, beyond = await get(range="bytes=5-14"), await get(range="bytes=-7"), await get(range=f"bytes={size}-")
    same, other = await get(range="bytes=0-1", if_range=etag), await get(range="bytes=0-1", if_range='"other"')
    known, weak, stale = (
        await get(if_none_match=etag),
        await get(if_none_match=f"W/{etag}"),
        await get(if_none_match='"x"'),
    )

    assert (part.status_code, part.content) == (206, whole[5:15])
    assert part.headers["content-range"] == f"bytes 5-14/{size}"
    assert (last.status_code, last.content) == (206, whole[-7:])
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    assert (same.status_code, other.status_code, other.content) == (206, 200, whole)
    assert [each.status_code for each in (known, weak, stale)] == [304, 304, 200]
    assert (known.content, known.headers["etag"]) == (b"", etag)


async def test_two_installations_share_no_place(keeper: Served, tmp_path: Path) -> None:
    """A second database that names the first one's directory is told so, and not served; the first one starts again."""
    (tmp_path / "second").mkdir()
    with pytest.raises(SettingsInvalid, match="another installation"):
        async with serve(tmp_path / "second", REMORA_STORAGE_URL=f"file:{tmp_path}/kept"):
            pass
    await stored(keeper)
    await keeper.service.close()
    async with serve(tmp_path, REMORA_STORAGE_URL=f"file:{tmp_path}/kept") as again:
        result, path = await stored(again)
        answer = await again.stranger.get(path)

    assert hashlib.sha256(answer.content).hexdigest() == result["sha256"]


async def test_head_knows_no_ranges(keeper: Served) -> None:
    """The whole file's headers, whatever part is asked for."""
    result, path = await stored(keeper)
    answers = [await keeper.stranger.head(path, headers={"Range": each}) for each in ("bytes=5-14", "bytes=99999999-")]

    assert [each.status_code for each in answers] == [200, 200]
    assert {each.headers["content-length"] for each in answers} == {str(result["size_bytes"])}


async def test_short_link_leads_to_the_copy(keeper: Served) -> None:
    """`GET /v1/jobs/{id}/results/{n}` gives a link that works without a key, for a while."""
    result, _ = await stored(keeper)
    job_id = (await keeper.client.get("/v1/jobs")).json()["data"][0]["id"]
    led = await keeper.client.get(f"/v1/jobs/{job_id}/results/0")
    copy = await keeper.stranger.get(led.headers["location"])

    assert led.status_code == 302
    assert copy.headers["etag"] == f'"{result["sha256"]}"'


async def test_small_picture_is_made_once(keeper: Served, tmp_path: Path) -> None:
    """A WebP of at most 320 pixels, kept beside the copy; none for what is no picture, or not here."""
    _, path = await stored(keeper)
    first = await keeper.stranger.get(f"{path}/thumb")
    [small] = (tmp_path / "kept" / "thumbs").rglob("*.webp")
    again = await keeper.stranger.get(f"{path}/thumb")
    known = await keeper.stranger.get(f"{path}/thumb", headers={"If-None-Match": first.headers["etag"]})
    await keeper.sql("UPDATE results SET content_type = 'video/mp4'")
    none = await keeper.stranger.get(f"{path}/thumb")

    assert first.headers["content-type"] == "image/webp"
    assert max(Image.open(io.BytesIO(first.content)).size) == 320
    assert small.read_bytes() == first.content == again.content
    assert known.status_code == 304
    assert (none.status_code, none.json()["code"]) == (404, "no_thumbnail")


async def test_copy_that_is_missing_leads_to_the_provider(keeper: Served, tmp_path: Path) -> None:
    """A file removed by hand: the provider's own while it lives, else an answer that says when to come back."""
    _, path = await stored(keeper)
    for each in (tmp_path / "kept" / "results").rglob("*.png"):
        each.unlink()
    gone = await keeper.stranger.get(path)
    await keeper.sql("UPDATE results SET source_url = 'https://cdn.example/a.png'")
    led = await keeper.stranger.get(path)

    assert gone.status_code == 404
    assert (led.status_code, led.headers["location"]) == (302, "https://cdn.example/a.png")


async def test_only_final_jobs_of_the_account_are_erased(keeper: Served) -> None:
    """409 for an active one, 404 for what is not there or another account's, 403 without the scope."""
    active = await keeper.take()
    result, path = await stored(keeper)
    final = (await keeper.client.get("/v1/jobs", params={"status": "completed"})).json()["data"][0]["id"]
    other = await keeper.account()
    reader = await keeper.account("jobs:read")
    refused = await keeper.client.delete(f"/v1/jobs/{active['id']}")
    strange = await other.delete(f"/v1/jobs/{final}")
    forbidden = await reader.delete(f"/v1/jobs/{final}")
    nowhere = [await keeper.client.delete(f"/v1/jobs/{each}") for each in ("x", final[:-2] + "00")]
    alive = await keeper.stranger.get(path)
    done = await keeper.client.delete(f"/v1/jobs/{final}")
    gone = await keeper.stranger.get(path)
    await other.aclose()
    await reader.aclose()

    assert (refused.status_code, refused.json()["code"]) == (409, "not_final")
    assert [strange.status_code, forbidden.status_code, *(each.status_code for each in nowhere)] == [404, 403, 404, 404]
    assert (alive.status_code, done.status_code, done.content, gone.status_code) == (200, 204, b"", 410)
    assert result["stored"]


@pytest.fixture
def s3() -> Iterator[str]:
    """An S3 server with a bucket; returns its address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    assert httpx.put(f"http://{host}:{port}/remora", trust_env=False).status_code == 200
    yield f"http://{host}:{port}"
    server.stop()


async def test_copy_in_a_bucket_is_led_to(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """302 to a presigned link, whose file is the copy; HEAD and the conditional answers come from us."""
    names = {"ENDPOINT_URL": s3, "ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s", "REGION": "us-east-1"}
    for name, value in names.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    async with serve(tmp_path, REMORA_STORAGE_URL="s3://remora/results") as served:
        result, path = await stored(served)
        led = await served.stranger.get(path)
        copy = await served.stranger.get(led.headers["location"])
        head = await served.stranger.head(path)
        small = await served.stranger.get(f"{path}/thumb")
        job_id = (await served.client.get("/v1/jobs")).json()["data"][0]["id"]
        short = await served.client.get(f"/v1/jobs/{job_id}/results/0")
        erased = await served.client.delete(f"/v1/jobs/{job_id}")
        gone = await served.stranger.get(led.headers["location"])

    assert led.status_code == 302
    assert led.headers["location"].startswith(f"{s3}/remora/results/")
    assert led.headers["cache-control"] == "no-store"
    assert short.headers["location"].startswith(f"{s3}/remora/results/")
    assert (copy.status_code, len(copy.content)) == (200, result["size_bytes"])
    assert copy.headers["content-disposition"].startswith("attachment")
    assert (head.status_code, head.headers["content-length"]) == (200, str(result["size_bytes"]))
    assert small.headers["content-type"] == "image/webp"
    assert (erased.status_code, gone.status_code) == (204, 404)


async def test_erased_result_is_told_as_erased_on_every_way(keeper: Served) -> None:
    """By its lasting link, and by the route that would make a short one; browsers ask again before they show a copy."""
    _, path = await stored(keeper)
    kept = await keeper.stranger.get(path)
    [job] = (await keeper.client.get("/v1/jobs")).json()["data"]
    await keeper.client.delete(f"/v1/jobs/{job['id']}")
    by_link = await keeper.stranger.get(path)
    by_route = await keeper.client.get(f"/v1/jobs/{job['id']}/results/0")

    assert kept.headers["cache-control"] == "private, no-cache"
    assert (by_route.status_code, by_route.json()["code"]) == (410, "result_erased")
    assert (by_link.status_code, by_link.json()["code"]) == (410, "result_erased")
