"""What holds for every test: nothing leaves this machine."""

from __future__ import annotations

import sys
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import settings


class LeftTheMachineError(RuntimeError):
    """A test tried to reach beyond loopback; start a server on 127.0.0.1 instead."""


def _is_local(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _guard(event: str, args: tuple[object, ...]) -> None:
    if event not in {"socket.connect", "socket.sendto"}:
        return
    address = args[1]  # text or bytes for a Unix socket, else host and port first
    if isinstance(address, tuple) and not _is_local(str(address[0])):
        raise LeftTheMachineError(f"{event} to {address}: tests stay on 127.0.0.1")


# An audit hook cannot be taken off again and sees what asyncio and C extensions do through Python's sockets, so no
# fixture has to be asked for and no library can go around it by having kept a reference to the real function.
sys.addaudithook(_guard)

# On a busy machine a slow example is no fault of the code, and a run in the gate must not depend on luck.
settings.register_profile("remora", deadline=None, derandomize=True)
settings.load_profile("remora")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Names bytes by their argument: packed or signed ones hold the time, and every worker must collect the same ids."""
    return argname if isinstance(val, bytes | bytearray) else None


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store that is up to date, to be copied: making one takes a hundred times as long."""
    from service.db.migrate import upgrade  # noqa: PLC0415 - most tests need no store

    path = tmp_path_factory.mktemp("template") / "remora.db"
    upgrade(path)
    return path
