"""Small pictures of the pictures that we kept, for the dashboard: made when they are first asked for, and kept beside them.

Decoding is the dangerous part of a picture: few formats, few pixels, one at a time, in a process that can be killed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from typing import Final

import structlog

from service.errors import FileMissing, StorageUnavailable
from service.results import shrink
from service.results.storage import Storage, thumb_key

TYPE: Final = "image/webp"
MAX_FILE_BYTES: Final = 64 << 20  # of the picture that is decoded
MAX_THUMB_BYTES: Final = 1 << 20  # of a small picture
LONGEST_S: Final = 10.0  # for one picture; its share of the processor is bounded more tightly, by `shrink.CPU_S`
REMEMBERED: Final = 4_096  # pictures that nothing can be made of
_FORMATS: Final = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/webp": "WEBP",
    "image/gif": "GIF",
    "image/avif": "AVIF",
    "image/bmp": "BMP",
}
#: All that the other process is told of our surroundings, which hold keys.
_SURROUNDINGS: Final = frozenset({"PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH"})

_log = structlog.get_logger(__name__)


class Thumbnails:
    """Makes small pictures; one for a process."""

    def __init__(self, storage: Storage, cpu_s: int = shrink.CPU_S) -> None:
        self._storage = storage
        self._cpu_s = cpu_s  # for one picture
        self._turn = asyncio.Semaphore(1)
        self._hopeless: dict[str, None] = {}  # keys, the oldest first

    async def of(self, key: str, content_type: str, size_bytes: int) -> bytes | None:
        """The small picture of a copy; None where there can be none.

        Raises:
            StorageUnavailable: The copy cannot be read now, or this machine has no time for it.
        """
        if content_type not in _FORMATS or size_bytes > MAX_FILE_BYTES or key in self._hopeless:
            return None
        small = thumb_key(key)
        try:
            return await self._read(small, MAX_THUMB_BYTES)
        except FileMissing:
            pass
        async with self._turn:
            if key in self._hopeless:  # somebody waited for the same
                return None
            made = await _made(await self._read(key, size_bytes), _FORMATS[content_type], self._cpu_s)
        if made is None:
            self._give_up(key)
            return None
        try:
            await self._storage.put(small, made, TYPE)
        except StorageUnavailable as error:  # it is made again when it is asked for again
            _log.warning("thumbnail_not_kept", error=str(error))
        return made

    def _give_up(self, key: str) -> None:
        self._hopeless[key] = None
        if len(self._hopeless) > REMEMBERED:
            del self._hopeless[next(iter(self._hopeless))]

    async def _read(self, key: str, count: int) -> bytes:
        return b"".join([piece async for piece in await self._storage.read(key, 0, count)])


async def _made(data: bytes, image_format: str, cpu_s: int) -> bytes | None:
    """Shrink it in a process of its own, which never outlives this call."""
    surroundings = {name: value for name, value in os.environ.items() if name in _SURROUNDINGS}
    command = (sys.executable, "-P", "-s", shrink.__file__, image_format, str(cpu_s))
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=surroundings
        )
    except OSError as error:
        raise StorageUnavailable(f"no process can be started for a small picture: {error.strerror}") from error
    try:
        async with asyncio.timeout(LONGEST_S):
            out, _ = await process.communicate(data)
    except TimeoutError as error:
        raise StorageUnavailable("this machine is too busy for a small picture") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return out if process.returncode == 0 and len(out) <= MAX_THUMB_BYTES else None
