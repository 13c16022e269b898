"""GIF pictures (GIF89a): the size, and that there is a picture behind the header. Nothing is decoded."""

from __future__ import annotations

import struct
from typing import Final

from service.results.formats.source import ByteSource

_MAX_PARTS: Final = 100_000  # blocks that are walked through
_EXTENSION: Final = 0x21
_PICTURE: Final = 0x2C
_WRONG: Final = "wrong_type"
_TRUNCATED: Final = "truncated"


def read(source: ByteSource) -> tuple[str, int, int] | str:
    """Type, width and height; or in a word what is wrong."""
    head = source.read(0, 13)
    if len(head) < 13:
        return _TRUNCATED
    width, height = struct.unpack("<HH", head[6:10])
    missing = _picture(source, 13 + _table_bytes(head[10]))
    if missing is not None:
        return missing
    if not source.length_known and b"\x3b" not in source.tail(16):
        return _TRUNCATED
    return "image/gif", width, height


def _table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _picture(source: ByteSource, offset: int) -> str | None:
    """What is wrong with the first picture; extensions may stand before it."""
    for _part in range(_MAX_PARTS):
        block = source.read(offset, 10)
        if not block:
            return _TRUNCATED
        if block[0] == _PICTURE and len(block) == 10:
            data = source.read(
                offset + 10 + _table_bytes(block[9]), 2
            )  # the width of codes, and the first block's size
            if len(data) < 2:
                return _TRUNCATED
            return None if 1 <= data[0] <= 11 and data[1] else _WRONG
        if block[0] != _EXTENSION:
            return _WRONG
        offset = _after_blocks(source, offset + 2)
    return _WRONG


def _after_blocks(source: ByteSource, offset: int) -> int:
    for _part in range(_MAX_PARTS):
        size = source.read(offset, 1)
        if not size or not size[0]:
            return offset + 1
        offset += 1 + size[0]
    return offset
