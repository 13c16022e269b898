"""How connections are made: only to addresses that the gate has judged, with a note of how far a request came, and when.

Two hooks of aiohttp hold the gate, because neither sees everything: the resolver is not asked for URLs that name an
address, and the socket factory sees one address where the whole name has to be judged.
"""

from __future__ import annotations

import asyncio
import socket
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from ssl import SSLContext

from aiohttp import ClientRequest, ClientTimeout, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import AddrInfoType, Connection
from aiohttp.tracing import Trace

from service.clock import Clock
from service.egress.gate import Gate
from service.egress.http_answers import AnswerHandler
from service.egress.names import Names
from service.errors import EgressCut, Timing

#: How long an idle connection is kept. Servers commonly close theirs after 5 s (uvicorn, Node.js): going first spares
#: us requests that meet a closing one.
IDLE_S = 4.0


@dataclass(slots=True)
class Progress:
    """How far one request came, filled in by the connector."""

    once: bool = False  # it may be sent a single time
    dialled: bool = False  # the connection is new
    left: bool = False  # there was a connection: the request may have left
    began_s: float = 0.0  # monotonic, as are the next ones
    dialled_s: float = 0.0
    resolved_s: float | None = None  # the name was looked up; None for an address
    reached_s: float | None = None  # the server took the connection
    secured_s: float | None = None  # the TLS handshake was over
    answered_s: float | None = None  # the answer's head was there
    answer: AnswerHandler | None = None  # what reads the answer

    @property
    def head(self) -> bytes:
        """The beginning of the answer's head, as it came."""
        return b"" if self.answer is None else self.answer.head

    def timing(self) -> Timing:
        """What the notes say of the parts of the request."""
        first_byte_ms = _ms(self.began_s, self.answered_s)
        if not self.dialled:
            return Timing(first_byte_ms=first_byte_ms)
        return Timing(
            dns_ms=_ms(self.dialled_s, self.resolved_s),
            connect_ms=_ms(self.dialled_s if self.resolved_s is None else self.resolved_s, self.reached_s),
            tls_ms=_ms(self.reached_s, self.secured_s),
            first_byte_ms=first_byte_ms,
        )


def _ms(since_s: float | None, until_s: float | None) -> int | None:
    return None if since_s is None or until_s is None else round((until_s - since_s) * 1000)


#: The request that the running task is making. Each one sets its own before it asks for a connection, so that nothing
#: has to be put back, and a trace of aiohttp's, which costs more on every request, is not needed.
PROGRESS: ContextVar[Progress] = ContextVar("egress_progress")


def _reached(loop: asyncio.AbstractEventLoop, clock: Clock) -> ResponseHandler:
    PROGRESS.get().reached_s = clock.monotonic()
    return AnswerHandler(loop)


class GatedResolver(AbstractResolver):
    """Names to judged addresses: one forbidden address refuses the whole name."""

    def __init__(self, gate: Gate, names: Names, clock: Clock) -> None:
        self._gate = gate
        self._names = names
        self._clock = clock

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """See `AbstractResolver`."""
        addresses = await self._names.addresses(host)
        PROGRESS.get().resolved_s = self._clock.monotonic()
        self._gate.admit(host, addresses)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """The names belong to somebody else."""


class GatedConnector(TCPConnector):
    """aiohttp's connector behind the gate, without its own limits and caches.

    Args:
        reuse: Keep connections for the next request; else each request has its own.
    """

    def __init__(self, gate: Gate, names: Names, tls: SSLContext, clock: Clock, *, reuse: bool) -> None:
        def judged_socket(info: AddrInfoType) -> socket.socket:
            family, kind, proto, _, address = info
            gate.admit(str(address[0]), [str(address[0])])
            return socket.socket(family, kind, proto)

        super().__init__(
            resolver=GatedResolver(gate, names, clock),
            socket_factory=judged_socket,
            use_dns_cache=False,  # the names have their own, which knows what was judged
            limit=0,  # the lanes limit, and one slow destination must not hold up another
            ssl=tls,
            **({"keepalive_timeout": IDLE_S} if reuse else {"force_close": True}),
        )
        self._clock = clock
        # The event loop asks for a connection's handler between the TCP connection and the TLS handshake.
        self._factory = partial(_reached, self._loop, clock)

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout) -> Connection:
        """See `BaseConnector`: a connection from the pool, or a new one."""
        progress = PROGRESS.get()
        if progress.once and progress.left:
            # aiohttp sends what it takes for idempotent a second time by itself when the first was cut.
            raise EgressCut("connection_cut", "the connection was cut before an answer came")
        connection = await super().connect(req, traces, timeout)
        progress.left = True
        if isinstance(connection.protocol, AnswerHandler):
            progress.answer = connection.protocol
        return connection

    async def _create_connection(
        self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout
    ) -> ResponseHandler:
        progress = PROGRESS.get()
        progress.dialled = True
        progress.dialled_s = self._clock.monotonic()
        handler = await super()._create_connection(req, traces, timeout)
        if req.is_ssl():
            progress.secured_s = self._clock.monotonic()
        return handler
