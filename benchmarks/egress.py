"""What the door costs over bare aiohttp: POSTs per second to a server in another process, taken in turns.

Run: python benchmarks/egress.py [seconds of each round]
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Network
from typing import cast

import aiohttp
import uvloop

from service.clock import SystemClock
from service.egress import Call
from service.egress.door import Door

IN_FLIGHT = 32
ROUNDS = 5
BODY = b'{"type":"job.completed","data":{"seq":4,"job":{"id":"job_0199"}}}' * 12
HEADERS = {
    "content-type": "application/json",
    "webhook-id": "evt_01890a5d-ac96-774b-bcce-b302099a8057",
    "webhook-timestamp": "1795000000",
    "webhook-signature": "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
}
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"

Post = Callable[[], Awaitable[int]]


class Sink(asyncio.Protocol):
    """Answers whole requests, knowing how long ours are by their body."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self.held = b""

    def data_received(self, data: bytes) -> None:
        self.held += data
        while (end := self.held.find(b"\r\n\r\n")) >= 0 and len(self.held) >= end + 4 + len(BODY):
            self.held = self.held[end + 4 + len(BODY) :]
            self.transport.write(ANSWER)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def rate(post: Post, seconds: float) -> float:
    count = 0
    until = time.perf_counter() + seconds

    async def lane() -> None:
        nonlocal count
        while time.perf_counter() < until:
            assert await post() == 200
            count += 1

    gc.collect()
    began = time.perf_counter()
    await asyncio.gather(*(lane() for _ in range(IN_FLIGHT)))
    return count / (time.perf_counter() - began)


async def measure(url: str, seconds: float) -> None:
    door = Door(allow=(IPv4Network("127.0.0.0/8"),), clock=SystemClock())
    await door.start()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:

        async def bare() -> int:
            async with session.post(url, data=BODY, headers=HEADERS) as response:
                await response.read()
                return response.status

        async def deliver() -> int:
            return (await door.deliver(url, BODY, HEADERS, timeout_s=15, read_bytes=2048)).status

        async def call() -> int:
            return (await door.call(Call("POST", url, HEADERS, BODY), timeout_s=15, read_bytes=2048)).status

        ways: dict[str, Post] = {"bare aiohttp": bare, "Door.deliver": deliver, "Door.call": call}
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, post in ways.items():
                rates[name].append(await rate(post, seconds))
    await door.close()
    bare_rate = statistics.median(rates["bare aiohttp"])
    for name, found in rates.items():
        median = statistics.median(found)
        print(f"{name:14} {median:8,.0f}/s  {1e6 / median:6.1f} µs  {median / bare_rate:5.0%} of bare aiohttp")


def main() -> None:
    if sys.argv[1:] == ["serve"]:
        uvloop.run(serve())
        return
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    with subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        uvloop.run(measure(f"http://127.0.0.1:{server.stdout.readline().strip()}/hook", seconds))
        server.terminate()


if __name__ == "__main__":
    main()
