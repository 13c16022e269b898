"""A wire between a process and PostgreSQL that is cut at a moment of one's choice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal
from urllib.parse import parse_qs, urlsplit

Cut = Literal["before", "after"]


class Wire:
    """Passes bytes on, until a COMMIT comes that is to be cut: before the server has it, or before its answer is passed back."""

    def __init__(self, socket: str) -> None:
        self.cut: Cut | None = None  # the next COMMIT
        self.cuts = 0
        self._socket = socket

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        from_server, to_server = await asyncio.open_unix_connection(self._socket)
        mute = asyncio.Event()  # the server's answers are not passed back any more

        async def back() -> None:
            while data := await from_server.read(65_536):
                if mute.is_set():
                    return
                writer.write(data)
                await writer.drain()
            writer.close()  # as the server did

        answers = asyncio.create_task(back())
        try:
            while data := await reader.read(65_536):
                if self.cut is not None and b"COMMIT\0" in data:
                    cut, self.cut = self.cut, None
                    self.cuts += 1
                    if cut == "before":
                        return
                    mute.set()
                    to_server.write(data)
                    await answers  # the server has answered
                    return
                to_server.write(data)
                await to_server.drain()
        except ConnectionError:
            return
        finally:
            answers.cancel()
            await asyncio.gather(answers, return_exceptions=True)
            for each in (to_server, writer):
                each.close()


@asynccontextmanager
async def wired(url: str) -> AsyncIterator[tuple[Wire, str]]:
    """A wire, and the URL that leads over it."""
    parts = urlsplit(url)
    [directory] = parse_qs(parts.query)["host"]
    wire = Wire(f"{directory}/.s.PGSQL.5432")
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield wire, f"postgresql://postgres@{host}:{port}{parts.path}"
    finally:
        server.close()
