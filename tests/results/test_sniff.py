"""What a file is, is told by its own bytes; what is not known, not whole or a bomb is refused."""

from __future__ import annotations

import io
import random
import struct
import zlib

import pytest
from PIL import Image

from service.results.formats.sniff import Look, examine
from tests.results.files import box, mp4, picture, scans, webm


def look(data: bytes, *, length_known: bool = True) -> Look | str:
    return examine(io.BytesIO(data), len(data), length_known=length_known)


def png(width: int, height: int) -> bytes:
    """A PNG that claims a size, with one pixel of data."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 4)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("kind", "content_type"),
    [
        ("PNG", "image/png"),
        ("JPEG", "image/jpeg"),
        ("WEBP", "image/webp"),
        ("GIF", "image/gif"),
        ("BMP", "image/bmp"),
        ("AVIF", "image/avif"),
    ],
)
@pytest.mark.parametrize("length_known", [True, False])
def test_pictures_are_known_with_their_size(kind: str, content_type: str, length_known: bool) -> None:
    """Type and pixels as Pillow wrote them."""
    assert look(picture(kind, (123, 45)), length_known=length_known) == Look(content_type, 123, 45)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (mp4(), Look("video/mp4", 320, 240)),
        (mp4(b"qt  "), Look("video/quicktime", 320, 240)),
        (webm(), Look("video/webm", 320, 240)),
    ],
)
def test_videos_are_known_with_their_size(data: bytes, wanted: Look) -> None:
    """MP4, QuickTime and WebM, by their first track with a picture."""
    assert look(data) == wanted


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<!doctype html><script>alert(1)</script>",
        b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        b"\xef\xbb\xbf<html>",
        b"%PDF-1.7\n",
        b"PK\x03\x04zip",
        b"BM<html><script>alert(1)</script>" + b" " * 64,
        b"\xff\xd8\xff<html><script>alert(1)</script>",
        b"\x89PNG\r\n\x1a\n<html><script>alert(1)</script></html>",
        b"RIFF\x10\0\0\0WAVEfmt " + bytes(32),
        b"RIFF\x10\0\0\0WEBP<html>" + bytes(32),
        webm(b"matroska"),
        mp4(size=(0, 0)),
        box(b"ftyp", b"avif", bytes(4)) + box(b"meta", bytes(4)),
        b"MZ" + bytes(200),
        png(4, 4) + b"<script>alert(1)</script>",
        png(4, 4)[:33] + png(4, 4)[-12:],  # no data
        picture("GIF")[:13],
        b"GIF89a\x01\0\x01\0\0\0\0" + b"<script>alert(1)</script>;",
        b"\xff\xd8" + bytes.fromhex("ffc0000b0800010001010111 00") + b"<script>alert(1)</script>",
        b"\xff\xd8" + bytes.fromhex("ffc0000b0800010001010111 00") + b"\xff\xd9",
        b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(10),
        b"RIFF\x40\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(10) + b"<script>alert(1)</script>".ljust(42),
        picture("BMP")[:54] + b"<script>alert(1)</script>",
        picture("BMP") + b"<script>alert(1)</script>",
    ],
)
def test_what_could_run_or_is_unknown_is_refused(data: bytes) -> None:
    """Documents, archives, programs, and magic bytes with something else behind them."""
    assert look(data) in {"wrong_type", "truncated"}


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "JPEG"])
def test_cut_picture_is_refused(kind: str) -> None:
    """Half a picture is none, where nobody told how long it is."""
    data = picture(kind, (200, 200))

    assert look(data[: len(data) // 2], length_known=False) == "truncated"


def test_cut_video_is_refused() -> None:
    """Boxes and segments that reach beyond the end."""
    assert look(mp4()[:-1]) == "truncated"
    assert look(webm()[:-1]) == "truncated"


@pytest.mark.parametrize(("width", "height"), [(100_000, 10), (20_000, 20_000), (0x7FFFFFFF, 0x7FFFFFFF)])
def test_bomb_of_pixels_is_refused(width: int, height: int) -> None:
    """A file of a hundred bytes that claims a picture nobody can open."""
    assert look(png(width, height)) == "too_many_pixels"


@pytest.mark.parametrize("length_known", [True, False])
def test_picture_of_too_many_scans_is_refused(length_known: bool) -> None:
    """As many as any encoder makes pass; thousands, which take minutes to decode, do not."""
    assert look(scans(100, 64), length_known=length_known) == Look("image/jpeg", 64, 64)
    assert look(scans(101, 64), length_known=length_known) == "wrong_type"
    assert look(scans(20_000, 64), length_known=length_known) == "wrong_type"


@pytest.mark.parametrize(
    "options",
    [
        {"progressive": True},
        {"restart_marker_blocks": 1},
        {"quality": 100},
        {"exif": b"Exif\0\0" + b"\xff\xda\xff\xd9" * 500},
    ],
)
def test_every_kind_of_jpeg_is_known(options: dict[str, object]) -> None:
    """Progressive, with restarts, with another picture's marks in its metadata; cut or not is seen at its end."""
    noise = Image.effect_noise((200, 100), 90).convert("RGB")
    out = io.BytesIO()
    noise.save(out, "JPEG", **options)
    data = out.getvalue()

    assert look(data, length_known=False) == Look("image/jpeg", 200, 100)
    assert look(data[:-2], length_known=False) == "truncated"
    assert look(data[:-2]) == Look("image/jpeg", 200, 100)


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_moving_picture_is_known(kind: str) -> None:
    """Frames stand behind other blocks."""
    frames = [Image.effect_noise((60, 40), 90).convert("RGB") for _ in range(3)]
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:], duration=50, loop=0)

    assert look(out.getvalue(), length_known=False) == Look(f"image/{kind.lower()}", 60, 40)


def test_nonsense_never_raises() -> None:
    """Any bytes behind any beginning give a word or a look, and reading comes to an end."""
    chance = random.Random(5)
    beginnings = [b"", b"BM", b"\xff\xd8\xff", webm()[:20], mp4()[:40], picture("AVIF")[:100], picture("WEBP")[:30]]
    beginnings += [png(4, 4)[:40], b"GIF89a"]

    for _ in range(4_000):
        data = chance.choice(beginnings) + chance.randbytes(chance.randrange(200))
        found = look(data, length_known=chance.random() < 0.5)
        assert isinstance(found, Look) or found in {"wrong_type", "truncated", "too_many_pixels"}


def test_maze_of_boxes_ends() -> None:
    """Thousands of tiny boxes within boxes cost a bounded number of looks."""
    inner = box(b"ipco") * 1000
    maze = box(b"ftyp", b"avif", bytes(4)) + box(b"meta", bytes(4), box(b"iprp", inner) * 100)

    assert look(maze) == "wrong_type"
