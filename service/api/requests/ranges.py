"""The `Range` header (RFC 9110, section 14): one range of bytes; several are answered with the whole. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_ONE: Final = re.compile(r"bytes=\s*([0-9]{0,15})-([0-9]{0,15})\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes from `start` up to `end`."""

    start: int
    end: int
    partial: bool = False


def span_of(asked: str | None, size: int) -> Span | None:
    """What of a file of this size is to be sent; None: nothing of it is what was asked for (416)."""
    match = _ONE.fullmatch(asked) if asked is not None else None
    if match is None or match[1] == match[2] == "":
        return Span(0, size)  # none, several, or nonsense, which is left aside
    if not match[1]:
        count = min(int(match[2]), size)
        return Span(size - count, size, partial=True) if count else None
    start = int(match[1])
    last = int(match[2]) if match[2] else size - 1
    if match[2] and last < start:
        return Span(0, size)
    return Span(start, min(last + 1, size), partial=True) if start < size else None
