"""The sandbox's pictures: real files of the size asked for, whatever the prompt is."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
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
        "A shark 🦈 at sea",
        "a 鯊 at sea",
        "a ´ ¨ and a \u0301",
    ],
)
def test_draw_never_fails_for_a_text(prompt: str) -> None:
    """Emoji, any script, control characters, broken surrogates, nothing and far too much: always a picture."""
    assert opened(draw(prompt, 256, 256, image_format="png")).size == (256, 256)


#: Blanks of all kinds, marks that stand on a letter, what cannot be seen, half a pair, and letters of a few scripts.
ODD = st.sampled_from(" \t\n\x00\x85\xa0\u3000\u200b\u2028\ufeff\u202e\u0301´¨ﷺ🦈鯊م\ud83d\udd88\U0010ffff")
LETTERS = st.one_of(ODD, st.characters(), st.characters(codec="ascii"))
WORDS = st.lists(st.text(LETTERS, max_size=4), max_size=30).map(" ".join)
PROMPTS = WORDS | st.text(LETTERS, max_size=600)
SIDES = st.tuples(st.integers(1, 4096), st.integers(1, 160) | st.integers(96, 256)).flatmap(st.permutations)
FORMATS: list[ImageFormat] = ["jpeg", "png", "webp"]


@settings(max_examples=300, deadline=None)
@given(PROMPTS, SIDES, st.sampled_from(FORMATS))
@example("🦈 " * 300, [4096, 4096], "webp")
def test_draw_writes_every_prompt(prompt: str, sides: list[int], image_format: ImageFormat) -> None:
    """All of Unicode, in any order, at every size and in every format."""
    width, height = sides

    assert opened(draw(prompt, width, height, image_format=image_format)).size == (width, height)


def test_draw_needs_no_fonts_of_the_machine() -> None:
    """The letters that the built-in font lacks are left out, and blanks with them."""
    prompts = ["A shark 🦈 at sea", "鯊", "a 鯊 at 海 sea", "´ ¨", "Ж"]
    code = "import sys; from service.picture import draw; [draw(p, 256, 256, image_format='png') for p in sys.argv[1:]]"
    nowhere = dict.fromkeys(("XDG_DATA_HOME", "XDG_DATA_DIRS", "HOME"), "/nonexistent")
    done = subprocess.run(
        [sys.executable, "-c", code, *prompts], env=os.environ | nowhere, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


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
