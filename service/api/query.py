"""Query strings and lists: what a caller may write behind the `?`, read strictly, and pages with opaque cursors.

Litestar's own parameters are not used: a huge integer there is a 500, and what is unknown or doubled passes silently.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

from litestar import Response
from litestar.types import Scope

from service.api.responses import json_answer
from service.clock import parse_iso
from service.errors import Malformed
from service.ids import Prefix, is_id

T = TypeVar("T")

LIMIT_DEFAULT: Final = 50  # entries of a page
LIMIT_MAX: Final = 200  # entries of a page
MAX_BYTES: Final = 8_192  # of a query string
MAX_PARAMETERS: Final = 50  # in a query
MAX_VALUE: Final = 1_024  # characters
PAGING: Final = frozenset({"limit", "cursor"})
_TIMES: Final = range(253_402_300_800_000)  # milliseconds from 1970 to the end of the year 9999


@dataclass(frozen=True, slots=True)
class Query:
    """The parameters of a request, each name known and its values not doubled unless it may be."""

    values: dict[str, list[str]]

    def one(self, name: str) -> str | None:
        """The value of a parameter; an empty one is a fault, since it would quietly find nothing."""
        found = self.values.get(name)
        if found is None:
            return None
        if not found[0]:
            raise wrong(name, "is empty; give a value or leave it out")
        return found[0]

    def many(self, name: str) -> tuple[str, ...]:
        """The values of a parameter that may be repeated or hold several, separated by commas."""
        return tuple(part for value in self.values.get(name, ()) for part in value.split(",") if part)

    def time(self, name: str) -> int | None:
        """A time in ms UTC."""
        text = self.one(name)
        if text is None:
            return None
        try:
            moment = parse_iso(text)
        except (ValueError, OverflowError) as error:
            blank = "; a + reads as a blank here: write it as %2B, or use Z" if " " in text else ""
            raise wrong(name, f"must be a time with a zone, such as 2026-11-21T10:00:00Z{blank}") from error
        if moment not in _TIMES:
            raise wrong(name, "must be a time from 1970 to 9999")
        return moment

    def limit(self) -> int:
        """How many entries a page has."""
        text = self.one("limit")
        if text is None:
            return LIMIT_DEFAULT
        if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= LIMIT_MAX:
            raise wrong("limit", f"must be a whole number from 1 to {LIMIT_MAX}")
        return int(text)

    def cursor_id(self, prefix: Prefix) -> str | None:
        """The id behind which the page begins."""
        position = self._cursor(prefix)
        if position is not None and not is_id(position, prefix):
            raise bad_cursor()
        return position

    def cursor_number(self, kind: str) -> int | None:
        """The number behind which the page begins."""
        position = self._cursor(kind)
        if position is not None and not re.fullmatch(r"[0-9]{1,15}", position):
            raise bad_cursor()
        return None if position is None else int(position)

    def _cursor(self, kind: str) -> str | None:
        text = self.one("cursor")
        if text is None:
            return None
        position = _decoded(text, kind)
        if position is None:
            raise bad_cursor()
        return position


def number_of(text: str, kind: str) -> int | None:
    """The number in a cursor that came some other way than in the query; None if it is none of that kind."""
    position = _decoded(text, kind)
    return int(position) if position is not None and re.fullmatch(r"[0-9]{1,15}", position) else None


def _decoded(text: str, kind: str) -> str | None:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    found, _, position = raw.partition(":")
    return position if found == kind else None


def cursor(kind: str, position: str | int) -> str:
    """An opaque cursor: a page of `kind` ended with this entry."""
    return base64.urlsafe_b64encode(f"{kind}:{position}".encode()).rstrip(b"=").decode()


def next_cursor(kind: str, position: str | int | None) -> str | None:
    """Where a list goes on; None where it has come to its end."""
    return None if position is None else cursor(kind, position)


def page(
    found: Sequence[T], limit: int, view: Callable[[T], Any], kind: str, position: Callable[[T], str | int]
) -> Response[bytes]:
    """The answer with one page of a list.

    Args:
        found: One entry more than the page has, if there are more.
        limit: How many entries the page has.
        view: An entry as it is shown.
        kind: What the cursor is for.
        position: What the cursor says of the last entry.
    """
    shown = found[:limit]
    more = len(found) > limit
    return json_answer(
        {"data": [view(each) for each in shown], "next_cursor": cursor(kind, position(shown[-1])) if more else None}
    )


def query_of(
    scope: Scope, known: frozenset[str], *, repeatable: frozenset[str] = frozenset(), prefix: str | None = None
) -> Query:
    """The query string, checked.

    Args:
        scope: Of the request.
        known: The names that the route knows.
        repeatable: Those of them that may come more than once.
        prefix: Names that begin so are known too, such as `metadata.`.

    Raises:
        Malformed: Not readable, or with a name that is unknown or doubled.
    """
    values: dict[str, list[str]] = {}
    for name, value in _pairs(scope["query_string"]):
        if name not in known and not (prefix and name.startswith(prefix) and len(name) > len(prefix)):
            names = sorted(known) + ([f"{prefix}<key>"] if prefix else [])
            raise wrong(name, f"is unknown here; known: {', '.join(names) or 'none'}")
        if "\x00" in value or "\x00" in name:
            raise wrong(name, "holds the character NUL")
        if len(value) > MAX_VALUE:
            raise wrong(name, f"must have at most {MAX_VALUE} characters")
        if name in values and name not in repeatable:
            raise wrong(name, "occurs twice; give it once")
        values.setdefault(name, []).append(value)
    return Query(values)


def _pairs(raw: bytes) -> list[tuple[str, str]]:
    if not raw:
        return []
    if len(raw) > MAX_BYTES:
        raise Malformed(f"the query string has more than {MAX_BYTES} bytes", code="query_invalid")
    try:
        return parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except UnicodeDecodeError as error:
        raise Malformed("the query string is not UTF-8, percent-encoded", code="query_invalid") from error
    except ValueError as error:
        raise Malformed(f"the query string has more than {MAX_PARAMETERS} parameters", code="query_invalid") from error


def wrong(name: str, reason: str) -> Malformed:
    """A parameter at fault."""
    shown = name[:64].encode("ascii", "backslashreplace").decode().replace("\x00", "?")
    return Malformed(f"the query parameter {shown!r} {reason}", code="query_invalid")


def bad_cursor() -> Malformed:
    """A cursor that the list did not give."""
    return wrong("cursor", "is not one that this list gave; leave it out to begin at the start")
