"""WebP pictures (RFC 9649): the size, and that there is a picture behind the header. Nothing is decoded."""

from __future__ import annotations

import struct
from typing import Final

from service.results.formats.source import ByteSource

_MAX_CHUNKS: Final = 10_000
_PICTURES: Final = frozenset({b"VP8 ", b"VP8L", b"ANMF"})
_LEAST_BYTES: Final = 5  # of a picture's chunk
_TYPE: Final = "image/webp"
_WRONG: Final = "wrong_type"
_TRUNCATED: Final = "truncated"


def read(source: ByteSource) -> tuple[str, int, int] | str:
    """Type, width and height; or in a word what is wrong."""
    head = source.read(0, 30)
    if len(head) < 26 or struct.unpack("<I", head[4:8])[0] + 8 > source.size_bytes:
        return _TRUNCATED
    missing = _picture(source, struct.unpack("<I", head[4:8])[0] + 8)
    if missing is not None:
        return missing
    match head[12:16]:
        case b"VP8 " if head[23:26] == b"\x9d\x01\x2a" and len(head) == 30:
            width, height = struct.unpack("<HH", head[26:30])
            return _TYPE, width & 0x3FFF, height & 0x3FFF
        case b"VP8L" if head[20] == 0x2F:
            bits = struct.unpack("<I", head[21:25])[0]
            return _TYPE, (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X" if len(head) == 30:
            return _TYPE, int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
        case _:
            return _WRONG


def _picture(source: ByteSource, end: int) -> str | None:
    """What is wrong with the first picture; other chunks may stand before it."""
    offset = 12
    for _chunk in range(_MAX_CHUNKS):
        chunk = source.read(offset, 8)
        if len(chunk) < 8 or offset >= end:
            return _WRONG
        name, length = struct.unpack("<4sI", chunk)
        if name in _PICTURES:
            if length < _LEAST_BYTES:
                return _WRONG
            return _TRUNCATED if offset + 8 + length > source.size_bytes else None
        offset += 8 + length + (length & 1)
    return _WRONG
