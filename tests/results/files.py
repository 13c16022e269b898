"""A file server on 127.0.0.1 that lies in every way a test asks for, and sound files of every kind."""

from __future__ import annotations

import asyncio
import io
import struct
import zlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Self

from PIL import Image

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]


def picture(kind: str = "PNG", size: tuple[int, int] = (64, 48)) -> bytes:
    """A small picture of any of Pillow's formats."""
    out = io.BytesIO()
    Image.new("RGB", size, (10, 120, 200)).save(out, kind)
    return out.getvalue()


def padded(size: tuple[int, int], count: int) -> bytes:
    """A sound PNG with so many bytes more in it."""
    sound = picture("PNG", size)
    content = b"raNd" + bytes(count)
    return sound[:-12] + struct.pack(">I", count) + content + struct.pack(">I", zlib.crc32(content)) + sound[-12:]


def box(name: bytes, *parts: bytes) -> bytes:
    """An ISO box."""
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), name) + content


def mp4(brand: bytes = b"isom", size: tuple[int, int] = (320, 240)) -> bytes:
    """A video without frames: what a header says."""
    header = bytes(76) + struct.pack(">II", size[0] << 16, size[1] << 16)
    return (
        box(b"ftyp", brand, bytes(4), b"mp42") + box(b"moov", box(b"trak", box(b"tkhd", header))) + box(b"mdat", b"..")
    )


def webm(doctype: bytes = b"webm", size: tuple[int, int] = (320, 240)) -> bytes:
    """A video without frames."""

    def element(number: bytes, content: bytes) -> bytes:
        return number + bytes([0x80 | len(content)]) + content

    video = element(b"\xb0", struct.pack(">H", size[0])) + element(b"\xba", struct.pack(">H", size[1]))
    tracks = element(b"\x16\x54\xae\x6b", element(b"\xae", element(b"\xe0", video)))
    return element(b"\x1a\x45\xdf\xa3", element(b"\x42\x82", doctype)) + element(b"\x18\x53\x80\x67", tracks)


def scans(count: int, side: int = 6_300) -> bytes:
    """A progressive JPEG of a few bytes for each scan, and each scan a walk over all pixels."""

    def segment(marker: int, content: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content

    blocks = ((side + 7) // 8) ** 2
    runs, single = divmod(blocks, 32_767)
    bits = "0" + "1" * 14  # a run of 32767 blocks without anything
    filled = (bits * runs + "10" * single).ljust((len(bits) * runs + 2 * single + 7) // 8 * 8, "1")
    walk = int(filled, 2).to_bytes(len(filled) // 8, "big").replace(b"\xff", b"\xff\0")
    tables = segment(0xC4, b"\0" + bytes([1] + [0] * 15) + b"\0")
    tables += segment(0xC4, b"\x10" + bytes([1, 1] + [0] * 14) + b"\xe0\x00")
    head = b"\xff\xd8" + segment(0xDB, b"\0" + b"\1" * 64)
    head += segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0") + tables
    first = segment(0xDA, b"\1\1\0\0\0\0") + bytes((blocks + 7) // 8)
    return head + first + (segment(0xDA, b"\1\1\0\1\x3f\0") + walk) * (count - 1) + b"\xff\xd9"


def answer(body: bytes, *headers: str, status: str = "200 OK", length: int | None = -1) -> Talk:
    """A plain answer; `length` None: none is told, and the connection's end is the file's."""
    told = [] if length is None else [f"Content-Length: {len(body) if length == -1 else length}"]
    head = "\r\n".join([f"HTTP/1.1 {status}", *told, *headers, "Connection: close", "", ""]).encode()

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head + body)
        await writer.drain()

    return talk


@dataclass(slots=True)
class FileServer:
    """Answers what `paths` say, in turn where there are several; anything else is 404."""

    paths: dict[str, list[Talk]] = field(default_factory=dict)
    requests: list[bytes] = field(default_factory=list)  # whole heads
    url: str = ""
    _server: asyncio.Server | None = None
    _talks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            for talk in self._talks:
                talk.cancel()
            await self._server.wait_closed()

    def put(self, path: str, *talks: Talk) -> str:
        """Say what a path answers, the last of them for ever; returns its URL."""
        self.paths[path] = list(talks)
        return self.url + path

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(head)
            talks = self.paths.get(head.split(b" ")[1].decode(), [answer(b"", status="404 Not Found")])
            talk = talks.pop(0) if len(talks) > 1 else talks[0]
            task = asyncio.create_task(talk(reader, writer))
            self._talks.add(task)
            await asyncio.gather(task, return_exceptions=True)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
