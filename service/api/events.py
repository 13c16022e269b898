"""The account's events as a feed to be paged through, and the same live as Server-Sent Events.

Both read one log in one order. A cursor names a position in it and can be used again for as long as what lies behind it is
kept; after that 410 tells the oldest one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from litestar import Request, Response, get
from litestar.types import ASGIApp

from service.accounts.keys import Scope
from service.api.auth import authenticated, needs
from service.api.body import header
from service.api.context import Context, context_of, principal_of
from service.api.query import Query, bad_cursor, number_of, query_of, wrong
from service.api.responses import raw_answer
from service.api.sealed_cursor import FEED, looks_sealed
from service.api.stream import WRITE_S, EventStream, entry_json, expired
from service.errors import Unauthenticated
from service.events.feed_queries import FeedFilter, position_of, read_edges, read_page
from service.ids import is_id
from service.states import EVENT_TYPES

PAGE_BYTES: Final = 2 * 1024 * 1024  # of one answer: a page of large events has fewer of them
_FILTERS: Final = frozenset({"type", "provider", "operation", "tag", "job"})
_START: Final = frozenset({"cursor", "from"})
_OLDEST, _NOW = "oldest", "now"


@get("/v1/events", opt=needs(Scope.JOBS_READ))
async def list_events(request: Request[Any, Any, Any]) -> Response[bytes]:
    """A page of the account's events, oldest first; its `next_cursor` is never null."""
    context, account_id = context_of(request), principal_of(request).account_id
    query = query_of(request.scope, _FILTERS | _START | {"limit"}, repeatable=_FILTERS)
    limit, wanted, after = query.limit(), _wanted(query), await _start(context, account_id, query)
    if after is None and query.one("from") == _NOW:
        edges = await read_edges(context.reader, account_id)
        return _page([], _cursors(context, account_id)(edges.newest))
    page = await read_page(context.reader, account_id, after or 0, wanted, limit=limit, max_bytes=PAGE_BYTES)
    if after is not None and page.is_lost:
        raise expired(page.edges, _cursors(context, account_id))
    return _page([entry_json(each) for each in page.entries], _cursors(context, account_id)(page.position))


@get("/v1/events/stream", opt=needs(Scope.JOBS_READ))
async def stream_events(request: Request[Any, Any, Any]) -> ASGIApp:
    """The same live: what lies behind `Last-Event-ID` or `cursor`, or else what comes from now on."""
    context, account_id = context_of(request), principal_of(request).account_id
    query = query_of(request.scope, _FILTERS | _START | {"lastEventId"}, repeatable=_FILTERS)
    wanted, after = _wanted(query), await _start(context, account_id, query)
    last_id = header(request.scope, b"last-event-id") or query.one("lastEventId")
    if last_id:
        after = await _position(context, account_id, last_id)
    told = after
    if after is None:
        edges = await read_edges(context.reader, account_id)
        after = edges.floor if query.one("from") == _OLDEST else edges.newest
    return EventStream(
        hub=context.hub,
        reader=context.reader,
        clock=context.clock,
        account_id=account_id,
        wanted=wanted,
        after=after,
        told=told,
        cursor=_cursors(context, account_id),
        allowed=lambda: _allowed(request),
        write_s=WRITE_S,
    )


def _cursors(context: Context, account_id: str) -> Callable[[int], str]:
    return partial(context.cursors.text, FEED, account_id)


def _page(entries: list[bytes], next_cursor: str) -> Response[bytes]:
    end = b'],"next_cursor":"%s"}' % next_cursor.encode()
    return raw_answer(b'{"data":[' + b",".join(entries) + end, headers={"Cache-Control": "no-store"})


async def _start(context: Context, account_id: str, query: Query) -> int | None:
    """The position behind which to begin, if one is given."""
    given = query.one("from")
    if given not in {None, _OLDEST, _NOW}:
        raise wrong("from", f"must be {_OLDEST} or {_NOW}")
    after, given_cursor = None, query.one("cursor")
    if given_cursor is not None and (after := context.cursors.place(FEED, account_id, given_cursor)) is None:
        if not looks_sealed(given_cursor) and number_of(given_cursor, FEED) is None:
            raise bad_cursor()
        raise expired(await read_edges(context.reader, account_id), _cursors(context, account_id))
    if given is not None and after is not None:
        raise wrong("from", "makes no sense beside cursor; leave one of them out")
    return after


async def _position(context: Context, account_id: str, last_id: str) -> int:
    """Where the client stopped: the id of an event, or the position that a stream told."""
    if is_id(last_id, "evt"):
        found = await position_of(context.reader, account_id, last_id)
    else:
        found = context.cursors.place(FEED, account_id, last_id)
    if found is None:
        raise expired(await read_edges(context.reader, account_id), _cursors(context, account_id))
    return found


async def _allowed(request: Request[Any, Any, Any]) -> bool:
    """Whether the key that opened the stream still may."""
    try:
        return (await authenticated(request)).may(Scope.JOBS_READ)
    except Unauthenticated:
        return False


def _wanted(query: Query) -> FeedFilter:
    given = {name: tuple(dict.fromkeys(query.many(name))) for name in _FILTERS}
    for name, values in given.items():
        if name in query.values and not values:
            raise wrong(name, "is empty; give a value or leave it out")
    if any(each not in EVENT_TYPES for each in given["type"]):
        raise wrong("type", f"must be one or some of {', '.join(EVENT_TYPES)}")
    if not all(is_id(each, "job") for each in given["job"]):
        raise wrong("job", "must be an id that begins with job_")
    return FeedFilter(given["type"], given["provider"], given["operation"], given["tag"], given["job"])


ROUTES = (list_events, stream_events)
