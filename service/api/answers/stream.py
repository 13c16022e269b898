"""One stream of Server-Sent Events: an answer that goes on until its client goes, stops reading, or loses its key.

It holds a position and no more: it reads what lies behind it, waits until the client has taken that, and only then reads on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog
from litestar.enums import ScopeType
from litestar.types import Receive, Scope, Send

from service.api.listening.connection import abort_connection
from service.clock import Clock
from service.db.reader import Reader
from service.errors import Gone, Unavailable
from service.events.feed import Follower, Hub
from service.events.feed_queries import Edges, Entry, FeedFilter

HEARTBEAT_S: Final = 15.0  # the key is looked at as often
WRITE_S: Final = 30.0  # for a client to take what was written; then it is cut, and may come back
END_S: Final = 1.0  # for it to take the end
RETRY_MS: Final = 1_000  # after which a client comes back
_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would otherwise collect what should leave at once
)
# Single lines with no blank one behind them: some clients take that for an event without data.
_HELLO: Final = b": events follow as they happen\nretry: %d\n" % RETRY_MS
_HEARTBEAT: Final = b": still here\n"

_log = structlog.get_logger(__name__)


def entry_json(entry: Entry) -> bytes:
    """The stored body with the event's id put in front; nothing is decoded."""
    return b'{"id":"%s",%s' % (entry.id.encode(), entry.body[1:])


def expired(edges: Edges, cursor: Callable[[int], str]) -> Gone:
    """What lies behind a position is not kept any more, or the position is none of this log."""
    return Gone(
        "events behind this position are not kept any more, or it is not one of this log; begin again at oldest_cursor, "
        "and look with GET /v1/jobs for what you may have missed",
        code="cursor_expired",
        more={"oldest_cursor": cursor(edges.floor)},
    )


def _block(entry: Entry) -> bytes:
    """The event as a stream has it. JSON from our own encoder has no line breaks."""
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (entry.id.encode(), entry.type.encode(), entry_json(entry))


@dataclass(slots=True)
class EventStream:
    """The answer, as an ASGI application for one exchange.

    Args:
        after: The position behind which the stream begins.
        told: The position that the client would come back with now; None if it has none.
        cursor: The cursor of a position.
        allowed: Whether the key is still good.
        write_s: How long a client may take for what was written.
    """

    hub: Hub
    reader: Reader
    clock: Clock
    account_id: str
    wanted: FeedFilter
    after: int
    told: int | None
    cursor: Callable[[int], str]
    allowed: Callable[[], Awaitable[bool]]
    write_s: float

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == ScopeType.HTTP and scope["method"] == "HEAD":
            await self._write(send, None)
            await _end(scope, send)
            return
        with self.hub.follow(self.account_id) as follower:
            await self._check_start(follower)
            # The service waits for its connections, and a client may never take what is on its way to it.
            loop = asyncio.get_running_loop()
            follower.on_close = lambda: loop.call_later(END_S, abort_connection, scope)
            gone = asyncio.create_task(_until_gone(receive), name="stream-reader")
            try:
                await self._write(send, None)
                await self._follow(follower, send, gone)
            except (TimeoutError, Unavailable):  # the store was not read in time
                abort_connection(scope)  # closing would wait for a client that takes nothing
            except Exception:  # the head is out, so that no problem can be told; the client comes back by itself
                _log.exception("stream_broke")
            finally:
                gone.cancel()
                await asyncio.gather(gone, return_exceptions=True)
            await _end(scope, send)

    async def _check_start(self, follower: Follower) -> None:
        page = await follower.page(self.reader, self.after, self.wanted)
        if page.is_lost:
            raise expired(page.edges, self.cursor)

    async def _follow(self, follower: Follower, send: Send, gone: asyncio.Task[None]) -> None:
        await self._write(send, _HELLO + (b"" if self.told is not None else self._mark(self.after)))
        self.told = self.after
        beat = self._beat()
        try:
            while True:
                changed = follower.changed  # before reading: what is committed while we read must wake us
                page = await follower.page(self.reader, self.after, self.wanted)
                if page.is_lost:  # retention overtook the client; it hears so when it comes back
                    return
                if page.entries:
                    await self._write(send, b"".join(map(_block, page.entries)))
                    self.told = page.entries[-1].pos
                self.after = page.position
                if page.is_last:
                    await asyncio.wait({changed, beat, gone}, return_when=asyncio.FIRST_COMPLETED)
                if gone.done() or follower.must_go:
                    return
                if beat.done():
                    if not await self.allowed():
                        return
                    await self._write(send, self._still_here())
                    beat = self._beat()
        finally:
            beat.cancel()
            await asyncio.gather(beat, return_exceptions=True)

    def _beat(self) -> asyncio.Task[None]:
        return asyncio.create_task(self.clock.sleep(HEARTBEAT_S), name="stream-heartbeat")

    def _still_here(self) -> bytes:
        """With the position, where filters let nothing pass since: else a client would come back from far behind."""
        if self.told == self.after:
            return _HEARTBEAT
        self.told = self.after
        return _HEARTBEAT + self._mark(self.after)

    def _mark(self, position: int) -> bytes:
        """Tells a position without an event: a client that comes back with it misses nothing."""
        return b"id: %s\n\n" % self.cursor(position).encode()

    async def _write(self, send: Send, text: bytes | None) -> None:
        async with asyncio.timeout(self.write_s):
            if text is None:
                await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
            else:
                await send({"type": "http.response.body", "body": text, "more_body": True})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass  # a body that comes with a GET


async def _end(scope: Scope, send: Send) -> None:
    try:
        async with asyncio.timeout(END_S):
            await send({"type": "http.response.body", "body": b"", "more_body": False})
    except TimeoutError:
        abort_connection(scope)
