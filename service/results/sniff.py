"""What a file is, by its own bytes: the type, the size in pixels, and whether it is whole. Pure; nothing is decoded.

Only pictures and videos that a browser shows and cannot run are known, so that HTML, SVG and archives never pass, whatever
the server called them. Headers are read by hand: Pillow reads some formats into memory as a whole to open them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Final

from service.results import boxes, webm
from service.results.source import Source

MAX_PIXELS: Final = 200_000_000  # of a picture; a few kilobytes can claim to be more, and break whoever opens them
MAX_SIDE: Final = 65_535
_MAX_PARTS: Final = 100_000  # chunks or markers that are walked through
_HEAD_BYTES: Final = 64
_TAIL_BYTES: Final = 4_096

WRONG_TYPE: Final = "wrong_type"
TRUNCATED: Final = "truncated"
TOO_MANY_PIXELS: Final = "too_many_pixels"

#: What is kept, and the ending that its files have.
ENDINGS: Final = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "image/gif": "gif",
    "image/avif": "avif",
    "image/heic": "heic",
    "image/bmp": "bmp",
    "video/mp4": "mp4",
    "video/quicktime": "mov",
    "video/webm": "webm",
}


@dataclass(frozen=True, slots=True)
class Look:
    """What a file is."""

    content_type: str
    width: int
    height: int


def examine(file: BinaryIO, size_bytes: int, *, length_known: bool) -> Look | str:
    """What the file is, or in a word why it is not kept.

    Args:
        file: Can be read anywhere.
        size_bytes: Of all of it.
        length_known: The server said how long it is; else formats that end with a mark must have it.
    """
    source = Source(file, size_bytes, length_known)
    head = source.read(0, _HEAD_BYTES)
    for fits, read in _READERS:
        if fits(head):
            look = read(source)
            return look if isinstance(look, str) else _bounded(look)
    return WRONG_TYPE


def _bounded(look: Look) -> Look | str:
    if not (0 < look.width <= MAX_SIDE and 0 < look.height <= MAX_SIDE):
        return TOO_MANY_PIXELS if look.width and look.height else WRONG_TYPE
    return TOO_MANY_PIXELS if look.width * look.height > MAX_PIXELS else look


def _png(source: Source) -> Look | str:
    """The first chunk must be a sound IHDR, and the walk over all chunks must end at IEND."""
    head = source.read(8, 25)
    if len(head) < 25:
        return TRUNCATED
    length, name = struct.unpack(">I4s", head[:8])
    width, height = struct.unpack(">II", head[8:16])
    if length != 13 or name != b"IHDR" or zlib.crc32(head[4:21]) != struct.unpack(">I", head[21:])[0]:
        return WRONG_TYPE
    offset = 33
    for _part in range(_MAX_PARTS):
        chunk = source.read(offset, 8)
        if len(chunk) < 8:
            return TRUNCATED
        length, name = struct.unpack(">I4s", chunk)
        offset += 12 + length
        if offset > source.size_bytes:
            return TRUNCATED
        if name == b"IEND":
            return Look("image/png", width, height)
    return WRONG_TYPE


#: Markers that begin a frame; C4, C8 and CC are tables.
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _jpeg(source: Source) -> Look | str:
    offset = 2
    for _part in range(_MAX_PARTS):
        marker = source.read(offset, 9)
        if len(marker) < 9:
            return TRUNCATED
        if marker[0] != 0xFF:
            return WRONG_TYPE
        if marker[1] == 0xFF:  # padding
            offset += 1
            continue
        if marker[1] in _FRAMES:
            height, width = struct.unpack(">HH", marker[5:9])
            if not source.length_known and b"\xff\xd9" not in source.tail(_TAIL_BYTES):
                return TRUNCATED
            return Look("image/jpeg", width, height)
        length = struct.unpack(">H", marker[2:4])[0]
        if length < 2 or marker[1] in {0xD9, 0xDA}:
            return WRONG_TYPE
        offset += 2 + length
    return WRONG_TYPE


def _gif(source: Source) -> Look | str:
    head = source.read(0, 13)
    if len(head) < 13:
        return TRUNCATED
    width, height = struct.unpack("<HH", head[6:10])
    if not source.length_known and b"\x3b" not in source.tail(16):
        return TRUNCATED
    return Look("image/gif", width, height)


def _webp(source: Source) -> Look | str:
    head = source.read(0, 30)
    if len(head) < 30 or struct.unpack("<I", head[4:8])[0] + 8 > source.size_bytes:
        return TRUNCATED
    match head[12:16]:
        case b"VP8 " if head[23:26] == b"\x9d\x01\x2a":
            width, height = struct.unpack("<HH", head[26:30])
            return Look("image/webp", width & 0x3FFF, height & 0x3FFF)
        case b"VP8L" if head[20] == 0x2F:
            bits = struct.unpack("<I", head[21:25])[0]
            return Look("image/webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
        case b"VP8X":
            return Look(
                "image/webp", int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
            )
        case _:
            return WRONG_TYPE


_BMP_HEADERS: Final = frozenset({40, 52, 56, 64, 108, 124})
_BMP_DEPTHS: Final = frozenset({1, 4, 8, 16, 24, 32})


def _bmp(source: Source) -> Look | str:
    """Two letters are a weak sign, so that the whole header has to make sense."""
    head = source.read(0, 30)
    if len(head) < 30:
        return WRONG_TYPE
    size, _reserved, pixels_at, header, width, height, planes, depth = struct.unpack("<IIIIiiHH", head[2:30])
    if header not in _BMP_HEADERS or planes != 1 or depth not in _BMP_DEPTHS or not 14 + header <= pixels_at <= size:
        return WRONG_TYPE
    return TRUNCATED if size > source.size_bytes else Look("image/bmp", width, abs(height))


def _iso(source: Source) -> Look | str:
    found = boxes.read(source)
    return found if isinstance(found, str) else Look(*found)


def _webm(source: Source) -> Look | str:
    found = webm.read(source)
    return found if isinstance(found, str) else Look("video/webm", *found)


_READERS: Final[tuple[tuple[Callable[[bytes], bool], Callable[[Source], Look | str]], ...]] = (
    (lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"), _png),
    (lambda head: head.startswith(b"\xff\xd8\xff"), _jpeg),
    (lambda head: head.startswith((b"GIF87a", b"GIF89a")), _gif),
    (lambda head: head.startswith(b"RIFF") and head[8:12] == b"WEBP", _webp),
    (lambda head: head[4:8] == b"ftyp", _iso),
    (lambda head: head.startswith(b"\x1a\x45\xdf\xa3"), _webm),
    (lambda head: head.startswith(b"BM"), _bmp),
)
