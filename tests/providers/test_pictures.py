"""Images in an input are judged by their content."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import pytest
from PIL import Image

from service.providers.card.pictures import check_keyword, fault

TEN_MB = 10 * 2**20
RULE = {"forms": ["base64"], "types": ["jpeg", "png", "webp"], "max_bytes": TEN_MB}
REFERENCE = {"forms": ["http_url", "data_url"], "types": ["jpeg", "png", "webp"], "max_bytes": TEN_MB}
NO_PICTURE = "is no JPEG, PNG or WebP image"


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def picture(image_format: str) -> bytes:
    with io.BytesIO() as file:
        Image.new("RGB", (8, 8), "teal").save(file, image_format)
        return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, padding: int = 0) -> bytes:
    """A PNG that says it is that large; its pixels are a few kilobytes of zeros, packed."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 10_000))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"teXt", b"\0" * padding) + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_documented_pictures_pass_with_prefix_and_without(image_format: str) -> None:
    """JPEG, PNG and WebP; the prefix may say anything, the content counts."""
    text = encoded(picture(image_format))

    assert fault(RULE, text) is None
    assert fault(RULE, f"data:image/{image_format.lower()};base64,{text}") is None
    assert fault(RULE, f"data:image/jpeg;base64,{text}") is None


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        (encoded(picture("GIF")), NO_PICTURE),
        ("data:image/png;base64," + encoded(picture("BMP")), NO_PICTURE),
        (encoded(b"\xff\xd8\xff\xe0 begins like a JPEG"), NO_PICTURE),
        (encoded(b"<svg/>"), NO_PICTURE),
        ("", NO_PICTURE),
        ("not base64!", "is no base64: A–Z, a–z, 0–9, + and / only, with = at the end"),
        ("ümläut", "is no base64: A–Z, a–z, 0–9, + and / only, with = at the end"),
        ("https://a.example/1.png", "must be an image in base64, with data:image/…;base64, before it or without"),
        ("data:text/html;base64,AAAA", "must be an image in base64, with data:image/…;base64, before it or without"),
    ],
)
def test_what_is_no_picture_is_refused(text: str, detail: str) -> None:
    """Whatever it calls itself."""
    assert fault(RULE, text) == detail


def test_large_picture_is_decoded_in_pieces() -> None:
    """As if it were decoded at once: with line breaks anywhere, and with nothing behind its end, wherever a piece ends."""
    for padding in (3 << 18, (3 << 18) + 1, 2 << 20):
        text = encoded(png(8, 8, padding))
        lines = "\r\n".join(text[at : at + 76] for at in range(0, len(text), 76))

        assert fault(RULE, text) is None
        assert fault(RULE, lines) is None
        assert "is no base64" in (fault(RULE, text + "A") or "")
        assert "is no base64" in (fault(RULE, text.replace("=", "") + "A=AA") or "")
    ended = "A" * ((1 << 20) - 4) + "QQ=="
    assert "is no base64" in (fault(RULE, ended + ended) or "")
    assert fault(RULE, ended + "\n ") == NO_PICTURE


def test_size_counts_what_is_decoded() -> None:
    """Ten megabytes pass, one byte more does not, and text that could not fit is not even decoded."""
    most = png(8, 8, padding=TEN_MB - len(png(8, 8)))

    assert len(most) == TEN_MB
    assert fault(RULE, encoded(most)) is None
    assert fault(RULE, encoded(most + b"\0")) == "must have at most 10 MB (10485760 bytes) when decoded"
    assert fault(RULE, "A" * 20_000_000) == "must have at most 10 MB (10485760 bytes) when decoded"


@pytest.mark.parametrize("side", [10_000, 16_000, 2**31 - 1])
def test_picture_that_unpacks_to_gigabytes_is_never_unpacked(side: int) -> None:
    """Judged by its head: large pictures pass, absurd ones are refused, and neither takes memory."""
    assert fault(RULE, encoded(png(side, side))) == (None if side == 10_000 else NO_PICTURE)


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("https://a.example/1.png", None),
        ("HTTP://a.example", None),
        ("data:image/webp;base64," + encoded(picture("WEBP")), None),
        (encoded(picture("PNG")), "must be an http(s) URL or a data URL (data:image/…;base64,…)"),
        ("ftp://a.example/1.png", "must be an http(s) URL or a data URL (data:image/…;base64,…)"),
        ("https://", "must be a URL that can be fetched, such as https://host/picture.png"),
        ("https://a b", "must be a URL that can be fetched, such as https://host/picture.png"),
        ("https://[", "must be a URL that can be fetched, such as https://host/picture.png"),
        ("https://a.example:99999/", "must be a URL that can be fetched, such as https://host/picture.png"),
    ],
)
def test_reference_is_a_url(text: str, detail: str | None) -> None:
    """Where a document takes URLs, a data URL is one and bare base64 is none."""
    assert fault(REFERENCE, text) == detail


@pytest.mark.parametrize(
    "rule",
    [None, [], {}, {"forms": []}, {"forms": ["file"]}, {"forms": ["base64"], "types": ["gif"]}, {"forms": ["base64"], "max_bytes": 0}, {"forms": ["base64"], "size": 1}],
)  # fmt: skip
def test_keyword_in_a_wrong_form_is_refused(rule: object) -> None:
    """A card that says it wrongly is told so at start."""
    with pytest.raises(ValueError, match="x-image: write forms"):
        check_keyword(rule)
