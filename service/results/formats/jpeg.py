"""JPEG pictures (ITU-T T.81): the size, and that there are scans, but not too many. Nothing is decoded."""

from __future__ import annotations

import re
import struct
from typing import Final

from service.results.formats.source import ByteSource

#: A progressive picture has ten or so. Each costs a walk over all pixels, however few bytes it has, so that a file of a
#: megabyte with tens of thousands keeps the program that opens it busy for minutes.
MAX_SCANS: Final = 100
_MAX_SEGMENTS: Final = 10_000
_CHUNK_BYTES: Final = 1 << 18
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers that begin a frame; those three are tables
_SCAN: Final = 0xDA
_END: Final = 0xD9
_TYPE: Final = "image/jpeg"
_WRONG: Final = "wrong_type"
_TRUNCATED: Final = "truncated"
#: Among the bytes of a scan: a marker that ends it. FF is followed by 00 where it means itself; restarts belong to the scan.
_MARKER: Final = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")


def read(source: ByteSource) -> tuple[str, int, int] | str:
    """Type, width and height; or in a word what is wrong."""
    offset, scans = 2, 0
    size: tuple[int, int] | None = None
    for _segment in range(_MAX_SEGMENTS):
        marker = source.read(offset, 9)
        if len(marker) < 4 or (marker[0] != 0xFF and scans):  # a viewer shows what there is
            return _end(source, size, scans, marked=b"\xff\xd9" in marker)
        if marker[0] != 0xFF:
            return _WRONG
        if marker[1] == 0xFF:  # padding
            offset += 1
            continue
        if marker[1] == _END:
            return _end(source, size, scans, marked=True)
        length = struct.unpack(">H", marker[2:4])[0]
        if length < 2:
            return _WRONG
        if marker[1] in _FRAMES and size is None:
            if len(marker) < 9:
                return _TRUNCATED
            height, width = struct.unpack(">HH", marker[5:9])
            size = width, height
        offset += 2 + length
        if marker[1] == _SCAN:
            scans += 1
            if size is None or scans > MAX_SCANS:
                return _WRONG
            offset = _after_scan(source, offset)
    return _WRONG


def _end(source: ByteSource, size: tuple[int, int] | None, scans: int, *, marked: bool) -> tuple[str, int, int] | str:
    if size is None or not scans:
        return _WRONG if marked else _TRUNCATED
    return (_TYPE, *size) if marked or source.length_known else _TRUNCATED


def _after_scan(source: ByteSource, offset: int) -> int:
    """Where the next marker stands; the end where there is none."""
    while chunk := source.read(offset, _CHUNK_BYTES):
        found = _MARKER.search(chunk)
        if found is not None:
            return offset + found.start()
        if len(chunk) < 2:
            break
        offset += len(chunk) - 1  # a marker may lie across two chunks
    return source.size_bytes
