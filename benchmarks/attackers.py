"""Connections that do everything wrong, as a process of its own: half heads, half bodies, unread answers, drips, upgrades, pipelines.

Run by `benchmarks.edges`: `python -m benchmarks.attackers PORT COUNT KEY`; it goes on until it is killed. A connection that
is cut comes back. It must not know whether any of it succeeds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

LARGE: Final = 15_000_000  # bytes that a body claims to have
PART: Final = b" " * 300_000  # of it, that are sent
DRIP_S: Final = 0.5
BACK_S: Final = (1.0, 5.0)  # after which a connection comes, or comes back when it was cut
RECEIVE_BYTES: Final = 4096  # of the kernel's buffer, for those that do not read
_UPGRADE: Final = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"

_Attack = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def _post(path: str, key: str, *, more: bytes = b"", length: int = LARGE) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
    return head.encode() + more + b"Content-Length: %d\r\n\r\n" % length


def _get(path: str, key: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode()


def _once(data: bytes) -> _Attack:
    """Send something and wait for the end of the connection; what comes is read."""

    async def attack(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        while await reader.read(65_536):
            pass

    return attack


def _unread(data: bytes) -> _Attack:
    """Ask and never read."""

    async def attack(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport of a stream can
        writer.write(data)
        while True:  # what is not read is not seen to end, either: a write tells
            await asyncio.sleep(5)
            writer.write(b"\r\n")
            await writer.drain()

    return attack


def _drip(start: bytes, bits: bytes) -> _Attack:
    """Send a little at a time."""

    async def attack(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            await asyncio.sleep(DRIP_S)
            writer.write(bits)
            await writer.drain()

    return attack


def attacks(key: str) -> list[_Attack]:
    """One of each kind."""
    return [
        _once(b""),
        _once(b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nX-Half: "),
        _once(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 100),
        _once(_post("/v1/jobs", key) + PART),
        _once(_post("/v1/jobs", "rmk_nobody") + PART),
        _once(_post("/callbacks/nobody", "") + PART),
        _once(_post("/v1/jobs", key, more=_UPGRADE) + PART),
        _once(_post("/callbacks/nobody", "", more=_UPGRADE, length=100) + b"{}"),
        _unread(_get("/schema/static/swagger-ui-bundle.js", key) * 50),
        _unread(_get("/v1/jobs?limit=200", key) * 50),
        _unread(_get("/healthz", key) * 2000),
        _unread(_get("/schema/openapi.json", key) + _post("/v1/jobs", key) + PART),
        _drip(b"GET / HTTP/1.1\r\nHost: x\r\nX-Drip: ", b"x"),
        _drip(_post("/v1/jobs", key), b"x" * 100),
        _drip(b"POST /callbacks/nobody HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ]


async def _go_on(port: int, attack: _Attack, chance: random.Random) -> None:
    while True:
        await asyncio.sleep(chance.uniform(*BACK_S))
        with contextlib.suppress(OSError):
            peer = socket.socket()
            peer.setblocking(False)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
            await asyncio.get_running_loop().sock_connect(peer, ("127.0.0.1", port))
            reader, writer = await asyncio.open_connection(sock=peer)
            try:
                await attack(reader, writer)
            finally:
                writer.transport.abort()


def _kinds(count: int, key: str) -> Iterator[_Attack]:
    kinds = attacks(key)
    for number in range(count):
        yield kinds[number % len(kinds)]


async def _main(port: int, count: int, key: str) -> None:
    chance = random.Random(1)
    await asyncio.gather(*(_go_on(port, attack, chance) for attack in _kinds(count, key)))


if __name__ == "__main__":
    os.nice(10)  # attackers have a machine of their own: what they take of the processor here is not what is measured
    asyncio.run(_main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
