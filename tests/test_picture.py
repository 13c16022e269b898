"""The sandbox's pictures: real files of the size asked for, whatever the prompt is."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from service.picture import ImageFormat, draw

CAT = "A cute cat wearing a space helmet, digital art"


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()  # a file that is cut or broken fails here, not at open
    return picture


@pytest.mark.parametrize(("image_format", "name"), [("jpeg", "JPEG"), ("png", "PNG"), ("webp", "WEBP")])
def test_draw_makes_a_file_of_the_format_and_size(image_format: ImageFormat, name: str) -> None:
    """What comes back is a whole file of the asked format with the asked number of pixels."""
    picture = opened(draw(CAT, 336, 192, image_format=image_format))

    assert (picture.format, picture.size) == (name, (336, 192))


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "   \n\t ",
        "🐱🚀👩‍👩‍👧",
        "قطة ترتدي خوذة فضاء",
        "猫が宇宙ヘルメットをかぶる",
        "Ein Bär im Café \x00\x1b[31m\u202e",
        "half a pair: \ud83d",
        "x" * 10_000,
        "two words " * 1_000,
    ],
)
def test_draw_never_fails_for_a_text(prompt: str) -> None:
    """Emoji, any script, control characters, broken surrogates, nothing and far too much: always a picture."""
    assert opened(draw(prompt, 256, 256, image_format="png")).size == (256, 256)


@pytest.mark.parametrize(
    ("width", "height", "size"), [(1, 1, (1, 1)), (0, -5, (1, 1)), (9000, 8, (4096, 8)), (20, 700, (20, 700))]
)
def test_draw_takes_any_size(width: int, height: int, size: tuple[int, int]) -> None:
    """Tiny, odd and huge sizes work; what is beyond reason is cut to 1-4096."""
    assert opened(draw(CAT, width, height, image_format="jpeg")).size == size


def test_draw_repeats_itself() -> None:
    """The same prompt gives the same bytes: a test may compare a file with what it should be."""
    assert draw(CAT, 320, 200, image_format="jpeg") == draw(CAT, 320, 200, image_format="jpeg")


def test_draw_tells_prompts_apart() -> None:
    """Another prompt is another picture, also where the words are too small to read."""
    assert draw("a", 64, 64, image_format="png") != draw("b", 64, 64, image_format="png")
