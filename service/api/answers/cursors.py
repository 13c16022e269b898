"""Pages of lists, and their opaque cursors: a cursor says where its page ended, and is of that kind of list only."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from litestar import Response

from service.api.answers.responses import json_answer
from service.errors import Malformed
from service.ids import Prefix, is_id
from service.schemas.query_model import wrong

T = TypeVar("T")


def cursor_id(text: str | None, prefix: Prefix) -> str | None:
    """The id behind which a page begins.

    Raises:
        Malformed: The cursor is none of that list.
    """
    position = None if text is None else _read(text, prefix)
    if position is not None and not is_id(position, prefix):
        raise bad_cursor()
    return position


def cursor_number(text: str | None, kind: str) -> int | None:
    """The number behind which a page begins.

    Raises:
        Malformed: The cursor is none of that list.
    """
    position = None if text is None else _read(text, kind)
    if position is not None and not re.fullmatch(r"[0-9]{1,15}", position):
        raise bad_cursor()
    return None if position is None else int(position)


def _read(text: str, kind: str) -> str:
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


def bad_cursor() -> Malformed:
    """A cursor that the list did not give."""
    return wrong("cursor", "is not one that this list gave; leave it out to begin at the start")
