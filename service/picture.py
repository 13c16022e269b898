"""A picture for a prompt: a small seascape, coloured and shaped by the prompt's hash, with its words written on it.

Owns how the sandbox's pictures look. Pillow only: the same arguments give the same bytes on one machine (its fonts are
asked for letters that the built-in one lacks), and no text makes it fail. It must not know providers, jobs or HTTP.
"""

from __future__ import annotations

import hashlib
import io
import math
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Final, Literal

from PIL import Image, ImageDraw, ImageFont

ImageFormat = Literal["jpeg", "png", "webp"]
RGB = tuple[int, int, int]
Font = ImageFont.FreeTypeFont

#: Width and height in pixels for an aspect ratio: exact, in steps of 16 pixels, as apimodels-sparkpix.txt, "Parameters", asks of
#: custom sizes.
SIZES: Final = {
    "1:1": (1024, 1024),
    "16:9": (1024, 576),
    "9:16": (576, 1024),
    "4:3": (1024, 768),
    "3:4": (768, 1024),
    "3:2": (1008, 672),
    "2:3": (672, 1008),
}
MAX_SIDE: Final = 4096  # pixels; larger wishes are cut to it, so that no request can take the memory
MARK: Final = "Remora sandbox"
_WHITE: Final[RGB] = (255, 255, 255)
_SHOWN_CHARS: Final = 420  # of the prompt; more would be too small to read
_WAVES: Final = 6
_MEASURED_AT: Final = 40  # pixels; widths of other sizes are scaled from this one
_LEADING: Final = 1.28  # line height, in sizes
#: Asked in this order where the built-in font lacks letters; the built-in one knows little more than ASCII.
_SYSTEM_FONTS: Final = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "arial.ttf",
    "Arial Unicode.ttf",
)


@dataclass(frozen=True, slots=True)
class _Palette:
    """The sky from above to the horizon, the sun, and the water from the horizon to the front."""

    sky: tuple[RGB, RGB, RGB]
    sun: RGB
    far: RGB
    near: RGB


_PALETTES: Final = (
    _Palette(((22, 30, 84), (121, 74, 146), (255, 158, 122)), (255, 226, 178), (196, 102, 132), (24, 20, 62)),
    _Palette(((66, 150, 214), (142, 205, 232), (244, 240, 214)), (255, 250, 224), (92, 178, 190), (8, 54, 86)),
    _Palette(((10, 20, 48), (24, 58, 98), (84, 146, 166)), (236, 246, 250), (46, 110, 138), (4, 18, 40)),
    _Palette(((250, 152, 108), (252, 192, 130), (255, 232, 186)), (255, 250, 228), (228, 118, 96), (92, 24, 54)),
    _Palette(((24, 78, 96), (66, 150, 146), (206, 228, 184)), (255, 246, 206), (54, 142, 132), (6, 46, 58)),
    _Palette(((76, 62, 140), (168, 116, 184), (250, 190, 204)), (255, 238, 226), (142, 100, 172), (34, 22, 76)),
    _Palette(((16, 24, 40), (58, 54, 84), (204, 122, 92)), (255, 204, 150), (122, 78, 88), (16, 18, 34)),
    _Palette(((112, 164, 176), (186, 206, 196), (248, 226, 196)), (255, 248, 232), (132, 158, 150), (30, 52, 62)),
)


def draw(prompt: str, width: int, height: int, *, image_format: ImageFormat) -> bytes:
    """The picture for this prompt as a whole file.

    Args:
        prompt: Any text; also decides colours and shapes.
        width: Pixels, cut to 1–4096.
        height: Pixels, cut to 1–4096.
        image_format: The file's format.
    """
    width, height = (min(max(side, 1), MAX_SIDE) for side in (width, height))
    digest = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).digest()
    rng = Random(digest)  # noqa: S311 - a picture is no secret
    palette = rng.choice(_PALETTES)
    horizon = round(height * rng.uniform(0.44, 0.52))
    picture = _sky(palette, width, height, horizon)
    _hang_sun(picture, palette, rng, horizon)
    _roll_waves(picture, palette, rng, horizon)
    if min(width, height) >= 96:  # below, no letter would be legible
        _write_prompt(picture, prompt)
        _write_mark(picture)
    return _encode(picture, image_format)


def _encode(picture: Image.Image, image_format: ImageFormat) -> bytes:
    options: dict[str, int] = {
        "jpeg": {"quality": 88},
        "png": {"compress_level": 3},  # a third of the default's time, a few per cent larger
        "webp": {"quality": 84, "method": 0},
    }[image_format]
    out = io.BytesIO()
    picture.save(out, image_format.upper(), **options)
    return out.getvalue()


def _mix(one: RGB, other: RGB, share: float) -> RGB:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _sky(palette: _Palette, width: int, height: int, horizon: int) -> Image.Image:
    """A column of colours, widened: far cheaper than a gradient of every pixel."""
    column = Image.new("RGB", (1, height), palette.near)
    for y in range(min(horizon + height // 8, height)):
        place = min(y / max(horizon, 1), 1.0) * 2
        above, below = palette.sky[int(min(place, 1.0))], palette.sky[int(min(place, 1.0)) + 1]
        column.putpixel((0, y), _mix(above, below, place - int(min(place, 1.0))))
    return column.resize((width, height), Image.Resampling.NEAREST)


def _hang_sun(picture: Image.Image, palette: _Palette, rng: Random, horizon: int) -> None:
    side = min(picture.size)
    radius = max(round(side * rng.uniform(0.08, 0.12)), 1)
    x = round(picture.width * rng.uniform(0.56, 0.84))
    y = round(horizon - radius * rng.uniform(0.3, 1.7))
    reach = radius * 5
    glow = Image.radial_gradient("L").point(lambda far: round(150 * max(0.0, 1 - far / 180) ** 2))
    picture.paste(palette.sun, (x - reach, y - reach), glow.resize((reach * 2, reach * 2)))
    disk = Image.new("L", (radius * 8, radius * 8))
    ImageDraw.Draw(disk).ellipse((0, 0, radius * 8 - 1, radius * 8 - 1), fill=255)
    picture.paste(palette.sun, (x - radius, y - radius), disk.reduce(4))


def _roll_waves(picture: Image.Image, palette: _Palette, rng: Random, horizon: int) -> None:
    for layer in range(_WAVES):
        depth = layer / (_WAVES - 1)
        crest = horizon + round((picture.height * 0.80 - horizon) * depth**1.35)  # waves lie closer towards the horizon
        swell = picture.height * (0.008 + 0.030 * depth) * rng.uniform(0.7, 1.2)
        length = picture.width * (0.28 + 0.55 * depth) * rng.uniform(0.8, 1.2)
        _roll_wave(picture, _mix(palette.far, palette.near, depth**0.8), rng, crest=crest, swell=swell, length=length)


def _roll_wave(picture: Image.Image, colour: RGB, rng: Random, *, crest: int, swell: float, length: float) -> None:
    """One wave: the band of its edge goes through a mask drawn at double size, for smooth edges; the rest is flat."""
    first, second = rng.uniform(0, math.tau), rng.uniform(0, math.tau)
    width, band = picture.width, max(math.ceil(swell * 3.4), 1)
    top = crest - band // 2
    points = [
        (
            x * 2.0,
            band
            + 2
            * swell
            * (math.sin(math.tau * x / length + first) + 0.45 * math.sin(math.tau * 2.3 * x / length + second)),
        )
        for x in range(0, width + 8, 6)
    ]
    mask = Image.new("L", (width * 2, band * 2))
    ImageDraw.Draw(mask).polygon([*points, (width * 2 + 16, band * 2), (0, band * 2)], fill=255)
    picture.paste(colour, (0, top), mask.reduce(2))
    picture.paste(colour, (0, top + band, width, picture.height))


@lru_cache(maxsize=64)
def _font(name: str | None, size: int) -> Font | None:
    """The built-in font (None), or one of the machine's by name; None where the machine has none of that name."""
    try:
        font = ImageFont.truetype(name, size) if name else ImageFont.load_default(size)
    except (OSError, ImportError):  # there is no such font, or Pillow was built without FreeType
        return None
    return font if isinstance(font, Font) else None


@lru_cache(maxsize=4096)
def _has(name: str | None, letter: str) -> bool:
    """Whether the font has a glyph of its own for the letter, and not its box for unknown ones."""
    font = _font(name, _MEASURED_AT)
    if font is None:
        return False
    return letter == " " or bytes(font.getmask(letter)) not in {b"", bytes(font.getmask("\U0010fffe"))}


def _clean(prompt: str) -> str:
    """One line of printable characters: no controls, no lone surrogates, no direction marks, no endless blanks."""
    shown = "".join(" " if unicodedata.category(c) in {"Cc", "Zl", "Zp"} else c for c in prompt[: _SHOWN_CHARS * 4])
    shown = " ".join("".join(c for c in shown if unicodedata.category(c) not in {"Cf", "Cs", "Cn", "Co"}).split())
    return (
        shown
        if len(shown) <= _SHOWN_CHARS and len(prompt) <= _SHOWN_CHARS * 4
        else shown[:_SHOWN_CHARS].rstrip() + " …"
    )


def _legible(prompt: str) -> tuple[str | None, str]:
    """The font that can write most of the prompt, and the text as that font can write it.

    The built-in font wins where it can, so that a plain prompt looks the same on every machine.
    """
    text = _clean(prompt)
    names = [name for name in (None, *_SYSTEM_FONTS) if _font(name, _MEASURED_AT) is not None]
    best = max(names, key=lambda name: sum(_has(name, letter) for letter in set(text)), default=None)
    written = "".join(_spelt(best, letter) for letter in text)
    return best, " ".join(
        written.split()
    )  # a letter that cannot be written may have stood alone, or left a blank of its own


def _spelt(name: str | None, letter: str) -> str:
    """The letter, or what it is made of without its accents, or nothing (an emoji, a script without a font)."""
    if _has(name, letter):
        return letter
    return "".join(part for part in unicodedata.normalize("NFKD", letter) if part != letter and _has(name, part))


def _measured(text: str, font: Font, widest: float) -> list[tuple[str, float]]:
    """Words and their widths; a word wider than `widest` comes in pieces, so that it can be broken anywhere in it."""
    words: list[tuple[str, float]] = []
    for word in text.split(" "):
        length = font.getlength(word)
        chars = len(word) if length <= widest else max(int(len(word) * widest / length), 1)
        pieces = [word[start : start + chars] for start in range(0, len(word), chars)]
        words += [(piece, length * len(piece) / len(word)) for piece in pieces]
    return words


def _wrap(words: list[tuple[str, float]], width: float, blank: float) -> list[str]:
    """Lines no wider than `width`, filled from the first one on."""
    lines: list[list[str]] = []
    left = 0.0
    for word, length in words:
        if lines and length + blank <= left:
            lines[-1].append(word)
            left -= length + blank
        else:
            lines.append([word])
            left = width - length
    return [" ".join(line) for line in lines]


def _fit(text: str, font: Font, largest: int, smallest: int, room: tuple[int, int]) -> tuple[int, list[str]]:
    """The largest size at which the text fits, and its lines; at the smallest one the rest is cut off."""
    blank = font.getlength(" ")
    words = _measured(text, font, room[0] * 0.98 * _MEASURED_AT / largest)
    for size in range(largest, smallest - 1, -1):
        lines = _wrap(words, room[0] * 0.98 * _MEASURED_AT / size, blank)
        if len(lines) * size * _LEADING <= room[1]:
            return size, lines
    fitting = max(int(room[1] / (smallest * _LEADING)), 1)
    return smallest, [*lines[: fitting - 1], lines[fitting - 1].rstrip(" …") + " …"]


def _write_prompt(picture: Image.Image, prompt: str) -> None:
    """The words in the front water, as large as they fit."""
    name, text = _legible(prompt)
    measure = _font(name, _MEASURED_AT)
    if not text or measure is None:
        return
    margin = round(min(picture.size) * 0.06)
    room = (picture.width - 2 * margin, round(picture.height * 0.34))
    side = min(picture.size)
    size, lines = _fit(text, measure, max(side // 15, 11), max(side // 44, 9), room)
    font = _font(name, size) or measure
    pen = ImageDraw.Draw(picture, "RGBA")
    y = picture.height - margin - len(lines) * size * _LEADING
    for line in lines:
        pen.text((margin + max(size // 24, 1), y + max(size // 24, 1)), line, font=font, fill=(0, 0, 0, 150))
        pen.text((margin, y), line, font=font, fill=(*_WHITE, 245))
        y += size * _LEADING


def _write_mark(picture: Image.Image) -> None:
    """A small fish and the sandbox's name, above on the left: nobody shall take this for a generated picture."""
    size = max(min(picture.size) // 40, 9)
    font = _font(None, size)
    if font is None:
        return
    margin = round(min(picture.size) * 0.06)
    length, tall = size * 2, size
    fish = Image.new("L", (length * 4, tall * 4))
    pen = ImageDraw.Draw(fish)
    pen.ellipse((0, tall * 0.6, length * 2.9, tall * 3.4), fill=230)
    pen.polygon(
        [(length * 2.5, tall * 2), (length * 3.9, tall * 0.5), (length * 3.5, tall * 2), (length * 3.9, tall * 3.5)],
        fill=230,
    )
    pen.ellipse((length * 0.5, tall * 1.4, length * 0.5 + tall * 0.5, tall * 1.9), fill=0)
    picture.paste(_WHITE, (margin, margin), fish.reduce(4))
    at = (margin + length * 1.3, margin + tall / 2)
    ImageDraw.Draw(picture, "RGBA").text(at, MARK, font=font, fill=(*_WHITE, 230), anchor="lm")
