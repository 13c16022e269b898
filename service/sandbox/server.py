"""The sandbox as a server inside the running loop.

Owns its options, the wiring of its parts, start and stop. It must not know who uses it: tests, `remora demo` and
`remora sandbox` all do.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from random import Random
from typing import Final

import uvicorn

from service.clock import Clock, SystemClock
from service.sandbox.app import App, Speaker
from service.sandbox.callbacks import Caller
from service.sandbox.control import Control
from service.sandbox.dialect import Dialect
from service.sandbox.dialects.apimodels import APIModels
from service.sandbox.dialects.apimodels_sync import APIModelsSync
from service.sandbox.dialects.sharkai import SharkAI
from service.sandbox.dialects.sharkapi import SharkAPI
from service.sandbox.dialects.sharkapi_v1 import SharkAPIv1
from service.sandbox.faults import Deck, Fault
from service.sandbox.files import Files
from service.sandbox.flow import Flow
from service.sandbox.http import CuttableProtocol
from service.sandbox.intake import Intake
from service.sandbox.record import Record, SeenRequest, SentCallback
from service.sandbox.tasks import Task, Tasks

_BACKLOG: Final = 2048  # connections
_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """How a sandbox behaves.

    Args:
        host: The address to listen on.
        port: The port of all cards but sharkai, which has the next one, because it shares a path with apimodels; 0 takes two
            free ones.
        speed: Documented durations are divided by it; 10 makes a task take 1-3 s.
        faults: What befalls every task, see `faults.parse_faults`.
        seed: Decides durations, ids and the dice of the faults.
    """

    host: str = "127.0.0.1"
    port: int = 0
    speed: float = 10.0
    faults: tuple[Fault, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class _Parts:
    """What has to be ended, in this order but the caller last."""

    caller: Caller
    flow: Flow
    servers: Sequence[_Server]
    running: Sequence[asyncio.Task[None]]


class SandboxServer:
    """The providers in a box.

    Args:
        options: How it behaves.
        clock: Whose time its tasks live in; None for the machine's.
    """

    def __init__(self, options: SandboxOptions, *, clock: Clock | None = None) -> None:
        if options.speed <= 0:
            raise ValueError(f"speed must be greater than 0, not {options.speed:g}")
        if not 0 <= options.port < 65535:
            raise ValueError(f"port must be from 0 to 65534, because the next one is taken too, not {options.port}")
        self._options = options
        self._clock = clock or SystemClock()
        self._record = Record()
        self._deck = Deck(options.faults, Random(options.seed))
        self._tasks = Tasks(self._clock, Random(options.seed + 1), options.speed, self._record)
        self._base_urls: dict[str, str] = {}
        self._parts: _Parts | None = None

    @property
    def base_url(self) -> str:
        """Where apimodels is, such as `http://127.0.0.1:12345`; empty until it is started."""
        return self._base_urls.get(APIModels.card, "")

    @property
    def base_urls(self) -> Mapping[str, str]:
        """Where each provider is, by the name of its card; empty until it is started."""
        return dict(self._base_urls)

    @property
    def requests(self) -> tuple[SeenRequest, ...]:
        """What came to the providers' paths, oldest first; without keys."""
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
        first, second = _listeners(self._options.host, self._options.port)
        caller = Caller(self._clock, self._options.speed, self._record)
        flow = Flow(self._clock, self._deck, self._tasks, caller, self._record)
        dialects = self._dialects(flow, _url(self._options.host, first), _url(self._options.host, second))
        servers = [
            (_Server(self._app(spoken)), listener) for spoken, listener in zip(dialects, (first, second), strict=True)
        ]
        running = [asyncio.create_task(server.serve(sockets=[listener])) for server, listener in servers]
        self._parts = _Parts(caller, flow, [server for server, _ in servers], running)
        for server, _ in servers:
            await server.ready.wait()

    def _dialects(self, flow: Flow, first: str, second: str) -> tuple[Sequence[Dialect], Sequence[Dialect]]:
        """Who speaks at which port."""
        here, there = Intake(flow, first), Intake(flow, second)
        at_first = (APIModels(here), APIModelsSync(here), SharkAPI(here), SharkAPIv1(here))
        at_second = (SharkAI(there, self._clock),)
        self._base_urls = {dialect.card: first for dialect in at_first} | {
            dialect.card: second for dialect in at_second
        }
        return at_first, at_second

    def _app(self, dialects: Sequence[Dialect]) -> App:
        control = Control(self._deck, self._tasks, self._record, self._base_urls)
        own = Speaker((*control.routes(), *Files(self._tasks, self._clock).routes()))
        spoken = [Speaker(dialect.routes(), dialect.card) for dialect in dialects]
        return App((*spoken, own), self._clock, self._record)

    async def stop(self) -> None:
        """Break off whatever is going on, as a provider does that goes down."""
        if self._parts is None:
            return
        parts, self._parts = self._parts, None
        parts.flow.close()
        self._record.notify()
        await self._tasks.close()
        for server in parts.servers:
            server.leave.set()
        await asyncio.gather(*parts.running)
        await parts.caller.close()


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
        """Signals belong to the program that runs the loop."""
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


def _listeners(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """Sockets at the port and at the next, or at two free ones."""
    first = _listen(host, port)
    try:
        return first, _listen(host, port + 1 if port else 0)
    except OSError:
        first.close()
        raise


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, so that asyncio sets TCP_NODELAY
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, error.strerror, f"{host} port {port}") from error
    listener.setblocking(False)
    return listener


def _url(host: str, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    host = _ANY.get(host, host)
    try:
        bracketed = isinstance(ip_address(host), IPv6Address)
    except ValueError:
        bracketed = False
    return f"http://[{host}]:{port}" if bracketed else f"http://{host}:{port}"
