"""The files among what a document of a provider has where a completed task's results should be. Pure.

Whatever stands there is told, since it was paid for: as a URL, or as something that is none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from operator import length_hint
from typing import Final

from service.fileurls import trimmed
from service.providers.documents.origins import LinkOrigins

#: A link that needs no reading: what it says is what is sent. Nearly all are such, and every callback pays for the reading.
_PLAIN: Final = re.compile(
    r"https?://[A-Za-z0-9][A-Za-z0-9.-]{0,252}/(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2}){0,2000}+"
)

MAX_FILES: Final = 64  # of one task; more is not one request's result
_MAX_ENTRIES: Final = 1_000  # that are looked at, so that no document takes long

_END: Final = object()


@dataclass(frozen=True, slots=True)
class FileList:
    """What was found.

    Args:
        urls: Of files, each once, in the order given.
        not_urls: The places among the results, from 0, at which something stands that is no URL.
        left_out: How many more results there may be.
    """

    urls: tuple[str, ...] = ()
    not_urls: tuple[int, ...] = ()
    left_out: int = 0


NO_FILES: Final = FileList()


def _is_plain(entry: object) -> bool:
    return isinstance(entry, str) and _PLAIN.fullmatch(entry) is not None


def file_list(value: object, origins: LinkOrigins) -> FileList:
    """Read what an expression found: a text, or a list of texts."""
    if value is None:
        return NO_FILES
    plain = [value] if isinstance(value, str) else value
    if isinstance(plain, list) and 0 < len(plain) <= MAX_FILES and all(map(_is_plain, plain)):
        return FileList(tuple(dict.fromkeys(plain)))
    entries, left_out = _entries(value)
    urls: dict[str, None] = {}
    texts: set[str] = set()  # of these
    not_urls: list[int] = []
    for entry in entries:
        if isinstance(entry, str) and entry in texts:
            continue
        place = len(urls) + len(not_urls)
        if place == MAX_FILES:
            left_out += 1
            continue
        url = origins.file(entry) if isinstance(entry, str) else None
        if url is None:
            not_urls.append(place)
        else:
            urls[url] = None
            texts.add(str(entry))
    return FileList(tuple(urls), tuple(not_urls), left_out)


def _entries(value: object) -> tuple[list[object], int]:
    """The entries, out of lists within lists, and how many more there are than are looked at.

    A null or an empty text is no result.
    """
    entries: list[object] = []
    lists = [iter([value])]
    for _ in range(_MAX_ENTRIES):
        entry = next(lists[-1], _END)
        if isinstance(entry, list):
            lists.append(iter(entry))
        elif entry is _END:
            lists.pop()
            if not lists:
                break
        elif entry is not None and not (isinstance(entry, str) and not trimmed(entry)):
            entries.append(entry)
    return entries, sum(map(length_hint, lists))
