"""Small pictures: of what can be decoded within bounds, and of nothing else."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from service.errors import FileMissing
from service.results.storage import LocalStorage, result_key
from service.results.thumbnails import Thumbnails
from tests.results.files import picture
from tests.results.test_sniff import png

KEY = result_key("job_0199a000-0000-7000-8000-0000000000ab", 0, 1, "png")


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    made = LocalStorage(tmp_path / "kept")
    made.prepare()
    return made


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "AVIF"])
async def test_every_kind_of_picture_is_shrunk(storage: LocalStorage, kind: str) -> None:
    """At most 320 pixels, in its own proportions, as WebP."""
    data = picture(kind, (1280, 640))
    await storage.put(KEY, data, "image/x")
    small = await Thumbnails(storage).of(KEY, f"image/{kind.lower()}", len(data))

    assert small is not None
    made = Image.open(io.BytesIO(small))
    assert (made.format, made.size) == ("WEBP", (320, 160))


@pytest.mark.parametrize(
    "data",
    [
        png(12_000, 12_000),  # 400 MB in memory, were it decoded
        png(64, 64),  # says more than it has
        picture("PNG", (900, 900))[:900],
        b"\x89PNG\r\n\x1a\n<html>",
        picture("JPEG"),  # not what it is called
    ],
)
async def test_bomb_and_broken_picture_have_none(storage: LocalStorage, data: bytes) -> None:
    """No small picture, no error, and no memory."""
    await storage.put(KEY, data, "image/png")

    assert await Thumbnails(storage).of(KEY, "image/png", len(data)) is None


async def test_video_and_missing_file_have_none(storage: LocalStorage) -> None:
    """Nothing is decoded that is no picture; a copy that is away is told as such."""
    assert await Thumbnails(storage).of(KEY, "video/mp4", 100) is None
    with pytest.raises(FileMissing):
        await Thumbnails(storage).of(KEY, "image/png", 100)
