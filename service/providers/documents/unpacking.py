"""Content codings that providers use although none was asked for (RFC 9110, 8.4), unpacked in bounded time and memory.

What browsers take is taken: gzip, deflate with and without its zlib wrapping, several in a row, a header that is not true.
Pure. It must not know what is packed.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

MOST_BYTES: Final = 64 << 20  # of a body, packed or not
MOST_TIMES: Final = 100  # what a body may grow to, beside …
FREE_BYTES: Final = 1 << 20  # … what it may grow to however small it is: a kilobyte of one letter is no attack
MOST_CODINGS: Final = 4  # around each other
MOST_MEMBERS: Final = 64  # of gzip, one behind the other
_PIECE: Final = 64 << 10  # unpacked between two looks at the bounds
_GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP, _ZLIB, _RAW = 31, 15, -15  # zlib's `wbits`
_TOO_MUCH: Final = "unpacks to too much"
_OURS: Final = ("gzip", "x-gzip", "deflate")
_FOREIGN: Final = ("br", "zstd", "compress", "x-compress", "dcb", "dcz", "exi", "pack200-gzip")


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What came out of a body.

    Args:
        fault: What is wrong, as it goes on after "its body"; `data` is what came out before that.
        over: There was more than a bound allows.
    """

    data: bytes
    fault: str | None = None
    over: bool = False


def is_packed(body: bytes, encoding: str | None) -> bool:
    """Whether there may be something to unpack."""
    return bool(encoding) or body.startswith(_GZIP_MAGIC)


def unpacked(body: bytes, encoding: str | None, most_bytes: int = MOST_BYTES) -> Unpacked:
    """The body without its codings.

    Args:
        body: As it came.
        encoding: The `Content-Encoding` that it came with; words that mean nothing are passed over.
        most_bytes: More is not unpacked.
    """
    most = min(most_bytes, max(FREE_BYTES, MOST_TIMES * len(body)))
    words = [word.strip().lower() for word in (encoding or "").split(",")]
    codings = [word for word in words if word in _OURS or word in _FOREIGN]
    # gzip shows itself, so that what was packed once more than was said is unpacked, too.
    for coding in (*reversed(codings[-MOST_CODINGS:]), *["gzip"] * MOST_CODINGS):
        made = _without(body, coding, most)
        if made.fault == _TOO_MUCH:
            grown = f"{most >> 20} MiB" if most in {most_bytes, FREE_BYTES} else f"{MOST_TIMES} times its size"
            return Unpacked(made.data, f"unpacks to more than {grown}", over=True)
        if made.fault is not None:
            return made
        body = made.data
    more = len(codings) > MOST_CODINGS or body.startswith(_GZIP_MAGIC)
    return Unpacked(body, f"is packed more than {MOST_CODINGS} times" if more else None)


def _without(body: bytes, coding: str, most: int) -> Unpacked:
    """The body without one coding; as it is where it does not have it."""
    if coding in _FOREIGN and not _is_text(body):
        return Unpacked(b"", f"is packed with {coding}, which cannot be unpacked here")
    if coding in {"gzip", "x-gzip"} and body.startswith(_GZIP_MAGIC):
        return _members(body, most)
    if coding == "deflate" and body:
        for bits in (_ZLIB, _RAW) if _is_zlib(body) else (_RAW,):
            made = _inflated(body, bits, most)[0]
            if made.fault is None or (made.data and not _is_text(body)):
                return made
    return Unpacked(body)


def _is_text(body: bytes) -> bool:
    return body[:_PIECE].lstrip(b" \t\r\n\xef\xbb\xbf")[:1] in {b"{", b"[", b'"'}


def _is_zlib(body: bytes) -> bool:
    return len(body) > 1 and body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0


def _members(body: bytes, most: int) -> Unpacked:
    """All members of a gzip file; what follows them and is none is passed over."""
    whole: list[bytes] = []
    at = size = 0
    for _ in range(MOST_MEMBERS):
        made, used = _inflated(body, _GZIP, most - size, at)
        whole.append(made.data)
        size, at = size + len(made.data), at + used
        if made.fault is not None or not body.startswith(_GZIP_MAGIC, at):
            return Unpacked(b"".join(whole), made.fault)
    return Unpacked(b"".join(whole), f"is packed with gzip of more than {MOST_MEMBERS} members")


def _inflated(body: bytes, bits: int, most: int, start: int = 0) -> tuple[Unpacked, int]:
    """What is packed at `start`, and how many bytes it took there."""
    inflate = zlib.decompressobj(bits)
    out = bytearray()
    at = start
    while at < len(body) and not inflate.eof:
        pending = body[at : at + _PIECE]
        at += len(pending)
        before = inflate.copy()
        try:
            while pending and not inflate.eof:
                if len(out) >= most:
                    return Unpacked(bytes(out), _TOO_MUCH), at - start
                out += inflate.decompress(pending, min(_PIECE, most - len(out)))
                pending = inflate.unconsumed_tail
        except zlib.error:
            return Unpacked(bytes(out) + _rest(before, pending, most - len(out)), "is packed, and broken"), at - start
    fault = None if inflate.eof else "is packed, and cut off"
    return Unpacked(bytes(out), fault), at - start - len(inflate.unused_data)


def _rest(inflate: zlib._Decompress, pending: bytes, most: int) -> bytes:
    """What comes out before the fault, which zlib keeps to itself where it meets the fault in the same piece."""
    out = bytearray()
    try:
        for at in range(len(pending)):
            if len(out) >= most:
                break
            out += inflate.decompress(pending[at : at + 1], most - len(out))
    except zlib.error:
        pass
    return bytes(out)
