"""Small pictures of the pictures that we kept, for the dashboard: made when they are first asked for, and kept beside them.

Decoding is the dangerous part of a picture: few formats, few pixels, one at a time, in a thread.
"""

from __future__ import annotations

import asyncio
import io
from typing import Final

from PIL import Image, ImageOps

from service.errors import FileMissing
from service.results.storage import Storage, thumb_key

TYPE: Final = "image/webp"
SIDE: Final = 320  # pixels, at most
MAX_FILE_BYTES: Final = 64 << 20  # of the picture that is decoded
MAX_PIXELS: Final = 40_000_000  # of it: 160 MB while it is decoded
MAX_THUMB_BYTES: Final = 1 << 20
_FORMATS: Final = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/webp": "WEBP",
    "image/gif": "GIF",
    "image/avif": "AVIF",
    "image/bmp": "BMP",
}
#: What Pillow raises for broken pictures, SyntaxError among it, and what it warns of where warnings are errors.
_BROKEN: Final = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    MemoryError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


class Thumbnails:
    """Makes small pictures; one for a process."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._turn = asyncio.Semaphore(1)

    async def of(self, key: str, content_type: str, size_bytes: int) -> bytes | None:
        """The small picture of a copy; None where there can be none.

        Raises:
            StorageUnavailable: The copy cannot be read now.
        """
        if content_type not in _FORMATS or size_bytes > MAX_FILE_BYTES:
            return None
        small = thumb_key(key)
        try:
            return await self._read(small, MAX_THUMB_BYTES)
        except FileMissing:
            pass
        async with self._turn:
            made = await asyncio.to_thread(_made, await self._read(key, size_bytes), _FORMATS[content_type])
        if made is not None:
            await self._storage.put(small, made, TYPE)
        return made

    async def _read(self, key: str, count: int) -> bytes:
        return b"".join([piece async for piece in await self._storage.read(key, 0, count)])


def _made(data: bytes, image_format: str) -> bytes | None:
    """Shrink it; a picture that cannot be decoded has none."""
    try:
        with Image.open(io.BytesIO(data), formats=(image_format,)) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                return None
            picture.draft("RGB", (SIDE, SIDE))
            small = ImageOps.exif_transpose(picture)
            small.thumbnail((SIDE, SIDE))
            out = io.BytesIO()
            small.convert("RGBA" if small.mode in {"RGBA", "LA", "P", "PA"} else "RGB").save(out, "WEBP", quality=80)
    except _BROKEN:
        return None
    return out.getvalue()
