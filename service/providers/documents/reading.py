"""The one reader for what comes from outside as an answer or a callback: a body becomes JSON, or is told what is wrong with it.

A task that was paid for must not be lost by a stray byte, so whatever has one meaning is read: content codings, byte order
marks, texts in other charsets, NaN, numbers beyond all bounds, control characters, half surrogates. What cannot be decoded is
replaced. Time and memory are bounded, and what passes a bound is told by its own words. It must not know what is looked for;
what callers send us is read by `api.body`, which is strict.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, ParamSpec, Self, TypeVar

import msgspec

from service import offload
from service.providers.documents.longtexts import TooMuch, parsed
from service.providers.documents.unpacking import MOST_BYTES, is_packed, unpacked

MOST_VALUES: Final = 100_000  # in a document; each one costs memory
CALLBACK_BYTES: Final = 256 << 10  # of a callback; there is no more of one that has so many
UNPACKED_CALLBACK_BYTES: Final = 4 * CALLBACK_BYTES
NESTED_VALUES: Final = 20_000  # in JSON that stands in a text
CALLBACK_VALUES: Final = 5_000  # in a callback's document that are looked at
_LARGE_BYTES: Final = 1 << 20  # from here on long texts are taken out, and text is decoded in pieces
_BEGINNING: Final = 16 << 10  # characters of a broken document that are looked into
_PIECE: Final = 64 << 10
_MOST_REPLACED: Final = 1_000_000  # characters of a text
_DIGITS: Final = 1_000  # of a number that is kept as it was written
REPLACEMENT: Final = "\ufffd"

#: What stands before JSON so that no browser takes it for a script.
_GUARD: Final = re.compile(r"\)\]\}'?,?[ \t]*\r?\n")
_BLANK: Final = " \t\r\n\0\ufeff"
_HALF: Final = re.compile("[\ud800-\udfff]")
_ESCAPED_HALF: Final = re.compile(r"\\u[dD][89a-fA-F]")
_TOKEN: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[{}\[\],]', re.DOTALL)
_CHARSET: Final = re.compile(r"charset=[\"']?([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
#: Charsets of the web that can be decoded in pieces; any other name is passed over.
_CHARSETS: Final = re.compile(
    r"(?:us-)?ascii|utf-?(?:16|32)(?:[bl]e)?|latin-?1|iso-?8859-?\d{1,2}|(?:windows-?|cp)125\d|koi8-[ru]|gb(?:k|2312|18030)"
    r"|big5|euc-(?:jp|kr)|shift_?jis",
    re.IGNORECASE,
)
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class Written(float):
    """A number with a point or an exponent, which an id may be: `text` is how it was written."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> Self:
        """The number in a text."""
        made = super().__new__(cls, text)
        made.text = text[:_DIGITS]
        return made


# JMESPath 1.1 tells types by their names (functions.py, `_type_check_single`) and would take any other for no number.
Written.__name__ = "float"


_FAST: Final = msgspec.json.Decoder(float_hook=Written)
_P = ParamSpec("_P")
_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class Reading:
    """What could be read of a body.

    Args:
        document: JSON; None where there is none, or not all of it.
        fault: What is wrong, as it goes on after "its body"; None: there is a document.
        beginning: What stands in the part of a broken document that came. It may be less than the truth.
    """

    document: Any = None
    fault: str | None = None
    beginning: Any = None


def read(
    body: bytes,
    headers: Mapping[str, str],
    *,
    most_bytes: int = MOST_BYTES,
    most_values: int = MOST_VALUES,
    missing: str | None = None,
) -> Reading:
    """Read a body; nothing is raised for anything that it holds.

    Args:
        body: As it came.
        headers: What it came with, names in lower case.
        most_bytes: More is not unpacked.
        most_values: A document of more is not read.
        missing: What happened to the rest of it, where it is known not to be whole.
    """
    if missing is None and len(body) <= most_values:  # so short that it cannot hold more values
        try:
            return Reading(_FAST.decode(body))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # it is packed, or needs a closer look
    content_type, encoding = headers.get("content-type", ""), headers.get("content-encoding")
    if is_packed(body, encoding):
        made = unpacked(body, encoding, most_bytes)
        if made.over:
            return Reading(None, made.fault, _beginning(_start(made.data, content_type)))
        body, missing = made.data, missing or made.fault
    if len(body) > most_bytes:
        return Reading(None, f"is larger than {_size(most_bytes)}", _beginning(_start(body, content_type)))
    return _read(body, content_type, most_values, missing)


def read_callback(body: bytes, headers: Mapping[str, str]) -> Reading:
    """Read what a provider sent by itself: on the event loop, and so within narrow bounds."""
    missing = f"was cut at {_size(CALLBACK_BYTES)}" if len(body) >= CALLBACK_BYTES else None
    return read(body, headers, most_bytes=UNPACKED_CALLBACK_BYTES, most_values=CALLBACK_VALUES, missing=missing)


def _size(size_bytes: int) -> str:
    return f"{size_bytes >> 20} MiB" if size_bytes >> 20 else f"{size_bytes >> 10} KiB"


async def beside(
    body: bytes, headers: Mapping[str, str], work: Callable[_P, _Made], *args: _P.args, **kwargs: _P.kwargs
) -> _Made:
    """Do what reads a body: at once for a small one, else in a thread, so that the event loop goes on."""
    large = len(body) > offload.QUICK_BYTES or is_packed(body, headers.get("content-encoding"))
    return await offload.beside(large, work, *args, **kwargs)


def read_text(text: str) -> Any:
    """The JSON in a text of another document; None where it is none."""
    return _read(text.encode("utf-8", "replace"), "", NESTED_VALUES, None).document


def _read(body: bytes, content_type: str, most_values: int, fault: str | None) -> Reading:
    try:
        return _found(_parsed(body, partial(_parse_fast, most_values)), fault)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    except TooMuch as error:
        return Reading(None, fault or str(error), _beginning(_start(body, content_type)))
    start = ""
    try:
        pieces = _clean(_text(body, content_type))
        start = "".join(pieces[:1])[:_BEGINNING]
        # Bytes, since a text takes four for each character where a single one is outside of the first plane.
        data = b"".join([piece.encode() for piece in pieces])
        del pieces
        return _found(_parsed(data, partial(_parse_bytes, most_values)), fault)
    except TooMuch as error:
        return Reading(None, fault or str(error), _beginning(start))
    except RecursionError:
        return Reading(None, fault or "is nested too deeply")
    except ValueError as error:
        return Reading(None, fault or _why(start, error), _beginning(start))


def _parsed(data: bytes, parse: Callable[[bytes], Any]) -> Any:
    return parsed(data, parse) if len(data) > _LARGE_BYTES else parse(data)


def _parse_fast(most_values: int, data: bytes) -> Any:
    _count(data, most_values)
    return _FAST.decode(data)


def _parse_bytes(most_values: int, data: bytes) -> Any:
    _count(data, most_values)
    return _parse(data.decode())


def _count(data: bytes, most: int) -> None:
    """Refuse what may hold more values: every one but the first has one of these beside it."""
    if len(data) > most and data[:1] != b'"' and data.count(b",") + data.count(b"[") + data.count(b"{") > most:
        raise TooMuch(f"holds more than {most} values")


def _found(document: Any, fault: str | None) -> Reading:
    """A document that came whole. An object or a list that ends is complete, even if the body breaks off behind it."""
    if fault is None or isinstance(document, dict | list):
        return Reading(document)
    return Reading(None, fault)


def _why(start: str, error: ValueError) -> str:
    if not start:
        return "is empty"
    if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
        return "has something behind its JSON"
    return "is broken JSON" if start[0] in "{[" else "is no JSON"


def _parse(text: str) -> Any:
    document = json.loads(text, strict=False, parse_float=Written, parse_int=_whole)
    return _without_halves(document) if _ESCAPED_HALF.search(text) else document


def _whole(text: str) -> int | float:
    return int(text) if len(text) <= _DIGITS else Written(text)


def _without_halves(document: Any) -> Any:
    """The document with a sign in the place of every half of a surrogate pair, which no store and no answer of ours takes."""
    root = [document]
    pending: list[Any] = [root]
    while pending:
        held = pending.pop()
        for place, value in list(held.items() if isinstance(held, dict) else enumerate(held)):
            if isinstance(value, dict | list):
                pending.append(value)
            elif isinstance(value, str):
                held[place] = _HALF.sub(REPLACEMENT, value)
            if isinstance(place, str) and _HALF.search(place):
                held[_HALF.sub(REPLACEMENT, place)] = held.pop(place)
    return root[0]


def _start(body: bytes, content_type: str) -> str:
    return "".join(_clean(_text(body[:_BEGINNING], content_type)))


def _clean(pieces: list[str]) -> list[str]:
    """A text without what stands around JSON; piece by piece, since megabytes of it may be blank."""
    first, last = 0, len(pieces)
    while first < last and not pieces[first].strip(_BLANK):
        first += 1
    while first < last and not pieces[last - 1].strip(_BLANK):
        last -= 1
    kept = ["".join(pieces[first : first + 2][: last - first]), *pieces[first + 2 : last]]
    if kept[0]:
        kept[-1] = kept[-1].rstrip(_BLANK)
        kept[0] = kept[0].lstrip(_BLANK)
        found = _GUARD.match(kept[0])
        kept[0] = kept[0][found.end() :] if found is not None else kept[0]
    return kept


def _text(body: bytes, content_type: str) -> list[str]:
    """The body as text in pieces, by its marks, else as UTF-8, else by the charset that it came with; what cannot be decoded is replaced."""
    for mark, name in _MARKS:
        if body.startswith(mark):
            return _decoded(body[len(mark) :], name)
    if b"\0" in body[:4]:
        return _decoded(body, json.detect_encoding(body))
    said = _CHARSET.search(content_type)
    if said is None or _CHARSETS.fullmatch(said[1]) is None:
        return _decoded(body, "utf-8")
    try:
        return _decoded(body, "utf-8", "strict")
    except UnicodeDecodeError:
        return _decoded(body, said[1])


def _decoded(body: bytes, name: str, errors: str = "replace") -> list[str]:
    """In pieces, since nobody else runs while one is decoded."""
    try:
        decoder = codecs.getincrementaldecoder(name)(errors)
    except LookupError:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pieces: list[str] = []
    replaced = 0
    for at in range(0, len(body), _PIECE):
        pieces.append(decoder.decode(body[at : at + _PIECE]))
        replaced += pieces[-1].count(REPLACEMENT)
        if replaced > _MOST_REPLACED:  # three bytes for one
            raise TooMuch("is no text")
    return [*pieces, decoder.decode(b"", final=True)]


def _beginning(start: str) -> Any:
    """What a document says up to where it breaks off: its whole members, as if it ended after the last of them."""
    for _ in range(3):
        end, closing = _last_whole(start)
        try:
            return _parse(start[:end] + closing) if end else None
        except json.JSONDecodeError as error:
            start = start[: min(error.pos, end)]
        except (ValueError, RecursionError):
            break
    return None


def _last_whole(start: str) -> tuple[int, str]:
    """Where the last whole member ends, and what closes the document there."""
    end = 0
    open_ones: list[str] = []
    for token in _TOKEN.finditer(start):
        sign = token[0]
        if sign in "{[":
            open_ones.append("}" if sign == "{" else "]")
        elif sign in "}]":
            if not open_ones or open_ones[-1] != sign:
                break
            open_ones.pop()
        elif sign != ",":
            continue
        end = token.start() if sign == "," else token.end()
        if not open_ones:
            break
    return end, "".join(reversed(open_ones))
