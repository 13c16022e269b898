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

from service.results.formats import boxes, gif, jpeg, webm, webp
from service.results.formats.source import ByteSource

MAX_PIXELS: Final = 200_000_000  # of a picture; a few kilobytes can claim more, and break a viewer
MAX_SIDE: Final = 65_535  # pixels of a picture
_MAX_PARTS: Final = 100_000  # chunks that are walked through
_HEAD_BYTES: Final = 64

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
    source = ByteSource(file, size_bytes, length_known)
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


def _png(source: ByteSource) -> Look | str:
    """The first chunk must be a sound IHDR, and the walk over all chunks must end at IEND."""
    head = source.read(8, 25)
    if len(head) < 25:
        return TRUNCATED
    length, name = struct.unpack(">I4s", head[:8])
    width, height = struct.unpack(">II", head[8:16])
    if length != 13 or name != b"IHDR" or zlib.crc32(head[4:21]) != struct.unpack(">I", head[21:])[0]:
        return WRONG_TYPE
    offset, has_data = 33, False
    for _part in range(_MAX_PARTS):
        chunk = source.read(offset, 8)
        if len(chunk) < 8:
            return TRUNCATED
        length, name = struct.unpack(">I4s", chunk)
        offset += 12 + length
        if offset > source.size_bytes:
            return TRUNCATED
        has_data |= name == b"IDAT"
        if name == b"IEND":  # what follows it no picture needs, and somebody may take it for a document
            return Look("image/png", width, height) if has_data and offset == source.size_bytes else WRONG_TYPE
    return WRONG_TYPE


_BMP_HEADERS: Final = frozenset({40, 52, 56, 64, 108, 124})
_BMP_DEPTHS: Final = frozenset({1, 4, 8, 16, 24, 32})
_BMP_PADDING: Final = 8  # bytes that may follow
_BMP_PLAIN: Final = frozenset({0, 3, 6})  # kinds of compression that are none: so many pixels, so many bytes


def _bmp(source: ByteSource) -> Look | str:
    """Two letters are a weak sign, so that the whole header has to make sense."""
    head = source.read(0, 34)
    if len(head) < 34:
        return WRONG_TYPE
    size, _reserved, pixels_at, header, width, height, planes, depth, compression = struct.unpack(
        "<IIIIiiHHI", head[2:34]
    )
    if header not in _BMP_HEADERS or planes != 1 or depth not in _BMP_DEPTHS or not 14 + header <= pixels_at <= size:
        return WRONG_TYPE
    row_bytes = (width * depth + 31) // 32 * 4
    if compression in _BMP_PLAIN and pixels_at + row_bytes * abs(height) > size:
        return WRONG_TYPE
    if size > source.size_bytes:
        return TRUNCATED
    return Look("image/bmp", width, abs(height)) if source.size_bytes - size <= _BMP_PADDING else WRONG_TYPE


def _by(reader: Callable[[ByteSource], tuple[str, int, int] | str]) -> Callable[[ByteSource], Look | str]:
    def read(source: ByteSource) -> Look | str:
        found = reader(source)
        return found if isinstance(found, str) else Look(*found)

    return read


def _webm(source: ByteSource) -> Look | str:
    found = webm.read(source)
    return found if isinstance(found, str) else Look("video/webm", *found)


_READERS: Final[tuple[tuple[Callable[[bytes], bool], Callable[[ByteSource], Look | str]], ...]] = (
    (lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"), _png),
    (lambda head: head.startswith(b"\xff\xd8\xff"), _by(jpeg.read)),
    (lambda head: head.startswith((b"GIF87a", b"GIF89a")), _by(gif.read)),
    (lambda head: head.startswith(b"RIFF") and head[8:12] == b"WEBP", _by(webp.read)),
    (lambda head: head[4:8] == b"ftyp", _by(boxes.read)),
    (lambda head: head.startswith(b"\x1a\x45\xdf\xa3"), _webm),
    (lambda head: head.startswith(b"BM"), _bmp),
)
