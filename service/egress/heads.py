"""Heads of answers as servers write them, put into the form that our parser takes; pure.

What RFC 9112 lets a client mend and browsers do mend is mended: line ends, folded lines, blanks before a colon, lines that are
no header, one length said twice, a length beside chunks. It must not know connections, bodies nor who asks.
"""

from __future__ import annotations

import re
from typing import Final

HEAD_BYTES: Final = 64 << 10  # of the answer's head and all that came before it
HEADER_LINES: Final = 500  # of one head

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SOUND: Final = re.compile(rb"HTTP/1\.[01] [0-9]{3}(?: [ -~]*+)?\r\n(?:" + _TOKEN + rb"+:[\t -~]*+\r\n)*+\r\n")
#: Up to four bytes before it are skipped, as Chromium does; any version is read as the one that we speak.
_STATUS: Final = re.compile(rb"[^\n]{0,4}?HTTP/([0-9](?:\.[0-9])?)[ \t]+([0-9]+)(?![^ \t])([^\n]*)", re.IGNORECASE)
_HEADER: Final = re.compile(rb"(" + _TOKEN + rb"+)[ \t]*:(.*)", re.DOTALL)
_UNFIT: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_LENGTH: Final = b"content-length"
_PLAIN_LENGTH: Final = re.compile(_LENGTH + rb":[\t ]*+[0-9]++[\t ]*+\r\n")
_CODING: Final = b"transfer-encoding"
_LOCATION: Final = b"location"


class HeadInvalid(ValueError):
    """A head cannot be read without guessing; the message goes on after "it answered with"."""


def end_of_head(begun: bytes, start: int) -> int:
    """Where what begins with a head goes on behind its blank line, with carriage returns or without (RFC 9112, 2.2); -1: nowhere yet."""
    plain, bare = begun.find(b"\n\r\n", start), begun.find(b"\n\n", start)
    if bare < 0 or 0 <= plain < bare:
        return plain + 3 if plain >= 0 else -1
    return bare + 2


def mended(head: bytes) -> tuple[bytes, bool]:
    """The head as our parser takes it, and whether the connection ends with its answer.

    Args:
        head: Status line, header lines and the blank line.

    Raises:
        HeadInvalid: It has too many lines, or says two lengths.
    """
    if len(head) > HEADER_LINES and head.count(b"\n") > HEADER_LINES + 2:
        raise HeadInvalid(f"a head of more than {HEADER_LINES} lines")
    if _SOUND.fullmatch(head):
        lower = head.lower()
        at = lower.find(_LENGTH)
        if at < 0 or (lower.find(_LENGTH, at + 1) < 0 and _CODING not in lower and _PLAIN_LENGTH.match(lower, at)):
            return head, False
    return _rewritten(head)


def _rewritten(head: bytes) -> tuple[bytes, bool]:
    first, *rest = head.rstrip(b"\r\n").split(b"\n")
    status = _STATUS.fullmatch(first.rstrip(b"\r"))
    if status is None:
        return head, False  # the parser says that it is no HTTP
    version = b"1.0" if status[1] == b"1.0" else b"1.1"
    reason = _UNFIT.sub(b" ", status[3].strip()).decode("ascii", "replace").encode("ascii", "replace")
    fields = [entry for entry in map(_field, _unfolded(rest)) if entry is not None]
    lengths = {part.strip() for name, value in fields if name.lower() == _LENGTH for part in value.split(b",")}
    if len(lengths) > 1:
        raise HeadInvalid("two different lengths of its body")
    if not all(map(bytes.isdigit, lengths)):
        raise HeadInvalid("a length of its body that is no number")
    codings = [value for name, value in fields if name.lower() == _CODING and value.lower() not in {b"", b"identity"}]
    kept = [(name, value) for name, value in fields if name.lower() not in {_LENGTH, _CODING}]
    kept += [(b"Transfer-Encoding", value) for value in codings]
    kept += [(b"Content-Length", value) for value in lengths if not codings]
    lines = [b"HTTP/%b %b %b" % (version, status[2], reason), *(b"%b: %b" % each for each in kept)]
    # RFC 9112, 6.3: chunks override a length, and who sends both is not trusted with a further request.
    return b"\r\n".join([*lines, b"", b""]), bool(codings and lengths)


def _unfolded(lines: list[bytes]) -> list[bytes]:
    """The header lines, each with those that go on with it."""
    whole: list[list[bytes]] = []
    for line in lines:
        if line[:1] in {b" ", b"\t"}:
            if whole:
                whole[-1].append(line)
        else:
            whole.append([line])
    return [b"".join(parts) for parts in whole]


def _field(line: bytes) -> tuple[bytes, bytes] | None:
    """Name and value; None for a line that is no header, which is passed over."""
    found = _HEADER.fullmatch(line)
    if found is None:
        return None
    value = _UNFIT.sub(b" ", found[2]).strip()
    if found[1].lower() == _LOCATION:
        return found[1], value  # a link is followed byte for byte, whatever its letters are
    try:
        value.decode()
    except UnicodeDecodeError:
        value = value.decode("latin-1").encode()
    return found[1], value
