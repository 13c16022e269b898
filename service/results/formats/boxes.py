"""Files made of ISO boxes (ISO/IEC 14496-12): AVIF and HEIC pictures, MP4 and QuickTime videos. Only headers are read."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from service.results.formats.source import ByteSource

_MAX_BOXES: Final = 10_000  # on one level
_AVIF: Final = frozenset({b"avif", b"avis"})
_HEIC: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1"})
_QUICKTIME: Final = b"qt  "
_WRONG: Final = "wrong_type"
_TRUNCATED: Final = "truncated"


@dataclass(frozen=True, slots=True)
class _Box:
    name: bytes
    start: int  # of its content
    end: int


def read(source: ByteSource) -> tuple[str, int, int] | str:
    """Type, width and height; or in a word what is wrong."""
    top = list(_boxes(source, 0, source.size_bytes))
    if not top or top[0].name != b"ftyp":
        return _WRONG
    if top[-1].end > source.size_bytes:
        return _TRUNCATED
    brands = source.read(top[0].start, min(top[0].end - top[0].start, 512))
    names = {brands[:4], *(brands[at : at + 4] for at in range(8, len(brands), 4))}
    if names & _AVIF or names & _HEIC:
        size = _picture(source, top)
        return (("image/avif" if names & _AVIF else "image/heic"), *size) if size else _WRONG
    size = _video(source, top)
    return (("video/quicktime" if brands[:4] == _QUICKTIME else "video/mp4"), *size) if size else _WRONG


def _boxes(source: ByteSource, start: int, end: int) -> Iterator[_Box]:
    """The boxes of one level; the last one may reach beyond the end of a file that was cut."""
    for _ in range(_MAX_BOXES):
        head = source.read(start, 16)
        if start >= end or len(head) < 8:
            return
        size, name = struct.unpack(">I4s", head[:8])
        content = start + 8
        if size == 1:
            if len(head) < 16:
                return
            size = struct.unpack(">Q", head[8:16])[0]
            content = start + 16
        stop = end if size == 0 else start + size
        if stop < content:
            return
        yield _Box(name, content, stop)
        start = stop


def _inside(source: ByteSource, boxes: list[_Box], name: bytes, skip: int = 0) -> list[_Box]:
    """What lies in the boxes of that name; `skip` bytes of version and flags come first in some."""
    return [
        inner
        for box in boxes
        if box.name == name
        for inner in _boxes(source, box.start + skip, min(box.end, source.size_bytes))
    ]


def _picture(source: ByteSource, top: list[_Box]) -> tuple[int, int] | None:
    """The largest of the sizes that are declared: thumbnails and tiles have their own."""
    properties = _inside(source, _inside(source, _inside(source, top, b"meta", 4), b"iprp"), b"ipco")
    sizes = [
        struct.unpack(">II", raw)
        for box in properties
        if box.name == b"ispe" and len(raw := source.read(box.start + 4, 8)) == 8
    ]
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def _video(source: ByteSource, top: list[_Box]) -> tuple[int, int] | None:
    """The size of the first track that has one: sound has none."""
    for box in _inside(source, _inside(source, top, b"moov"), b"trak"):
        if box.name != b"tkhd" or box.end - box.start < 84:
            continue
        width, height = struct.unpack(">II", source.read(box.end - 8, 8).ljust(8, b"\0"))
        if width >> 16 and height >> 16:
            return width >> 16, height >> 16
    return None
