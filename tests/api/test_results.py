"""Result links: no key, no guessing, no scripts, and an end."""

from __future__ import annotations

import base64
import io
import os
import time
from asyncio.events import Handle
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import pytest
from PIL import Image

from tests.api.conftest import Served


def _path(url: str) -> str:
    return url[url.index("/r/") :]


async def test_link_shows_the_picture(served: Served) -> None:
    """The lasting link of a drawn picture answers its bytes with their type, and nothing in it can run."""
    job = await served.completed()
    answer = await served.stranger.get(_path(job["results"][0]["url"]))
    head = await served.stranger.head(_path(job["results"][0]["url"]))

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"] == "attachment"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert Image.open(io.BytesIO(answer.content)).format == "PNG"
    assert (head.status_code, head.headers["content-type"], head.content) == (200, "image/png", b"")


@pytest.mark.parametrize(
    ("source", "location"),
    [
        ("https://cdn.example/a/b.png?X-Sig=a%2Fb&c=d#e", "https://cdn.example/a/b.png?X-Sig=a%2Fb&c=d#e"),
        ("http://user@cdn.example/a.png", "http://user@cdn.example/a.png"),
        ("https://cdn.example/" + "a" * 3_000, "https://cdn.example/" + "a" * 3_000),
        ("https://cdn.example/a?", "https://cdn.example/a?"),
        (" \nHTTPS://cdn.example/a/../b?sig=%2F%7e+\r\n", "HTTPS://cdn.example/a/../b?sig=%2F%7e+"),
        ("https://cdn.example/100%.png?s=%2F|%", "https://cdn.example/100%25.png?s=%2F%7C%25"),
        ("https://bücher.example/a.png", "https://b%C3%BCcher.example/a.png"),
        ("https://cdn.example/ä b.png", "https://cdn.example/%C3%A4%20b.png"),
        ("https://cdn.example/\r\nSet-Cookie: a=b", "https://cdn.example/%0D%0ASet-Cookie:%20a=b"),
    ],
)
async def test_link_leads_to_the_providers_file(served: Served, source: str, location: str) -> None:
    """302 to the provider's address as it is, and what has no place in a header is escaped."""
    job = await served.completed()
    await served.sql("UPDATE results SET source_url = :source", source=source)
    answer = await served.stranger.get(_path(job["results"][0]["url"]))

    assert (answer.status_code, answer.headers["location"]) == (302, location)
    assert answer.headers["cache-control"] == "no-store"
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "source",
    [
        "javascript:alert(1)",
        "file:///etc/passwd",
        "//cdn.example/a.png",
        "",
        "data:text/html;base64," + base64.b64encode(b"<script>alert(1)</script>").decode(),
        "data:image/svg+xml;base64," + base64.b64encode(b"<svg onload='alert(1)'/>").decode(),
        "data:image/png;base64,%%%",
        "data:image/png;base64,",
        "data:image/png,raw",
        "sha256:00 (9 bytes)",
        "data:image/png;base64," + base64.b64encode(b"<html><script>alert(1)</script></html>").decode(),
        "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n<script>alert(1)</script>").decode(),
        "gopher://cdn.example/",
        "http://[broken/",
        "http://169.254.169.254/",
        "http://u@169.254.169.254/",
        "http://u:p@cdn.example@169.254.169.254/",
        "http://169.254.169.254/#f",
        "http://169.254.169.254#@cdn.example/",
        "http://169.254.169.254\\@cdn.example:x/",
        "http://2852039166/",
        "http://0xa9.0xfe.0xa9.0xfe/",
        "http://0251.0376.0251.0376/",
        "http://169.254.43518/",
        "http://169.254.169.254/" + "a" * 3_000,
        "http:///169.254.169.254/",
        "http:/169.254.169.254/",
        "http://１６９.２５４.１６９.２５４/",
        "http://169%2E254%2E169%2E254/",
        "http://169.254.169.254%2F.cdn.example/",
        "http://[::ffff:169.254.169.254]/",
        " http://169.254.169.254/",
        "ht\ntp://169.254.169.254/",
    ],
)
async def test_link_serves_nothing_that_is_no_picture(served: Served, source: str) -> None:
    """404 for addresses that nobody should follow and documents that could run."""
    job = await served.completed()
    await served.sql("UPDATE results SET source_url = :source", source=source)
    answer = await served.stranger.get(_path(job["results"][0]["url"]))

    assert answer.status_code == 404
    assert "script" not in answer.text


@pytest.mark.parametrize(
    "spelling", ["DATA:;BASE64,{}", " data:image/jpeg;charset=utf-8;base64,{} ", "data:image/png,{}"]
)
async def test_link_shows_a_picture_however_it_is_spelt(served: Served, spelling: str) -> None:
    """A picture instead of an address: its bytes under their own type."""
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "PNG")
    encoded = base64.encodebytes(out.getvalue()).decode() if "64" in spelling else quote(out.getvalue())
    job = await served.completed()
    await served.sql("UPDATE results SET source_url = :source", source=spelling.format(encoded.rstrip("=\n")))
    answer = await served.stranger.get(_path(job["results"][0]["url"]))

    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.content == out.getvalue()


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        ("https://cdn.example/a?" + "x" * 8_000, "https://cdn.example/a?" + "x" * 8_000),
        ("HTTP://cdn.example/a", "HTTP://cdn.example/a"),
        ("data:image/png;base64,AAEC", None),
        ("data:image/png;base64," + "A" * 8_000, None),
        ("sha256:00 (9 bytes)", None),
        ("", None),
    ],
)
async def test_source_url_is_a_url_or_null(served: Served, stored: str, told: str | None) -> None:
    """The provider's link, whole; null where it gave none, or the picture itself."""
    job = await served.completed()
    await served.sql("UPDATE results SET source_url = :source", source=stored)
    [result] = (await served.client.get(f"/v1/jobs/{job['id']}")).json()["results"]

    assert result["source_url"] == told


@contextmanager
def longest_step(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Processor seconds of every step of the event loop meanwhile; a busy machine changes nothing about them."""
    steps: list[float] = []
    run = Handle._run

    def timed(self: Handle) -> None:
        began = time.thread_time()
        run(self)
        steps.append(time.thread_time() - began)

    with monkeypatch.context() as patched:
        patched.setattr(Handle, "_run", timed)
        yield steps


async def test_large_picture_holds_up_nobody(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """45 MB in a `data:` URL go out piece by piece: given to the connection at once they took 60 ms of the loop."""
    job = await served.completed()
    file = io.BytesIO()
    Image.frombytes("RGB", (4096, 3700), os.urandom(4096 * 3700 * 3)).save(file, "png", compress_level=0)
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    await served.sql("UPDATE results SET source_url = :url WHERE job_id = :id", url=url, id=job["id"])
    path, came = _path(job["results"][0]["url"]), 0
    head = await served.stranger.head(path)
    with longest_step(monkeypatch) as steps:
        async with served.stranger.stream("GET", path) as answer:
            async for piece in answer.aiter_raw():
                came += len(piece)

    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert int(answer.headers["content-length"]) == int(head.headers["content-length"]) == came == len(file.getvalue())
    assert head.content == b""
    assert max(steps) < 0.03


async def test_link_ends_with_its_result(served: Served) -> None:
    """410 for an expired result; 404 once its row is gone."""
    job = await served.completed()
    path = _path(job["results"][0]["url"])
    await served.sql("UPDATE results SET expires_at = 1")
    expired = await served.stranger.get(path)
    await served.sql("DELETE FROM results")
    gone = await served.stranger.get(path)

    assert (expired.status_code, gone.status_code) == (410, 404)


async def test_short_link_ends_by_itself(served: Served) -> None:
    """A short-lived link works until its time, and not after; the lasting one goes on."""
    job = await served.completed()
    links, now_ms = served.service._base.links, served.service.clock.now_ms()
    before = await served.stranger.get(_path(links.short(job["id"], 0, now_ms + 60_000)))
    after = await served.stranger.get(_path(links.short(job["id"], 0, now_ms - 1)))
    lasting = await served.stranger.get(_path(job["results"][0]["url"]))

    assert [each.status_code for each in (before, after, lasting)] == [200, 410, 200]
    assert after.json()["code"] == "link_expired"


async def test_guessed_link_is_not_found(served: Served) -> None:
    """A changed character anywhere, another index, nonsense: 404, in the same words."""
    job = await served.completed()
    token = _path(job["results"][0]["url"]).removeprefix("/r/")
    changed = [token[:n] + ("A" if token[n] != "A" else "B") + token[n + 1 :] for n in range(len(token))]
    other = _path(served.service._base.links.url(job["id"], 1)).removeprefix("/r/")
    answers = [await served.stranger.get(f"/r/{each}") for each in [*changed, other, "x", "%FF", "x" * 3000, "é"]]

    assert {answer.status_code for answer in answers} == {404}
    assert {answer.json()["code"] for answer in answers} == {"unknown_link"}


async def test_link_takes_no_other_method(served: Served) -> None:
    """405 for what does not look."""
    answer = await served.stranger.post("/r/x")

    assert answer.status_code == 405
