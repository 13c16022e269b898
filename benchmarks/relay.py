"""The bare relay, the yardstick of the path benchmark: what comes in goes on to the subscriber, and nothing is stored.

The service's server (uvicorn with httptools and uvloop, a raw ASGI application) and its client library (an aiohttp
session). It answers 200 after the subscriber took the message: without a store that is the only honest 200.
Run by `benchmarks.path`: `python -m benchmarks.relay --core N --subscriber URL`; prints its address.
"""

from __future__ import annotations

from typing import Any

import aiohttp
import uvicorn
import uvloop

from benchmarks.subject import arguments, listening_socket

_START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}
_BODY = {"type": "http.response.body", "body": b""}
_HEADERS = {"content-type": "application/json"}


class Relay:
    """An ASGI application that passes every body on."""

    def __init__(self, session: aiohttp.ClientSession, subscriber: str) -> None:
        self._session = session
        self._subscriber = subscriber

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        status = await self._pass_on(body)
        await send(_START if status < 300 else {**_START, "status": 502})
        await send(_BODY)

    async def _pass_on(self, body: bytes) -> int:
        """The subscriber's answer; 502 where there is none."""
        try:
            async with self._session.post(
                self._subscriber, data=body, headers=_HEADERS, allow_redirects=False
            ) as answered:
                await answered.read()
                return answered.status
        except aiohttp.ClientError:
            return 502


async def _main(subscriber: str) -> None:
    listening = listening_socket()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        config = uvicorn.Config(
            Relay(session, subscriber),
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_keep_alive=30,
        )
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        await uvicorn.Server(config).serve([listening])


if __name__ == "__main__":
    given = arguments(__doc__)
    uvloop.run(_main(given.subscriber))
