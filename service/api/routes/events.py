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

from service.api.answers.cursors import bad_cursor, number_of
from service.api.answers.responses import PROBLEM, raw_answer
from service.api.answers.sealed_cursor import FEED, looks_sealed
from service.api.answers.stream import WRITE_S, EventStream, entry_json, expired
from service.api.auth import authenticated
from service.api.context import Context, context_of, principal_of
from service.api.requests.body import header
from service.api.requests.route import Header, RouteAnswer, query_of, takes
from service.errors import Unauthenticated
from service.events.feed_queries import FeedFilter, position_of, read_edges, read_page
from service.ids import is_id
from service.schemas.event_schemas import EventListQuery, EventPage, EventStreamQuery
from service.schemas.query_model import wrong
from service.schemas.service_schemas import ProblemView
from service.schemas.words import Scope

PAGE_BYTES: Final = 2 * 1024 * 1024  # of one answer: a page of large events has fewer of them
_EXPIRED: Final = RouteAnswer(
    410,
    "What lies behind this position is not kept any more; go on from `oldest_cursor`",
    ProblemView,
    media_type=PROBLEM,
)


@get(
    "/v1/events",
    opt=takes(Scope.JOBS_READ, RouteAnswer(200, "A page of events", EventPage), _EXPIRED, query=EventListQuery),
)
async def list_events(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The account's events, oldest first.

    Gapless and in one order. `next_cursor` is never null, and each one can be used again later: with the last one a page
    has what happened since. A page may have fewer entries than `limit`, or none, although more follow (large events;
    filters that rarely match: a page looks at 10,000 events); what follows is read when `data` is empty and
    `next_cursor` is the cursor that was sent. Filters that are repeated or hold several values mean any of them; those on
    jobs leave out events that are about none. A place has one cursor, which says nothing of it to anybody.
    """
    context, account_id = context_of(request), principal_of(request).account_id
    query = query_of(request, EventListQuery)
    wanted, after = _wanted(query), await _start(context, account_id, query)
    if after is None and query.begin == "now":
        edges = await read_edges(context.reader, account_id)
        return _page([], _cursors(context, account_id)(edges.newest))
    page = await read_page(context.reader, account_id, after or 0, wanted, limit=query.limit, max_bytes=PAGE_BYTES)
    if after is not None and page.is_lost:
        raise expired(page.edges, _cursors(context, account_id))
    return _page([entry_json(each) for each in page.entries], _cursors(context, account_id)(page.position))


@get(
    "/v1/events/stream",
    opt=takes(
        Scope.JOBS_READ,
        RouteAnswer(200, "Events, until one side ends the stream", media={"text/event-stream": {"type": "string"}}),
        _EXPIRED,
        query=EventStreamQuery,
        headers=(Header("Last-Event-ID", "The last `id` of an earlier stream."),),
    ),
)
async def stream_events(request: Request[Any, Any, Any]) -> ASGIApp:
    """The same live, as Server-Sent Events.

    Each event has its own id as `id`, its type as `event`, and as `data`, on one line, what `GET /v1/events` shows. A stream
    begins behind `Last-Event-ID`, `lastEventId` or `cursor`, whichever of them comes first here and is given, else with what
    comes from now on. A block without `data` only tells a position to come back with (EventSource does that by itself).
    A comment comes every 15 s. A client that takes nothing for 30 s is cut; come back with the last id, and nothing is lost
    or doubled. An account may have 100 streams.
    """
    context, account_id = context_of(request), principal_of(request).account_id
    query = query_of(request, EventStreamQuery)
    wanted, after = _wanted(query), await _start(context, account_id, query)
    last_id = header(request.scope, b"last-event-id") or query.last_event_id
    if last_id:
        after = await _position(context, account_id, last_id)
    told = after
    if after is None:
        edges = await read_edges(context.reader, account_id)
        after = edges.floor if query.begin == "oldest" else edges.newest
    return EventStream(
        hub=context.events.hub,
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
    return partial(context.events.cursors.text, FEED, account_id)


def _page(entries: list[bytes], next_cursor: str) -> Response[bytes]:
    end = b'],"next_cursor":"%s"}' % next_cursor.encode()
    return raw_answer(b'{"data":[' + b",".join(entries) + end, headers={"Cache-Control": "no-store"})


async def _start(context: Context, account_id: str, query: EventListQuery | EventStreamQuery) -> int | None:
    """The position behind which to begin, if one is given."""
    if query.cursor is None:
        return None
    after = context.events.cursors.place(FEED, account_id, query.cursor)
    if after is None:
        if not looks_sealed(query.cursor) and number_of(query.cursor, FEED) is None:
            raise bad_cursor()
        raise expired(await read_edges(context.reader, account_id), _cursors(context, account_id))
    if query.begin is not None:
        raise wrong("from", "makes no sense beside cursor; leave one of them out")
    return after


async def _position(context: Context, account_id: str, last_id: str) -> int:
    """Where the client stopped: the id of an event, or the position that a stream told."""
    if is_id(last_id, "evt"):
        found = await position_of(context.reader, account_id, last_id)
    else:
        found = context.events.cursors.place(FEED, account_id, last_id)
    if found is None:
        raise expired(await read_edges(context.reader, account_id), _cursors(context, account_id))
    return found


async def _allowed(request: Request[Any, Any, Any]) -> bool:
    """Whether the key that opened the stream still may."""
    try:
        return (await authenticated(request)).may(Scope.JOBS_READ)
    except Unauthenticated:
        return False


def _wanted(query: EventListQuery | EventStreamQuery) -> FeedFilter:
    given = (query.type, query.provider, query.operation, query.tag, query.job)
    return FeedFilter(*(each or () for each in given))


ROUTES = (list_events, stream_events)
