"""Images and URLs inside an input: the schema keyword `x-image`, which says in which forms an image may come.

Pure. Pictures are looked at, never unpacked, so that one that would fill the memory does no harm.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import warnings
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

FORMS: Final = ("http_url", "data_url", "base64")
TYPES: Final = {"jpeg": "JPEG", "png": "PNG", "webp": "WebP"}  # ours, and as people write them
_KEYS: Final = {"forms", "types", "max_bytes"}
_DATA_URL: Final = re.compile(r"data:image/[a-z0-9.+-]{1,40}(;[a-z0-9.+=-]{1,40})*;base64,", re.IGNORECASE)
_MAX_URL_CHARS: Final = 8192
_STEP_CHARS: Final = 1 << 20  # of base64, decoded at once


def check_keyword(value: object) -> None:
    """Judge what a card says after `x-image`.

    Raises:
        ValueError: It is no such mapping.
    """
    form = (
        "x-image: write forms: [http_url, data_url, base64], and types: [jpeg, png, webp] and max_bytes where base64 is"
    )
    if not isinstance(value, dict) or not set(value) <= _KEYS or not _is_part(value.get("forms"), FORMS):
        raise ValueError(form)
    if "types" in value and not _is_part(value["types"], tuple(TYPES)):
        raise ValueError(form)
    size = value.get("max_bytes", 1)
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(form)


def fault(rule: Mapping[str, Any], text: str) -> str | None:
    """What is wrong with a text that should be an image in one of the rule's forms; None: nothing."""
    forms: list[str] = rule["forms"]
    is_http = text[:8].lower().startswith(("http://", "https://"))
    if is_http and "http_url" in forms:
        return None if _is_http_url(text) else "must be a URL that can be fetched, such as https://host/picture.png"
    prefix = _DATA_URL.match(text[:256])
    if prefix is not None and ("data_url" in forms or "base64" in forms):
        return _encoded_fault(rule, text[prefix.end() :])
    if "base64" in forms and not is_http and text[:5].lower() != "data:":
        return _encoded_fault(rule, text)
    return "must be " + " or ".join(_FORM_WORDS[form] for form in forms)


_FORM_WORDS: Final = {
    "http_url": "an http(s) URL",
    "data_url": "a data URL (data:image/…;base64,…)",
    "base64": "an image in base64, with data:image/…;base64, before it or without",
}


def _is_part(value: object, of: tuple[str, ...]) -> bool:
    return isinstance(value, list) and bool(value) and all(entry in of for entry in value)


def _is_http_url(text: str) -> bool:
    if len(text) > _MAX_URL_CHARS or not text.isprintable() or " " in text:
        return False
    try:
        parts = urlsplit(text)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        return False


def _encoded_fault(rule: Mapping[str, Any], text: str) -> str | None:
    types: list[str] = rule.get("types", list(TYPES))
    max_bytes: int | None = rule.get("max_bytes")
    if max_bytes is not None and len(text) > (max_bytes + 2) // 3 * 4 + max_bytes // 20:  # with line breaks
        return _too_large(max_bytes)
    try:
        content = _decoded(text)
    except (binascii.Error, ValueError):  # ValueError: a character beyond ASCII
        return "is no base64: A–Z, a–z, 0–9, + and / only, with = at the end"
    if max_bytes is not None and len(content) > max_bytes:
        return _too_large(max_bytes)
    if not _is_picture(content, types):
        names = [TYPES[name] for name in types]
        return f"is no {', '.join(names[:-1]) + ' or ' if len(names) > 1 else ''}{names[-1]} image"
    return None


def _decoded(text: str) -> bytes:
    """What a text in base64 holds, piece by piece: one step for megabytes would keep the interpreter to itself.

    Raises:
        ValueError: It is no base64.
    """
    made, left, ended = bytearray(), "", False
    for at in range(0, len(text), _STEP_CHARS):
        symbols = left + "".join(text[at : at + _STEP_CHARS].split())
        whole = len(symbols) - len(symbols) % 4
        if ended and symbols:
            raise ValueError("there is something behind its end")
        left = symbols[whole:]
        made += base64.b64decode(symbols[:whole], validate=True)
        ended = symbols[:whole].endswith("=")
    return bytes(made + base64.b64decode(left, validate=True))


def _too_large(max_bytes: int) -> str:
    return f"must have at most {max_bytes / 2**20:g} MB ({max_bytes} bytes) when decoded"


def _is_picture(content: bytes, types: list[str]) -> bool:
    """Whether the content itself is a picture of these types, whatever its data URL says."""
    from PIL import Image  # noqa: PLC0415 - 30 ms of every start, for inputs that hold pictures

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=[name.upper() for name in types]) as picture:
                picture.verify()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
    return True
