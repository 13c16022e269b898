"""A lying file server: nothing is stored that should not be, nothing is left lying about, and memory is bounded."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import ssl
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from service.clock import SystemClock
from service.egress.door import Door
from service.errors import StorageUnavailable
from service.results.download import Downloader, Fetched
from service.results.retry import Missed
from tests.egress.certificates import made_out, server_tls
from tests.egress.raw import opened, saying, serving
from tests.results.files import FileServer, Talk, answer, padded, picture
from tests.results.test_sniff import png

PNG = picture()
MAX_BYTES = 4 << 20


@pytest.fixture
async def host() -> AsyncIterator[FileServer]:
    async with FileServer() as server:
        yield server


@pytest.fixture
async def downloader(tmp_path: Path) -> AsyncIterator[Downloader]:
    door = Door(allow=(ip_network("127.0.0.1/32"),), clock=SystemClock())
    await door.start()
    (tmp_path / "spool").mkdir()
    yield Downloader(door, tmp_path / "spool", MAX_BYTES, total_s=3, stall_s=0.5)
    await door.close()
    assert list((tmp_path / "spool").iterdir()) == []


def pieces(head: str, *some: bytes, pause: asyncio.Event | None = None, forever: bool = False) -> Talk:
    """Say a head, then pieces; `pause`: wait for it before the last one; `forever`: repeat the last one."""

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\n{head}Connection: close\r\n\r\n".encode())
        for piece in some:
            if pause is not None and piece is some[-1]:
                await pause.wait()
            writer.write(piece)
            await writer.drain()
        while forever:
            writer.write(some[-1])
            await writer.drain()

    return talk


def redirect(location: bytes) -> Talk:
    """To what may be no text."""

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n")
        await writer.drain()

    return talk


@pytest.mark.parametrize(
    ("talk", "reason"),
    [
        (answer(b"<html><script>alert(1)</script></html>", "Content-Type: image/png"), "wrong_type"),
        (answer(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "Content-Type: image/svg+xml"), "wrong_type"),
        (answer(b"", "Content-Type: image/png"), "wrong_type"),
        (answer(b"\x89PNG\r\n\x1a\n<html>" + b" " * 64, "Content-Type: image/png"), "wrong_type"),
        (answer(png(60_000, 60_000), "Content-Type: image/png"), "too_many_pixels"),
        (answer(b"\x0b\x02\x80packed", "Content-Encoding: br"), "encoded"),
        (answer(gzip.compress(gzip.compress(PNG)), "Content-Encoding: gzip, gzip"), "wrong_type"),
        (answer(gzip.compress(PNG)[:40] + bytes(40), "Content-Encoding: gzip"), "encoded"),
        (answer(gzip.compress(PNG)[:-4], "Content-Encoding: gzip"), "truncated"),
        (answer(b"\x1f", "Content-Encoding: gzip"), "encoded"),
        (answer(b"", "Content-Encoding: gzip"), "encoded"),
        (answer(gzip.compress(b"<html></html>"), "Content-Encoding: gzip"), "wrong_type"),
        (answer(gzip.compress(bytes(MAX_BYTES + 1)), "Content-Encoding: gzip"), "too_large"),
        (answer(b"40;chunk-signature=00\r\n" + PNG, "Content-Encoding: aws-chunked"), "encoded"),
        (answer(gzip.compress(PNG)), "wrong_type"),
        (answer(b"plain", "Content-Encoding: utf-8"), "wrong_type"),
        (answer(PNG, length=MAX_BYTES + 1), "too_large"),
        (answer(PNG[: len(PNG) // 2], length=len(PNG)), "connection_cut"),
        (answer(PNG[: len(PNG) // 2], length=None), "truncated"),
        (answer(PNG[: len(PNG) // 2]), "truncated"),
        (answer(b"", status="206 Partial Content"), "http_206"),
        (answer(PNG, f"Content-Range: bytes 0-{len(PNG) - 1}/999999", status="206 Partial Content"), "http_206"),
        (answer(b"", status="204 No Content"), "http_204"),
        (answer(b"", f"X-Long: {'x' * 70_000}"), "bad_answer"),
        (answer(b"", status="302 Found"), "url_invalid"),
        (answer(b"", "Location: file:///etc/passwd", status="302 Found"), "url_invalid"),
        (answer(b"", "Location: http://10.0.0.1/x.png", status="302 Found"), "address_forbidden"),
        (answer(b"", "Location: https://169.254.169.254/latest/", status="307 Temporary"), "address_forbidden"),
        (answer(b"", "Location: //[::1]/x.png", status="301 Moved"), "address_forbidden"),
        (answer(b"", "Location: /again", status="302 Found"), "too_many_redirects"),
        (pieces("", b"not http"), "wrong_type"),
    ],
)
async def test_lie_is_refused(host: FileServer, downloader: Downloader, talk: Talk, reason: str) -> None:
    """Each lie has its word; none becomes a file."""
    host.put("/again", answer(b"", "Location: /again", status="302 Found"))
    found = await downloader.get(host.put("/a.png", talk))

    assert isinstance(found, Missed)
    assert found.reason == reason


@pytest.mark.parametrize(
    "coding",
    [
        "aws-chunked",
        "none",
        "utf-8",
        "UTF-8",
        "binary",
        "identity",
        "",
        "aws-chunked,identity",
        "gzip",
        "br",
        "deflate",
    ],
)
async def test_meaningless_coding_costs_no_file(host: FileServer, downloader: Downloader, coding: str) -> None:
    """Whatever stands in `Content-Encoding`: a plain file is a plain file."""
    found = await downloader.get(host.put("/a.png", answer(PNG, f"Content-Encoding: {coding}")))

    assert isinstance(found, Fetched)
    assert found.file == PNG


@pytest.mark.parametrize("chunk", [1, 7, 100_000])
@pytest.mark.parametrize(
    ("packed", "coding"),
    [
        (gzip.compress(PNG), "gzip"),
        (gzip.compress(PNG), "X-GZIP, aws-chunked"),
        (zlib.compress(PNG), "deflate"),
        (gzip.compress(PNG) + b"trailing", "gzip"),
    ],
)
async def test_packed_picture_is_unpacked(
    host: FileServer, downloader: Downloader, packed: bytes, coding: str, chunk: int
) -> None:
    """It is packed although nobody asked for that, and paid for all the same; size and digest are the picture's."""
    head = f"Content-Encoding: {coding}\r\nContent-Length: {len(packed)}\r\n"
    parts = [packed[at : at + chunk] for at in range(0, len(packed), chunk)]
    found = await downloader.get(host.put("/a.png", pieces(head, *parts)))

    assert isinstance(found, Fetched)
    assert (found.file, found.size_bytes, found.sha256) == (PNG, len(PNG), hashlib.sha256(PNG).hexdigest())


async def test_large_packed_picture_goes_through_the_spool(host: FileServer, downloader: Downloader) -> None:
    """A few kilobytes become three megabytes, whole, and memory stays far below that."""
    large = padded((64, 48), 3 << 20)
    url = host.put("/a.png", answer(gzip.compress(large), "Content-Encoding: gzip"))
    tracemalloc.start()
    found = await downloader.get(url)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert isinstance(found, Fetched)
    assert isinstance(found.file, Path)
    assert found.file.read_bytes() == large
    assert most < 3 << 20
    found.file.unlink()


@pytest.mark.parametrize(
    ("status", "header"),
    [("203 Transformed", "X-A: b"), ("206 Partial Content", f"Content-Range: bytes 0-{len(PNG) - 1}/{len(PNG)}")],
)
async def test_whole_file_under_another_status_is_whole(
    host: FileServer, downloader: Downloader, status: str, header: str
) -> None:
    """A cache that says so, and a part that is all of it."""
    found = await downloader.get(host.put("/a.png", answer(PNG, header, status=status)))

    assert isinstance(found, Fetched)


async def test_endless_file_ends_at_the_cap(host: FileServer, downloader: Downloader) -> None:
    """A server that never stops is left at the cap, and memory stays far below what it sent."""
    tracemalloc.start()
    found = await downloader.get(host.put("/a.png", pieces("", PNG, b"\0" * 65_536, forever=True)))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert isinstance(found, Missed)
    assert found.reason == "too_large"
    assert most < 4 << 20


async def test_stalled_file_ends_at_its_deadline(host: FileServer, downloader: Downloader) -> None:
    """Silence, and also a byte now and then, come to an end."""
    never = asyncio.Event()

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.1)

    stalled = await downloader.get(host.put("/a.png", pieces("Content-Length: 999\r\n", PNG, b"", pause=never)))
    dripped = await downloader.get(host.put("/b.png", drip))

    assert isinstance(stalled, Missed)
    assert isinstance(dripped, Missed)
    assert (stalled.reason, dripped.reason) == ("timeout", "timeout")
    downloader.slow_after_s = 0.3
    slow = await downloader.get(host.put("/c.png", drip))
    assert isinstance(slow, Missed)
    assert slow.reason == "too_slow"


async def test_spool_that_cannot_be_written_is_ours_to_mend(
    host: FileServer, tmp_path: Path, downloader: Downloader
) -> None:
    """A full disk is no fault of the file: our own storage is away, and the file is fetched again later."""
    downloader.spool = tmp_path / "nowhere" / "spool"
    with pytest.raises(StorageUnavailable):
        await downloader.get(host.put("/a.png", answer(padded((64, 48), 3 << 20))))


async def test_redirect_to_a_sound_file_is_followed(host: FileServer, downloader: Downloader) -> None:
    """Up to three, each judged anew; a relative one too, and each leads where it says, byte for byte."""
    host.put("/end.png?sig=%2F%7e&q=%20%C3%A9%FF?", answer(PNG))
    end = f"{host.url}/end.png?sig=%2F%7e&q= \u00e9\xff?#f".encode("latin-1").replace(b"\xe9", "é".encode())
    host.put("/two", redirect(end))
    found = await downloader.get(host.put("/one", answer(b"", "Location: two", status="302 Found")))

    assert isinstance(found, Fetched)
    assert found.file == PNG


@pytest.mark.parametrize(
    "location", ["http://{}/a.png", " HTTP://{}/a.png", "file:///etc/passwd", "data:image/png;base64,AA"]
)
async def test_redirect_away_from_tls_is_not_followed(host: FileServer, tmp_path: Path, location: str) -> None:
    """Whoever listens would read the link, and change the file."""
    host.put("/a.png", answer(PNG))
    certificate = made_out(tmp_path, None)
    head = f"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: {location.format(host.url[7:])}\r\n\r\n"
    trust = ssl.create_default_context(cafile=certificate)
    async with serving(saying(head.encode()), tls=server_tls(certificate)) as server, opened(tls=trust) as door:
        found = await Downloader(door, tmp_path, MAX_BYTES).get(server.url)

    assert found == Missed("url_invalid")
    assert host.requests == []


async def test_large_file_goes_through_the_spool(host: FileServer, downloader: Downloader) -> None:
    """Above a megabyte a file is written as it comes, and is whole."""
    large = padded((64, 48), 3 << 20)
    found = await downloader.get(host.put("/a.png", answer(large)))

    assert isinstance(found, Fetched)
    assert isinstance(found.file, Path)
    assert found.file.read_bytes() == large
    found.file.unlink()


async def test_spool_that_is_gone_is_made_again(host: FileServer, tmp_path: Path, downloader: Downloader) -> None:
    """A directory that was emptied while the service runs costs no file; see also the spool's own directory above."""
    (tmp_path / "spool").rmdir()
    found = await downloader.get(host.put("/a.png", answer(padded((64, 48), 3 << 20))))

    assert isinstance(found, Fetched)
    assert isinstance(found.file, Path)
    found.file.unlink()


async def test_file_that_changes_between_tries_is_the_one_that_came_whole(
    host: FileServer, downloader: Downloader
) -> None:
    """No two tries are ever put together: digest, type and bytes are of one answer."""
    other = picture("PNG", (20, 20))
    url = host.put("/a.png", answer(PNG[:40], length=len(PNG)), answer(other))
    first, second = await downloader.get(url), await downloader.get(url)

    assert isinstance(first, Missed)
    assert isinstance(second, Fetched)
    assert (second.file, second.look.width) == (other, 20)


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "file:///etc/passwd",
        "",
        "data:text/html;base64,PHNjcmlwdD4=",
        "data:image/png;base64,%%%",
        "data:image/png,raw",
        "data:image/svg+xml;base64,PHN2Zy8+",
        "http://user:secret@127.0.0.1/a.png",
        "http://[broken/",
    ],
)
async def test_url_that_is_none_is_refused(downloader: Downloader, url: str) -> None:
    """A provider's word is not dialled because it stands where an address should."""
    assert isinstance(await downloader.get(url), Missed)
