"""Small pictures: of what can be decoded within bounds, and of nothing else."""

from __future__ import annotations

import asyncio
import io
import time
from pathlib import Path

import pytest
from PIL import Image

from service.errors import FileMissing, StorageUnavailable
from service.results.storage import LocalStorage, result_key
from service.results.thumbnails import Thumbnails
from tests.results.files import picture, scans
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


async def test_picture_that_takes_minutes_is_given_up(storage: LocalStorage) -> None:
    """The process that decodes it is killed, others' turn comes, and it is not tried a second time."""
    other = KEY.replace("-0-1.", "-1-1.")
    bomb, sound = scans(1_500), picture("PNG")
    await storage.put(KEY, bomb, "image/jpeg")
    await storage.put(other, sound, "image/png")
    made = Thumbnails(storage, cpu_s=1)
    began = time.monotonic()
    first, second = await asyncio.gather(made.of(KEY, "image/jpeg", len(bomb)), made.of(other, "image/png", len(sound)))
    took_s = time.monotonic() - began
    await storage.delete([KEY])

    assert (first, second is None) == (None, False)
    assert took_s < 10
    assert await made.of(KEY, "image/jpeg", len(bomb)) is None


async def test_caller_who_leaves_ends_the_decoding(storage: LocalStorage) -> None:
    """A stop of the service does not wait for a picture: the process goes with the task that asked for it."""
    bomb = scans(1_500)
    await storage.put(KEY, bomb, "image/jpeg")
    asked = asyncio.create_task(Thumbnails(storage, cpu_s=60).of(KEY, "image/jpeg", len(bomb)))
    for _ in range(50):
        await asyncio.to_thread(lambda: None)
    asked.cancel()
    async with asyncio.timeout(5):
        await asyncio.gather(asked, return_exceptions=True)

    assert asked.cancelled()


class _Full(LocalStorage):
    """A disk without room."""

    async def put(self, key: str, file: object, content_type: str) -> None:
        raise StorageUnavailable("full")


async def test_full_disk_refuses_no_small_picture(storage: LocalStorage, tmp_path: Path) -> None:
    """What was made is shown, kept or not."""
    data = picture("PNG", (640, 640))
    await storage.put(KEY, data, "image/png")

    assert await Thumbnails(_Full(tmp_path / "kept")).of(KEY, "image/png", len(data)) is not None
