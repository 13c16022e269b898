"""The demo's world: service, provider and subscriber, started on loopback and taken down in order.

Owns the settings of the demo and the order of start and end. It must not know which jobs are sent.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

from service.app import Service
from service.cli.api_client import ServiceClient
from service.cli.demo.subscriber import Subscriber
from service.cli.outcome import Refused
from service.clock import Clock
from service.egress.door import Door
from service.environment import load
from service.sandbox.server import SandboxOptions, SandboxServer
from service.settings import provider_variable
from service.signing import decode_secret

USUAL_PORT: Final = 8080
SPEED: Final = 10.0  # the sandbox's tasks take 1 to 3 s
LONGEST_S: Final = 3.0
#: Later than any callback that comes, so that only the lost one is found by polling.
FALLBACK_AFTER: Final = "4s"
LOOPBACK: Final = "127.0.0.0/8"

#: The built-in cards whose dialect the sandbox speaks.
IN_THE_SANDBOX: Final = ("apimodels", "sharkai", "sharkapi", "sharkapi-v1")


@dataclass(frozen=True, slots=True)
class World:
    """Everything that is running."""

    service: Service
    sandbox: SandboxServer
    subscriber: Subscriber
    client: ServiceClient
    key: str

    def finished_ms(self, task_id: str) -> int | None:
        """When the provider was finished with a task."""
        return next((task.finished_ms for task in self.sandbox.tasks if task.id == task_id), None)


@contextlib.asynccontextmanager
async def open_world(directory: Path, clock: Clock) -> AsyncIterator[World]:
    """Start everything; take it down at the end, the service first, which then finishes what it is doing."""
    async with contextlib.AsyncExitStack() as stack:
        sandbox = SandboxServer(SandboxOptions(speed=SPEED))
        await sandbox.start()
        stack.push_async_callback(sandbox.stop)
        subscriber = Subscriber(clock)
        await subscriber.start()
        stack.push_async_callback(subscriber.stop)
        door = Door(allow=(IPv4Network(LOOPBACK),), clock=clock)
        await door.start()
        stack.push_async_callback(door.close)

        service = await _service(directory, sandbox.base_urls)
        stack.push_async_callback(service.close)
        await service.listen()
        if service.admin_key is None:
            raise Refused("the service made no key although its database is new")
        client = ServiceClient(door, service.url, service.admin_key)
        answer = await client.post("/v1/account/rotate-secret")
        subscriber.trust(decode_secret(answer["secret"]))
        yield World(service, sandbox, subscriber, client, service.admin_key)


async def _service(directory: Path, providers: Mapping[str, str]) -> Service:
    """A service on the usual port, else on a free one."""
    port = USUAL_PORT if _is_free(USUAL_PORT) else _free_port()
    environ = demo_environment(directory, port, providers)
    try:
        return await Service.open(load(environ, directory))
    except OSError as error:
        raise Refused(f"cannot listen on 127.0.0.1 port {port}: {error.strerror}; try again") from error


def demo_environment(directory: Path, port: int, providers: Mapping[str, str]) -> dict[str, str]:
    """The settings of the demo: what an operator would set, and nothing that only a demo could."""
    environ = {
        "REMORA_DATABASE_URL": f"sqlite:///{directory / 'remora.db'}",
        "REMORA_PORT": str(port),
        "REMORA_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "REMORA_EGRESS_ALLOW": LOOPBACK,
    }
    for card in IN_THE_SANDBOX:
        environ |= {
            provider_variable(card, "BASE_URL"): providers[card],
            provider_variable(card, "API_KEY"): "sandbox",
        }
    environ[provider_variable("apimodels", "FALLBACK_AFTER")] = FALLBACK_AFTER
    return environ


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
