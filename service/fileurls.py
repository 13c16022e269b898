"""The URLs at which a provider says that a file is: http(s) links and `data:` URLs, read leniently, since they are paid for.

What HTTP can carry stays byte for byte as it was written: a link may hold a signature over it. Pure. It does not decide where
a link may lead; `egress.target` does.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from string import ascii_letters, digits
from typing import Final
from urllib.parse import quote, unquote, unquote_to_bytes, urljoin, urlsplit

MAX_LINK_CHARS: Final = 16_384  # of an http(s) link as it is sent; presigned links with session tokens have thousands
_HEAD_CHARS: Final = 1_024  # of a `data:` URL, within which its comma stands
_STEP_CHARS: Final = 65_536  # that are decoded at once: every escape costs an object meanwhile

#: What is cut off at both ends, as browsers do, beside blanks of all kinds.
_CONTROLS: Final = "".join(map(chr, range(0x21)))
#: The same in front.
_LEFT_OUT: Final = re.compile(r"\s*[\x00-\x20]*")

#: What a URL may hold (RFC 3986), beside letters, digits and `-._~`.
_SENDABLE: Final = "!#$%&'()*+,/:;=?@[]"
_SENDABLE_BYTES: Final = f"{ascii_letters}{digits}-._~{_SENDABLE}".encode()
_LONE_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ESCAPE: Final = re.compile(rb"%[0-9A-Fa-f]{2}")

#: A link: scheme, authority, and the rest. No blank and no backslash stands in an authority, and nothing is changed there:
#: two readers could take it for two hosts.
_LINK: Final = re.compile(r"(https?://)([^/?#\\\s\ud800-\udfff]{1,300})([/?#].*)?", re.IGNORECASE | re.DOTALL)
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_AFTER_AUTHORITY: Final = re.compile(r"[/?#]")

_ENCODED_COMMA: Final = re.compile(r"%2c", re.IGNORECASE)
_LINE_BREAKS: Final = b"\t\n\r"
_BLANKS: Final = b" \t\n\f\r"
_STANDARD_ALPHABET: Final = bytes.maketrans(b"-_", b"+/")


def trimmed(text: str) -> str:
    """The text without blanks and controls at both ends."""
    return text.strip().strip(_CONTROLS)  # the former alone is fast where there are millions


def escaped(text: str) -> str:
    """The text with whatever a URL cannot hold percent-encoded, each character by itself, and all else as it was.

    Raises:
        UnicodeEncodeError: It holds a lone surrogate; those of a header that is not UTF-8 become its bytes again.
    """
    return _LONE_PERCENT.sub("%25", quote(text, safe=_SENDABLE, errors="surrogateescape"))


def link_in(text: str) -> str | None:
    """The http(s) link that a text is, ready to be sent; None where it is none, or a longer one than is taken."""
    parts = link_parts(text)
    return None if parts is None else "".join(parts)


def link_parts(text: str) -> tuple[str, str] | None:
    """The same in two parts: scheme and authority, and what follows them."""
    text = trimmed(text)
    match = _LINK.fullmatch(text) if len(text) <= MAX_LINK_CHARS else None
    if match is None:
        return None
    scheme, authority, rest = match.groups(default="")
    try:
        place = urlsplit(f"//{authority}")
        origin = scheme + authority
        if not place.hostname or place.port == 0 or len(origin) + _escaped_chars(rest) > MAX_LINK_CHARS:
            return None
        return origin, escaped(rest)
    except ValueError:  # a port that is no number, a bracket that is not closed, a lone surrogate
        return None


def _escaped_chars(text: str) -> int:
    """How long `escaped` makes a text: known at once, where doing it takes long."""
    raw = text.encode("utf-8", "surrogateescape")
    lone = raw.count(b"%") - len(_ESCAPE.findall(raw))
    return len(raw) + 2 * (len(raw.translate(None, _SENDABLE_BYTES)) + lone)


def resolved(base: str, reference: str) -> str:
    """Where a reference leads that was found at `base`; only `../x` and its like change by it.

    Raises:
        ValueError: Its host cannot be read.
    """
    text = trimmed(reference)
    if _SCHEME.match(text):
        return text
    scheme, _, rest = trimmed(base).partition("://")
    if text.startswith("//"):
        return f"{scheme}:{text}"
    if text.startswith("/"):
        return f"{scheme}://{_AFTER_AUTHORITY.split(rest, maxsplit=1)[0]}{text}"
    return urljoin(base, text)


def is_data_url(text: str) -> bool:
    """Whether a text is a `data:` URL; what it holds is not looked at."""
    return _comma_in(_start_of(text)) is not None


def data_in(url: str) -> bytes | None:
    """The bytes that a `data:` URL holds; None where it holds none. Slow for a large one.

    Read as browsers do (RFC 2397, and "forgiving-base64" of WHATWG Infra), and beyond that with the alphabet of base64url,
    with `base64` at any place before the comma, and with that part percent-encoded. The media type is not believed.
    """
    text = trimmed(url)
    comma = _comma_in(text[:_HEAD_CHARS])
    if comma is None:
        return None
    head = unquote(text[5 : comma.start()])
    words = {word.strip().lower() for word in head.split(";")}
    try:
        pieces = _percent_decoded(text, comma.end())
        return (_base64_decoded(pieces) if "base64" in words else b"".join(pieces)) or None
    except UnicodeEncodeError:  # a lone surrogate
        return None


def _start_of(text: str) -> str:
    """The first characters of a trimmed text, which may be too large to be copied."""
    begins = _LEFT_OUT.match(text).end()  # type: ignore[union-attr] # it matches every text
    return text[begins : begins + _HEAD_CHARS]


def _comma_in(start: str) -> re.Match[str] | None:
    """What ends the head of a `data:` URL; None where it is none."""
    comma = re.search(",", start) or _ENCODED_COMMA.search(start)
    return comma if start[:5].lower() == "data:" else None


def _percent_decoded(text: str, begins: int) -> Iterator[bytes]:
    """What stands from there on and before a fragment, in pieces: no step holds up other threads for long."""
    fragment = text.find("#", begins)
    ends = len(text) if fragment == -1 else fragment
    left = b""
    for at in range(begins, ends, _STEP_CHARS):
        raw = left + text[at : min(at + _STEP_CHARS, ends)].encode().translate(None, _LINE_BREAKS)
        escape = raw.rfind(b"%", max(0, len(raw) - 2))  # one that goes on in the next piece
        left = b"" if escape == -1 else raw[escape:]
        yield unquote_to_bytes(raw if escape == -1 else raw[:escape])
    yield unquote_to_bytes(left)


def _base64_decoded(pieces: Iterable[bytes]) -> bytes | None:
    made, left, is_padded = bytearray(), b"", False
    for piece in pieces:
        symbols, padding, behind = piece.translate(_STANDARD_ALPHABET, _BLANKS).partition(b"=")
        if (is_padded and symbols) or behind.strip(b"="):
            return None
        is_padded |= bool(padding)
        symbols = left + symbols
        whole = len(symbols) - len(symbols) % 4
        left = symbols[whole:]
        if not _add(made, symbols[:whole]):
            return None
    return bytes(made) if _add(made, left + b"=" * (-len(left) % 4)) else None


def _add(made: bytearray, symbols: bytes) -> bool:
    """Decode one piece more; False where it is no base64."""
    try:
        made += base64.b64decode(symbols, validate=True)
    except binascii.Error:
        return False
    return True
