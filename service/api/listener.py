"""The listening server: uvicorn, with the deadlines and limits that it lacks, and a drain that open waits hear of.

uvicorn keeps half-sent headers open for ever and takes headers of any size (measured with httptools: 5 MB), and an open
stream holds its shutdown for the whole grace.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Mapping
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADERS_DEADLINE_S = 10.0  # from the first byte of a request, or from connecting, to the end of its headers
BODY_DEADLINE_S = 60.0  # from the end of the headers to the end of the body
MAX_HEADER_BYTES = 64 * 1024  # of one request, its target included
MAX_CONNECTIONS = 8_000
OTHER_DESCRIPTORS = 512  # kept for the store, providers and subscribers
KEEP_ALIVE_S = 30  # longer than most clients keep an idle connection, so that they close it and not we
WAITING = 4_096  # connections that the kernel keeps while nobody accepts, as during a restart; it may allow fewer
DRAIN_S = 20  # seconds for requests that are being answered
FIRST_REQUEST_STEPS = 50  # of 10 ms, for connections that were accepted just before the end
_ABORT: Final = (
    "remora.abort"  # an extension of ASGI: closing a connection without waiting for a client that takes nothing
)


class GuardedProtocol(HttpToolsProtocol):
    """One connection, which may neither dawdle nor flood before a request is whole."""

    _deadline: asyncio.TimerHandle | None = None
    _header_bytes = 0
    _in_headers = True
    _extensions: dict[str, Any]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio."""
        super().connection_made(transport)
        self._extensions = {_ABORT: transport.abort}
        if len(self.connections) > self.config.limit_concurrency:  # type: ignore[operator]  # it is always set here
            transport.abort()  # uvicorn would answer 503, and keep the descriptor until the caller lets go
            return
        self.access_log = False  # uvicorn's own: it prints whole paths, and with them callback tokens
        self._give(HEADERS_DEADLINE_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._relax()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        super().data_received(data)
        if self._in_headers:
            # Counted by the read and not by the header, which would cost every request more than its parsing: headers
            # that come whole within one read are bounded by the read (256 KiB).
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
                self.send_400_response("the headers are too large")

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_headers = True
        self._header_bytes = 0
        self._give(HEADERS_DEADLINE_S)
        super().on_message_begin()
        self.scope["extensions"] = self._extensions

    def on_headers_complete(self) -> None:
        """The body begins."""
        self._in_headers = False
        self._give(BODY_DEADLINE_S)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._relax()
        super().on_message_complete()

    def _give(self, seconds: float) -> None:
        self._relax()
        self._deadline = self.loop.call_later(seconds, self._too_late)

    def _relax(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


def abort_connection(scope: Mapping[str, Any]) -> None:
    """Cut the connection of a request at once, whatever it has not taken yet; nothing on a server that is not ours."""
    abort = (scope.get("extensions") or {}).get(_ABORT)
    if abort is not None:
        abort()


class Listener(uvicorn.Server):
    """Serves an application until a signal comes, or until it is told to stop."""

    def __init__(self, app: Any, host: str, port: int) -> None:
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            http=GuardedProtocol,
            interface="asgi3",
            ws="none",
            proxy_headers=False,  # nothing here depends on who a proxy says is calling
            lifespan="off",  # the composition root starts and drains; a lifespan would hide its errors
            access_log=False,
            log_config=None,
            server_header=False,
            limit_concurrency=_connections_allowed(),
            # Small: with no descriptor left asyncio complains once for every place in it.
            backlog=256,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=DRAIN_S,
        )
        super().__init__(config)
        self.max_connections: int = config.limit_concurrency or MAX_CONNECTIONS
        self.draining = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def bind(self) -> socket.socket:
        """Take the port now, so that a taken one is told before anything else starts.

        Raises:
            OSError: The address cannot be had.
        """
        family = socket.AF_INET6 if ":" in self.config.host else socket.AF_INET
        # The protocol is named, since asyncio sets TCP_NODELAY only where it is: without it answers wait 40 ms for Nagle.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((self.config.host, self.config.port))
        except BaseException:
            listening.close()
            raise
        listening.set_inheritable(False)
        return listening

    async def start_on(self, listening: socket.socket) -> None:
        """Accept connections on a bound socket, which stays open; returns once it does."""
        self._task = asyncio.create_task(self._serve([listening.dup()]), name="listener")
        while not self.started:
            if self._task.done():
                self._task.result()
                msg = "the server stopped before it started"
                raise RuntimeError(msg)
            await asyncio.sleep(0.005)
        listening.listen(WAITING)

    def end_connections(self) -> None:
        """From now on every answer ends its connection, so that none is idle when the server stops and all come back elsewhere."""
        if not self.started:
            return
        close = (b"connection", b"close")
        self.config.encoded_headers.append(close)  # uvicorn makes the default headers from these once a second
        self.server_state.default_headers = [*self.server_state.default_headers, close]

    def begin_drain(self) -> None:
        """Stop accepting; let what is being answered finish."""
        self.draining.set()
        self.should_exit = True

    def abort(self) -> int:
        """Cut off what is being answered; returns how many requests that were."""
        cut = len(self.server_state.tasks)
        for task in self.server_state.tasks:
            task.cancel()
        for connection in self.server_state.connections:
            connection.transport.abort()
        return cut

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn. Connections that were taken and have not asked yet get a moment to do so: they were never refused."""
        for server in self.servers:
            server.close()
        for _ in range(FIRST_REQUEST_STEPS):
            if all(connection.cycle for connection in self.server_state.connections):
                break
            await asyncio.sleep(0.01)
        await super().shutdown(sockets)

    async def stopped(self) -> None:
        """Wait until every connection is closed."""
        if self._task is not None:
            await self._task


def _connections_allowed() -> int:
    """As many as the descriptors of this process allow, after raising their limit as far as it goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + OTHER_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return (
        MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(16, min(MAX_CONNECTIONS, soft - OTHER_DESCRIPTORS))
    )
