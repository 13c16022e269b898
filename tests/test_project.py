"""The project's own promises: its layers, its tooling, its files."""

from __future__ import annotations

import socket

import pytest


def test_sockets_beyond_loopback_are_refused() -> None:
    """A test that would leave the machine fails instead, whichever client it uses."""
    with socket.socket() as sock, pytest.raises(RuntimeError, match=r"tests stay on 127\.0\.0\.1"):
        sock.connect(("192.0.2.1", 80))


def test_sockets_on_loopback_are_allowed() -> None:
    """Servers on 127.0.0.1 are what tests talk to."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert client.getpeername() == server.getsockname()
