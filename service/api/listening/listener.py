"""The listening server: uvicorn, with connections that are looked after, and a drain that open waits hear of.

An open stream would hold uvicorn's shutdown for the whole grace.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from dataclasses import replace
from typing import Any

import structlog
import uvicorn

from service.api.listening.admission import Admission, ConnectionLimits
from service.api.listening.bounded_reads import BoundedReads
from service.api.listening.connection import GuardedProtocol

OTHER_DESCRIPTORS = 512  # kept for the store, providers and subscribers
WAITING = 4_096  # connections that the kernel keeps while nobody accepts, as during a restart; it may allow fewer
NOTSENT_BYTES = 16 * 1024  # of an answer in the kernel, not on its way yet
DRAIN_S = 20  # seconds for requests that are being answered
CUT_S = 1  # of them, at the end, for those whose connection is cut
FIRST_REQUEST_STEPS = 50  # of 10 ms, for connections that were accepted just before the end
CHECKED = 32  # connections that are looked after at once: a tenth of a millisecond, more where some are refused
NOTED_EVERY_S = 60.0  # a line in the log about connections that were refused

_log = structlog.get_logger(__name__)


class Listener(uvicorn.Server):
    """Serves an application until a signal comes, or until it is told to stop."""

    def __init__(self, app: Any, host: str, port: int, limits: ConnectionLimits = ConnectionLimits()) -> None:  # noqa: B008 - frozen
        self._limits = replace(limits, connections=_connections_allowed(limits.connections))
        self._admission = Admission(self._limits)
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            http=self._connection,  # type: ignore[arg-type]  # makes one
            interface="asgi3",
            ws="none",
            proxy_headers=False,  # nothing here depends on who a proxy says is calling
            lifespan="off",  # the composition root starts and drains; a lifespan would hide its errors
            access_log=False,
            log_config=None,
            server_header=False,
            # Small: with no descriptor left asyncio complains once for every place in it.
            backlog=256,
            timeout_graceful_shutdown=DRAIN_S,
        )
        super().__init__(config)
        self.max_connections: int = self._limits.connections
        self.draining = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._checks: asyncio.TimerHandle | None = None
        self._noted_at = 0.0

    def _connection(self, **uvicorns: Any) -> BoundedReads:
        return BoundedReads(GuardedProtocol(self._limits, self._admission, **uvicorns))

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
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # Connections inherit it. Without it the kernel takes megabytes for a client that reads slowly, and we could not
            # see that it reads at all.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_BYTES)
        self._task = asyncio.create_task(self._serve([listening.dup()]), name="listener")
        self._check()
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
        """Stop accepting, at once; let what is being answered finish."""
        self.draining.set()
        self.should_exit = True
        for server in getattr(self, "servers", ()):  # there are some once it has started
            server.close()

    def abort(self) -> int:
        """Cut off what is being answered; returns how many requests that were."""
        cut = len(self.server_state.tasks)
        for task in self.server_state.tasks:
            task.cancel()
        self._cut()
        return cut

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn. Connections that were taken and have not asked yet get a moment to do so: they were never refused."""
        for server in self.servers:
            server.close()
        for _ in range(FIRST_REQUEST_STEPS):
            if all(getattr(connection, "cycle", True) for connection in self.server_state.connections):
                break
            await asyncio.sleep(0.01)
        # uvicorn would cancel what is left, each with a trace in the log; who is cut off ends by himself.
        cut = self._loop.call_later(DRAIN_S - CUT_S, self._cut)
        await super().shutdown(sockets)
        cut.cancel()

    async def stopped(self) -> None:
        """Wait until every connection is closed; what the drain left over is cut."""
        if self._task is not None:
            await asyncio.shield(self._task)  # who gives up waiting leaves it to end
        if self._checks is not None:
            self._checks.cancel()
        self._cut()

    def _cut(self) -> None:
        for each in list(self.server_state.connections):
            each.transport.abort()

    def _check(self) -> None:
        """Look after all connections: one timer for all of them, since several for each request cost more."""
        now = self._loop.time()
        self._check_some(now, list(self.server_state.connections))
        self._note(now)
        self._checks = self._loop.call_later(self._limits.every_s, self._check)

    def _check_some(self, now: float, connections: list[Any]) -> None:
        for each in connections[:CHECKED]:
            each.check(now)
        if len(connections) > CHECKED:
            self._loop.call_soon(self._check_some, now, connections[CHECKED:])

    def _note(self, now: float) -> None:
        refused, evicted = self._admission.refused, self._admission.evicted
        if (refused or evicted) and (not self._noted_at or now - self._noted_at >= NOTED_EVERY_S):
            _log.warning("connections_full", refused=refused, evicted=evicted, open=len(self.server_state.connections))
            self._admission.refused = self._admission.evicted = 0
            self._noted_at = now


def _connections_allowed(wanted: int) -> int:
    """As many as the descriptors of this process allow, after raising their limit as far as it goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = wanted + OTHER_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < files:
        soft = files if hard == resource.RLIM_INFINITY else min(files, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else max(16, min(wanted, soft - OTHER_DESCRIPTORS))
