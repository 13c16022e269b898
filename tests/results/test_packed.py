"""Unpacking in bounds, whatever comes in whatever pieces."""

from __future__ import annotations

import gzip
import zlib

from hypothesis import given
from hypothesis import strategies as st

from service.results.packed import Unpacker

BYTES = st.binary(max_size=300) | st.integers(0, 300_000).map(bytes)


def fed(coding: str, data: bytes, cuts: list[int]) -> tuple[list[bytes], Unpacker]:
    """What comes out of a body that comes in these pieces."""
    unpacker, at = Unpacker(coding), 0
    parts: list[bytes] = []
    for cut in [*cuts, len(data) or 1]:
        if piece := data[at : at + cut]:
            parts += unpacker.feed(piece)
        at += cut
    return [*parts, *unpacker.feed(b"")], unpacker


@given(BYTES, st.sampled_from(["gzip", "deflate"]), st.lists(st.integers(1, 40), max_size=8))
def test_packed_bytes_come_out_as_they_were(data: bytes, coding: str, cuts: list[int]) -> None:
    """However the pieces fall, the same bytes, never more than 64 KiB at once; a body that is cut is not whole."""
    packed = gzip.compress(data) if coding == "gzip" else zlib.compress(data)
    parts, unpacker = fed(coding, packed, cuts)
    _, cut = fed(coding, packed[:-1], cuts)

    assert b"".join(parts) == data
    assert max(map(len, parts), default=0) <= 65_536
    assert (unpacker.unpacks, unpacker.whole, cut.whole) == (True, True, False)


@given(st.binary(max_size=80), st.text(max_size=20), st.lists(st.integers(1, 9), max_size=8))
def test_plain_bytes_pass_under_any_name(data: bytes, coding: str, cuts: list[int]) -> None:
    """A header that means nothing changes nothing."""
    parts, unpacker = fed(coding, data, cuts)

    assert b"".join(parts) == data
    assert unpacker.whole


@given(st.sampled_from([b"\x1f\x8b", b"\x78\x9c", b"\x78\xbb", b""]), st.binary(max_size=80))
def test_broken_bytes_are_broken_or_plain(head: bytes, data: bytes) -> None:
    """Rubbish that looks packed ends with zlib's error, or comes out."""
    try:
        parts, _ = fed("gzip, deflate", head + data, [3])
    except zlib.error:
        return

    assert sum(map(len, parts)) <= 1_100 * (len(data) + 2)  # more than deflate can give
