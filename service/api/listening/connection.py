"""One connection: uvicorn's HTTP protocol with the deadlines, the bounds and the refusals that it lacks.

uvicorn keeps half-sent headers and unread answers for ever, takes headers of any size (measured with httptools: 5 MB), drops
the body behind an `Upgrade`, queues any number of requests, and has one answer for all that is not HTTP. This file must not
know what is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.api.listening import refusals
from service.api.listening.admission import Admission, ConnectionLimits, peer_of
from service.api.listening.bounded_reads import READ_BYTES
from service.api.listening.refusals import Refusal, RequestRefused
from service.clock import SystemClock
from service.telemetry import SparingLog

UNSENT_BYTES: Final = 16 * 1024  # of an answer, held for a client that takes nothing, before the application waits
_ABORT: Final = "remora.abort"  # an extension of ASGI: see `abort_connection`

_lines = SparingLog(__name__, SystemClock())  # of all connections: anybody can open some thousands


class _Stage(Enum):
    """Where the request that is being read has come to."""

    NOTHING = auto()  # of the next request
    HEAD = auto()
    BODY = auto()
    OVER = auto()  # nothing more is read; the caller may read the last answer


class _Outlet:
    """What an exchange has of its connection's transport."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


class GuardedProtocol(HttpToolsProtocol):
    """One connection, which may neither dawdle nor flood, in either direction.

    `check` is called every second. So no request pays for timers; a deadline counts from the first check that sees it begin.
    """

    def __init__(self, limits: ConnectionLimits, admission: Admission, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self.access_log = False  # uvicorn's own: it prints whole paths, and with them callback tokens
        self._limits = limits
        self._admission = admission
        self._peer: str | None = None  # None: it was not let in
        self._stage = _Stage.NOTHING
        self._since = 0.0  # when it was first seen in its stage; 0: not yet
        self._idle_s = limits.head_s  # how long it may send nothing
        self._head_bytes = 0
        self._window_bytes = 0  # of the body, in this window
        self._windows = 0
        self._read_bytes = 0  # of this read
        self._body_bytes = 0
        self._wire_bytes = 0  # of the body with its chunks and trailers, without the first read
        self._unsent = 0  # bytes, when it was last looked at
        self._taken_at = 0.0  # when the client last took some
        self._running: RequestResponseCycle | None = None  # what is being answered
        self._upgrading = False  # the parser ends behind this head
        self._replaying = False  # a head that was read before
        self._last_words: Refusal | None = None  # for a later request, said when the earlier ones are answered
        self._stopping = False
        self._ended = False  # nothing is written any more
        self._extensions: dict[str, Any]
        self._outlet: Any

    # -- asyncio's side ------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio."""
        super().connection_made(transport)
        self._extensions = {_ABORT: transport.abort}
        self._outlet = _Outlet(transport, self._end)
        peer = peer_of(self.client[0]) if self.client else ""
        if not self._admission.enter(self, peer):
            transport.abort()  # an answer would keep the descriptor until the caller lets go
            return
        self._peer = peer
        transport.set_write_buffer_limits(high=UNSENT_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio. uvicorn tells only the newest of several requests, and the others would never end."""
        if self._peer is not None:
            self._admission.leave(self, self._peer)
        for cycle in (self._running, *(queued for queued, _ in self.pipeline)):
            if cycle is not None:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)
        # These refer back to this connection, and would keep what it holds until the collector comes by.
        self._running = self.cycle = self._outlet = None  # type: ignore[assignment]  # nothing is read any more

    def data_received(self, data: bytes | memoryview) -> None:
        """See asyncio, and `BoundedReads`."""
        if self._stage is _Stage.OVER:
            return
        in_body = self._stage is _Stage.BODY
        self._read_bytes = len(data)
        try:
            while data:
                try:
                    self.parser.feed_data(data)
                    break
                except httptools.HttpParserUpgrade as pause:
                    data = data[pause.args[0] :]
                    self._ignore_upgrade()
        except httptools.HttpParserError as error:
            self._refuse(self._reason(error, data))
            return
        if in_body and self._stage is _Stage.BODY:
            self._wire_bytes += self._read_bytes
            if self._wire_bytes > 2 * self._body_bytes + refusals.MAX_FRAMING_BYTES:
                self._refuse(refusals.FRAMING_TOO_LARGE)
        if self._stage is _Stage.HEAD:
            # By the read and not by the header, which would cost every request more than its parsing.
            self._head_bytes += len(data)
            if self._head_bytes > refusals.MAX_HEADER_BYTES:
                self._refuse(refusals.HEADERS_TOO_LARGE if self.headers else refusals.TARGET_TOO_LONG)

    def shutdown(self) -> None:
        """The service stops: what was asked is answered, the rest ends."""
        self._stopping = True
        self._since = 0.0
        if self._running is None:
            self.transport.close()
        else:
            self.cycle.keep_alive = False

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn's says nothing, which closes the connection
        """See asyncio: a caller that has asked may close its side, and read on."""
        running = self._running
        if self._stage is not _Stage.NOTHING or running is None or running.response_started:
            return False  # a request that is cut off; or the reader of a stream has gone
        self.cycle.keep_alive = False
        return True

    def resume_writing(self) -> None:
        """See asyncio: the client took some of its answer."""
        self._unsent = 0
        super().resume_writing()

    # -- the parser's side ---------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._replaying:
            return
        self._stage = _Stage.HEAD
        self._since = 0.0
        self._head_bytes = 0
        super().on_message_begin()
        self.scope["extensions"] = self._extensions

    def on_headers_complete(self) -> None:
        """The body begins, and with it the answer; or the request waits for those before it."""
        if self._replaying:
            return
        parser, scope = self.parser, self.scope
        version = parser.get_http_version()
        if version != "1.1":
            if version != "1.0":
                raise RequestRefused(refusals.VERSION)
            scope["http_version"] = version
        method = parser.get_method()
        self._upgrading = parser.should_upgrade()
        if method == b"CONNECT":
            raise RequestRefused(refusals.CONNECT)
        scope["method"] = method.decode("ascii")
        path, raw_path, scope["query_string"] = refusals.read_target(self.url)
        scope["path"] = self.root_path + path
        scope["raw_path"] = self.root_path.encode("ascii") + raw_path
        if (
            self._read_bytes > refusals.MAX_HEADER_BYTES
        ):  # else it cannot be too large: a head that comes in parts is counted
            refusals.check_size(self.url, self.headers)
        if len(self.pipeline) >= refusals.MAX_AHEAD:
            raise RequestRefused(refusals.AHEAD)
        self._stage = _Stage.BODY
        self._since = 0.0
        self._window_bytes = self._windows = self._body_bytes = self._wire_bytes = 0
        self.cycle = RequestResponseCycle(
            scope=scope,
            transport=self._outlet,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            # A client that waits for a 100 may never send the body, and it could not be told from the next request.
            keep_alive=parser.should_keep_alive()
            and not (self._stopping or self.expect_100_continue or version == "1.0"),
            on_response=self.on_response_complete,
        )
        if self._running is None:
            self._admission.work(self)
            self._running = self.cycle
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; those behind the body are dropped, since nobody has asked for any (RFC 9110, 6.5.1)."""
        if self._stage is not _Stage.BODY or self._replaying:
            super().on_header(name, value)

    def on_chunk_header(self) -> None:
        """A chunk begins. The parser takes whatever codings stand before `chunked`, and nobody here would undo them."""
        if any(name == b"transfer-encoding" and value.lower() != b"chunked" for name, value in self.headers):
            raise RequestRefused(refusals.TRANSFER_CODING)

    def on_body(self, body: bytes) -> None:
        """A part of the body came."""
        cycle = self.cycle
        self._window_bytes += len(body)
        self._body_bytes += len(body)
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) >= READ_BYTES:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """The request is whole; where it asks for an upgrade, its body is still to come (see `_ignore_upgrade`)."""
        if self._upgrading:
            return
        self._stage = _Stage.NOTHING
        self._since = 0.0
        if self._running is None:  # answered before its body was there
            self._admission.rest(self)
        else:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    def on_response_complete(self) -> None:
        """An answer was written; the next request's turn."""
        self.server_state.total_requests += 1
        self._running = None
        if self._ended or self.transport.is_closing():
            return
        self._idle_s = self._limits.keep_alive_s
        if self.pipeline:
            self._running, app = self.pipeline.pop()
            self._start_asgi_task(self._running, app)
            return
        self.flow.resume_reading()
        if self._last_words is not None:
            self._say(self._last_words)
        elif self._stage is not _Stage.BODY:
            self._since = 0.0
            self._admission.rest(self)

    def _ignore_upgrade(self) -> None:
        """Go on behind the head of a request that asks for another protocol, as RFC 9110 (7.8) has it for who speaks none.

        The parser gives up there, and takes the body for that protocol (llhttp, HPE_PAUSED_UPGRADE; httptools 0.9 cannot
        be told otherwise). So a new parser gets the same head without the `Upgrade`, and reads on.
        """
        method, version, url, headers = self.scope["method"], self.scope["http_version"], self.url, self.headers
        lines = [b"%b: %b\r\n" % each for each in headers if each[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._upgrading, self._replaying = False, True
        self.headers = []
        try:
            self.parser.feed_data(b"%b / HTTP/%b\r\n%b\r\n" % (method.encode(), version.encode(), b"".join(lines)))
        finally:
            self.headers, self.url = headers, url
            self._replaying = False

    # -- deadlines and refusals ----------------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Cut it or refuse it if it took too long, in either direction; called every second.

        Args:
            now: By the loop's clock, seconds.
        """
        limits = self._limits
        unsent = self.transport.get_write_buffer_size()
        if not unsent or not self._unsent or unsent < self._unsent:
            self._taken_at = now
        elif now - self._taken_at >= (limits.stop_s if self._stopping else limits.write_s):
            self.cut()
            return
        self._unsent = unsent
        if self.transport.is_closing():
            return
        if self.flow.read_paused or not self._since:
            self._since = now  # while it is us who do not read, nobody is late
            return
        waited = now - self._since
        if self._stage is _Stage.OVER:
            if waited >= limits.linger_s and self._ended and not unsent:
                self.cut()
        elif self._stage is _Stage.NOTHING:
            if waited >= self._idle_s and self._running is None:
                self.transport.close()
        elif self._stopping and waited >= limits.stop_s:
            self._refuse(refusals.STOPPING)
        elif self._stage is _Stage.HEAD:
            if waited >= limits.head_s:
                self._refuse(refusals.HEAD_TOO_SLOW)
        elif waited >= limits.body_window_s:
            self._end_window(now)

    def _end_window(self, now: float) -> None:
        limits = self._limits
        self._windows += 1
        if self._window_bytes < limits.body_window_bytes or self._windows * limits.body_window_s >= limits.body_s:
            self._refuse(refusals.BODY_TOO_SLOW)
        self._since = now
        self._window_bytes = 0

    def cut(self) -> None:
        """End it at once."""
        self.transport.abort()

    def _reason(self, error: httptools.HttpParserError, data: bytes | memoryview) -> Refusal:
        cause = error.__context__
        if isinstance(cause, RequestRefused):
            return cause.refusal
        return refusals.of_parser(
            str(error),
            bytes(data) if self._running is None else b"",  # else it does not begin with what is wrong
            in_target=isinstance(error, httptools.HttpParserInvalidURLError),
            is_method=isinstance(error, httptools.HttpParserInvalidMethodError),
        )

    def _refuse(self, refusal: Refusal) -> None:
        """Read nothing more, and say why, behind the answers to earlier requests and never within one."""
        if self.transport.is_closing():
            return
        _lines.say("info", "request_refused", status=refusal.status, code=refusal.code, peer=self._peer)
        in_body, self._stage = self._stage is _Stage.BODY, _Stage.OVER
        self._since = 0.0
        running = self._running
        if running is None:
            self._say(refusal)
        elif in_body and running is self.cycle and running.response_started:
            running.keep_alive = False  # the answer that is being written is the answer
        elif in_body and running is self.cycle:
            running.disconnected = True  # its application hears that the caller is gone …
            running.waiting_for_100_continue = False  # … and asks for nothing more
            running.message_event.set()
            self._running = None
            self._say(refusal)
        else:
            if in_body:  # it waits for its turn, which does not come any more
                self.pipeline.popleft()
            self._last_words = refusal

    def _say(self, refusal: Refusal) -> None:
        self._stage = _Stage.OVER
        self.transport.write(refusal.answer())
        self._end()

    def _end(self) -> None:
        """Close, now that the last answer is written.

        Where the caller is still sending, closing at once would make the kernel drop what it has not read of it.
        """
        if self._ended or self.transport.is_closing():
            return
        if self._stage is _Stage.NOTHING and not self.flow.read_paused:
            self.transport.close()
            return
        self._ended = True
        self._stage = _Stage.OVER
        self._since = 0.0
        self.transport.write_eof()
        self.flow.resume_reading()
        self._admission.rest(self)


def abort_connection(scope: Mapping[str, Any]) -> None:
    """Cut the connection of a request at once, whatever it has not taken yet; nothing on a server that is not ours."""
    abort = (scope.get("extensions") or {}).get(_ABORT)
    if abort is not None:
        abort()
