"""The sandbox as a server inside the running loop.

Owns its options, the wiring of its parts, start and stop. It must not know who uses it: tests, `remora demo` and
`remora sandbox` all do.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from random import Random
from typing import Final

import uvicorn

from service.clock import Clock, SystemClock
from service.sandbox.apimodels import APIModels
from service.sandbox.app import App
from service.sandbox.callbacks import Caller
from service.sandbox.control import Control
from service.sandbox.faults import Deck, Fault
from service.sandbox.flow import Flow
from service.sandbox.http import CuttableProtocol
from service.sandbox.record import Record, SeenRequest, SentCallback
from service.sandbox.tasks import Task, Tasks

_BACKLOG: Final = 2048  # connections
_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """How a sandbox behaves.

    Args:
        host: The address to listen on.
        port: 0 takes a free one.
        speed: Documented durations are divided by it; 10 makes a task take 1-3 s.
        faults: What befalls every task, see `faults.parse_faults`.
        seed: Decides durations, ids and the dice of the faults.
    """

    host: str = "127.0.0.1"
    port: int = 0
    speed: float = 10.0
    faults: tuple[Fault, ...] = ()
    seed: int = 0


class SandboxServer:
    """A provider in a box.

    Args:
        options: How it behaves.
        clock: Whose time its tasks live in; None for the machine's.
    """

    def __init__(self, options: SandboxOptions, *, clock: Clock | None = None) -> None:
        if options.speed <= 0:
            raise ValueError(f"speed must be greater than 0, not {options.speed:g}")
        self._options = options
        self._clock = clock or SystemClock()
        self._record = Record()
        self._deck = Deck(options.faults, Random(options.seed))
        self._tasks = Tasks(self._clock, Random(options.seed + 1), options.speed, self._record)
        self._base_url = ""
        self._parts: tuple[Caller, Flow, _Server, asyncio.Task[None]] | None = None

    @property
    def base_url(self) -> str:
        """Where it listens, such as `http://127.0.0.1:12345`, known once it is started."""
        return self._base_url

    @property
    def requests(self) -> tuple[SeenRequest, ...]:
        """What came to the provider's paths, oldest first; without keys."""
        return tuple(self._record.requests)

    @property
    def callbacks(self) -> tuple[SentCallback, ...]:
        """Every try to send a callback, oldest first."""
        return tuple(self._record.callbacks)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All tasks as they stand, oldest first."""
        return self._tasks.all()

    def set_faults(self, faults: tuple[Fault, ...]) -> None:
        """What befalls every further task."""
        self._deck.replace(faults)

    async def until(self, holds: Callable[[], bool], timeout_s: float = 10.0) -> None:
        """Wait for a request, a task's step or a callback after which `holds` is true.

        Raises:
            TimeoutError: It did not come true in that time.
        """
        await self._record.until(holds, timeout_s)

    async def start(self) -> None:
        """Listen, and answer from then on.

        Raises:
            OSError: The address is taken or not ours.
        """
        listener = _listen(self._options.host, self._options.port)
        self._base_url = _url(self._options.host, listener.getsockname()[1])
        caller = Caller(self._clock, self._options.speed, self._record)
        flow = Flow(self._clock, self._deck, self._tasks, caller, self._record)
        routes = (*APIModels(flow, self._base_url).routes(), *Control(self._deck, self._tasks, self._record).routes())
        server = _Server(App(routes, self._clock, self._record))
        running = asyncio.create_task(server.serve(sockets=[listener]))
        self._parts = caller, flow, server, running
        await server.ready.wait()

    async def stop(self) -> None:
        """Break off whatever is going on, as a provider does that goes down."""
        if self._parts is None:
            return
        caller, flow, server, running = self._parts
        self._parts = None
        flow.close()
        self._record.notify()
        await self._tasks.close()
        server.leave.set()
        await running
        await caller.close()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers and without its ten ticks a second."""

    def __init__(self, app: App) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=CuttableProtocol,
                ws="none",
                lifespan="off",
                interface="asgi3",
                loop="none",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                date_header=False,
                server_header=False,
                timeout_graceful_shutdown=5,
            )
        )
        self.ready = asyncio.Event()
        self.leave = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to whoever runs the loop."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets=sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        """Wait to be told, then break the connections off."""
        await self.on_tick(0)
        await self.leave.wait()
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, so that asyncio sets TCP_NODELAY
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _url(host: str, port: int) -> str:
    host = _ANY.get(host, host)
    try:
        bracketed = isinstance(ip_address(host), IPv6Address)
    except ValueError:
        bracketed = False
    return f"http://[{host}]:{port}" if bracketed else f"http://{host}:{port}"
