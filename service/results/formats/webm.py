"""WebM videos (EBML, RFC 8794): the size of the first video track. Only headers are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from service.results.formats.source import ByteSource

_MAX_ELEMENTS: Final = 10_000  # on one level
_EBML: Final = 0x1A45DFA3
_DOCTYPE: Final = 0x4282
_SEGMENT: Final = 0x18538067
_TRACKS: Final = 0x1654AE6B
_ENTRY: Final = 0xAE
_VIDEO: Final = 0xE0
_WIDTH: Final = 0xB0
_HEIGHT: Final = 0xBA


@dataclass(frozen=True, slots=True)
class _Element:
    number: int
    start: int
    end: int
    open_end: bool  # a live recording does not know its size


def read(source: ByteSource) -> tuple[int, int] | str:
    """Width and height; or in a word what is wrong."""
    top = list(_elements(source, 0, source.size_bytes))
    header = [element for element in top if element.number == _EBML]
    doctype = _inside(source, header, _EBML, _DOCTYPE)
    if not doctype or source.read(doctype[0].start, doctype[0].end - doctype[0].start)[:16].rstrip(b"\0") != b"webm":
        return "wrong_type"
    segment = [element for element in top if element.number == _SEGMENT]
    if not segment or (segment[0].end > source.size_bytes and not segment[0].open_end):
        return "truncated"
    entries = _inside(source, _inside(source, segment, _SEGMENT, _TRACKS), _TRACKS, _ENTRY)
    videos = _inside(source, entries, _ENTRY, _VIDEO)
    widths = [_number(source, each) for each in _inside(source, videos, _VIDEO, _WIDTH)]
    heights = [_number(source, each) for each in _inside(source, videos, _VIDEO, _HEIGHT)]
    return (widths[0], heights[0]) if widths and heights else "wrong_type"


def _inside(source: ByteSource, elements: list[_Element], outer: int, inner: int) -> list[_Element]:
    return [
        each
        for element in elements
        if element.number == outer
        for each in _elements(source, element.start, min(element.end, source.size_bytes))
        if each.number == inner
    ]


def _elements(source: ByteSource, start: int, end: int) -> Iterator[_Element]:
    for _ in range(_MAX_ELEMENTS):
        head = source.read(start, 12)
        if start >= end or len(head) < 2:
            return
        id_bytes = 9 - head[0].bit_length()
        if id_bytes > 4 or len(head) <= id_bytes:
            return
        size_bytes = 9 - head[id_bytes].bit_length()
        raw = head[id_bytes : id_bytes + size_bytes]
        if size_bytes > 8 or len(raw) < size_bytes:
            return
        size = int.from_bytes(raw, "big") & ((1 << 7 * size_bytes) - 1)
        open_end = size == (1 << 7 * size_bytes) - 1
        content = start + id_bytes + size_bytes
        stop = end if open_end else content + size
        yield _Element(int.from_bytes(head[:id_bytes], "big"), content, stop, open_end)
        start = stop


def _number(source: ByteSource, element: _Element) -> int:
    return int.from_bytes(source.read(element.start, min(element.end - element.start, 4)), "big")
