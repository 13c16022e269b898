"""Long texts in large JSON, such as pictures in base64, taken out before the rest is parsed.

A parser keeps the interpreter to itself until it is through, 100 to 300 ms for 64 MiB: also from a thread that stops the
event loop. Taken out and decoded in pieces, a picture of any size stops nobody; the way back, into JSON, is the same. Pure. It
must not know what is looked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from service.offload import is_large

LONG_BYTES: Final = 4 << 10  # of a text that is taken out
MOST_LEFT_BYTES: Final = 8 << 20  # of a document without its long texts
MOST_TEXTS: Final = 300_000  # short ones and long ones
MOST_TEXT_BYTES: Final = 64 << 20  # of one text in memory
PIECE_BYTES: Final = 256 << 10  # of a text; decoded between two looks of others at the interpreter
_LONG_CHARS: Final = 256  # the same of a text to be encoded: an escape takes up to six bytes
_INSIDE: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
#: Up to an escape that may not be whole; a surrogate goes with its other half.
_WHOLE: Final = re.compile(
    rb"[^\\]*+(?:(?:\\u[dD][89abAB]..(?:\\u[dD][c-fC-F]..|(?=\\(?:[^u]|u[^dD]|u[dD][^c-fC-F])|[^\\]))|\\u(?![dD][89abAB])....|\\[^u])[^\\]*+)*+",
    re.DOTALL,
)
_MARK: Final = "\0"
#: What begins with the mark itself is taken out, too, so that it is not taken for one of ours.
_MARKED: Final = (b"\\u0000", b"\0")
_NAME: Final = re.compile(rb"[ \t\r\n]{0,1024}+:")
#: Bytes that each character of a text takes in memory where one of these is among them.
_WIDE: Final = ((re.compile("[\U00010000-\U0010ffff]"), 4), (re.compile("[\u0100-\uffff]"), 2))


class TooMuch(ValueError):
    """There is more than is read; the message goes on after "its body"."""


def parsed(
    data: bytes,
    parse: Callable[[bytes], Any],
    *,
    long_bytes: int = LONG_BYTES,
    piece_bytes: int = PIECE_BYTES,
    most_left_bytes: int = MOST_LEFT_BYTES,
    strict: bool = False,
) -> Any:
    """What `parse` makes of UTF-8 JSON, whatever the length of the texts in it.

    Args:
        data: The JSON.
        parse: Makes an object of a document, and a text of a text in quotes.
        long_bytes: What is longer is taken out …
        piece_bytes: … and decoded in pieces of so many.
        most_left_bytes: That may be left of the document then.
        strict: `parse` judges every piece, also one that has only one reading.

    Raises:
        TooMuch: There is more beside the long texts than is read.
        ValueError: Whatever `parse` raises.
    """
    kept: list[bytes] = []
    texts: list[str] = []
    at = start = left = found = 0
    while (start := data.find(b'"', start)) >= 0:
        found += 1
        if found > MOST_TEXTS:
            raise TooMuch(f"holds more than {MOST_TEXTS} texts")
        end = _end(data, start + 1)
        if (end - start > long_bytes or data.startswith(_MARKED, start + 1)) and not _NAME.match(data, end + 1):
            kept.append(data[at:start])
            kept.append(b'"\\u0000%d"' % len(texts))
            left += start - at
            texts.append(_text(data, start + 1, end, parse, piece_bytes, strict=strict))
            at = end + 1
        start = end + 1
    kept.append(data[at:])
    if left + len(data) - at > most_left_bytes:
        raise TooMuch(f"holds more than {most_left_bytes >> 20} MiB beside its long texts")
    return _put_back(parse(b"".join(kept)), texts)


def encoded(value: Any, order: Literal["deterministic"] | None = None) -> bytes:
    """The JSON of a value: the same as `msgspec.json.encode` makes, long texts in pieces."""
    return msgspec.json.encode(_with_raw(value) if is_large(value) else value, order=order)


def _with_raw(value: Any) -> Any:
    """A copy in which long texts are JSON already."""
    if isinstance(value, str) and len(value) > _LONG_CHARS:
        pieces = (value[at : at + PIECE_BYTES] for at in range(0, len(value), PIECE_BYTES))
        return msgspec.Raw(b'"%b"' % b"".join([msgspec.json.encode(piece)[1:-1] for piece in pieces]))
    if isinstance(value, dict):
        return {name: _with_raw(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_with_raw(inner) for inner in value]
    return value


def _end(data: bytes, at: int) -> int:
    """Where the text that begins here has its closing quote; the end of everything where it has none."""
    quote = data.find(b'"', at)
    if quote >= 0 and data.find(b"\\", at, quote) < 0:
        return quote
    while at < len(data):
        found = _INSIDE.match(data, at, min(at + PIECE_BYTES, len(data)))
        at = found.end() if found is not None else at
        if data[at : at + 1] == b'"':
            return at
        if data[at : at + 1] == b"\\":
            at += 2
    return len(data)


def _text(data: bytes, at: int, end: int, parse: Callable[[bytes], Any], piece_bytes: int, *, strict: bool) -> str:
    pieces: list[str] = []
    width = 1
    while at < end:
        until = _until(data, at, end, piece_bytes)
        piece = data[at:until]
        at = until
        plain = not strict and piece.isascii() and b"\\" not in piece
        pieces.append(piece.decode() if plain else parse(b'"%b"' % piece))
        width = max(width, _width(pieces[-1]))
        if width * sum(map(len, pieces)) > MOST_TEXT_BYTES:
            raise TooMuch(f"holds a text that takes more than {MOST_TEXT_BYTES >> 20} MiB")
    return "".join(pieces)


def _width(text: str) -> int:
    return 1 if text.isascii() else next((width for wide, width in _WIDE if wide.search(text)), 1)


def _until(data: bytes, at: int, end: int, piece_bytes: int) -> int:
    """The end of a piece that parts no character, no escape and no pair of surrogates."""
    if end - at <= piece_bytes:
        return end
    until = at + piece_bytes
    if data.find(b"\\", at, until) >= 0:
        found = _WHOLE.match(data, at, until)
        until = found.end() if found is not None else at
    while until > at and data[until] & 0xC0 == 0x80:
        until -= 1
    return until if until > at else end  # what is no JSON is told by the parser


def _put_back(document: Any, texts: list[str]) -> Any:
    """The document with the texts in their places."""
    root = [document]
    pending: list[Any] = [root]
    while texts and pending:
        held = pending.pop()
        for place, value in list(held.items() if isinstance(held, dict) else enumerate(held)):
            if isinstance(value, dict | list):
                pending.append(value)
            elif isinstance(value, str) and value.startswith(_MARK):
                number = value[1:]
                if number.isascii() and number.isdigit() and len(number) <= 9 and int(number) < len(texts):
                    held[place] = texts[int(number)]
    return root[0]
