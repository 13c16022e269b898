"""Undoing what a file host packed although it was asked not to: gzip and deflate, where the bytes agree with the header.

Many hosts write anything into `Content-Encoding` (`aws-chunked`, `utf-8`, gzip on a plain file), so that the header alone says
nothing. Bounded: what comes out is handed on piece by piece, and its reader stops where it has enough.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

_ZLIB: Final = frozenset({"gzip", "x-gzip", "deflate"})
#: Further ones after which a body can look like nothing.
_OTHERS: Final = frozenset({"br", "zstd", "compress", "x-compress", "dcb", "dcz", "aws-chunked"})
_GZIP_MAGIC: Final = b"\x1f\x8b"
_HEAD_BYTES: Final = 2  # that tell gzip and zlib from every file that is kept
_STEP_BYTES: Final = 65_536  # that come out at once
_EITHER: Final = zlib.MAX_WBITS | 32  # zlib finds out by itself which of the two it is


class Unpacker:
    """Reads one body.

    Args:
        content_encoding: The header, empty where there is none.
    """

    def __init__(self, content_encoding: str) -> None:
        codings = {each.strip().lower() for each in content_encoding.split(",")}
        self._is_packed = bool(codings & (_ZLIB | _OTHERS))
        self._head = b""
        self._stream = zlib.decompressobj(_EITHER)
        self._unpacks: bool | None = None if codings & _ZLIB else False  # None: the head is not there yet

    @property
    def unpacks(self) -> bool:
        """Whether something is undone."""
        return bool(self._unpacks)

    @property
    def whole(self) -> bool:
        """Whether what was packed has come to its end, with the checksum that stands there."""
        return not self._unpacks or self._stream.eof

    @property
    def left_packed(self) -> bool:
        """Whether the body may be packed in a way that is not undone."""
        return self._is_packed and not self._unpacks

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """What comes out of the next piece; an empty one ends the body.

        Raises:
            zlib.error: It is broken.
        """
        if self._unpacks is None:
            self._head += piece
            if piece and len(self._head) < _HEAD_BYTES:
                return
            piece = self._head
            self._unpacks = piece.startswith(_GZIP_MAGIC) or _is_zlib(piece)
        if not self._unpacks:
            yield piece
            return
        while not self._stream.eof:  # what follows the end is nobody's
            out = self._stream.decompress(piece, _STEP_BYTES)
            piece = self._stream.unconsumed_tail
            yield out
            if not piece and len(out) < _STEP_BYTES:
                return


def _is_zlib(head: bytes) -> bool:
    """The two bytes of RFC 1950: a method, and a checksum of both."""
    return len(head) >= _HEAD_BYTES and head[0] & 0x0F == 8 and int.from_bytes(head[:2], "big") % 31 == 0
