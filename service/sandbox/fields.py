"""Fields of a submit's body, read one at a time: each is right, left out, or refused by name.

Owns the kinds of fields that the providers' documents know. It must not know any dialect's own fields.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import warnings
from collections.abc import Collection, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from PIL import Image

IMAGE_MAX_BYTES: Final = 10 * 2**20
_DATA_URL: Final = re.compile(r"data:image/[a-zA-Z0-9.+-]{1,40};base64,", re.IGNORECASE)
_PICTURES: Final = ("JPEG", "PNG", "WEBP")


class Invalid(ValueError):
    """A field is missing or wrong; the message names it.

    Args:
        message: What is wrong and what would be right.
        status: What it is answered with.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def text(body: Mapping[str, Any], name: str, *, max_chars: int | None = None) -> str:
    """A text that must be there and say something."""
    value = body.get(name)
    if not isinstance(value, str) or not value.strip():
        raise Invalid(f"{name} is required and must be a text")
    if max_chars is not None and len(value) > max_chars:
        raise Invalid(f"{name} must have at most {max_chars} characters, not {len(value)}")
    return value


def word(body: Mapping[str, Any], name: str, allowed: Collection[str], default: str) -> str:
    """One of the allowed words."""
    value = body.get(name, default)
    if not isinstance(value, str) or value not in allowed:
        raise Invalid(f"{name} must be one of {', '.join(allowed)}")
    return value


def whole(body: Mapping[str, Any], name: str, allowed: range, default: int) -> int:
    """A whole number of the range."""
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
        steps = f" in steps of {allowed.step}" if allowed.step > 1 else ""
        raise Invalid(f"{name} must be a whole number from {allowed[0]} to {allowed[-1]}{steps}")
    return value


def flag(body: Mapping[str, Any], name: str, *, default: bool) -> bool:
    """True or false."""
    value = body.get(name, default)
    if not isinstance(value, bool):
        raise Invalid(f"{name} must be true or false")
    return value


def check_integer(body: Mapping[str, Any], name: str) -> None:
    """Any whole number, or nothing."""
    value = body.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Invalid(f"{name} must be a whole number")


def check_number(body: Mapping[str, Any], name: str, low: float, high: float) -> None:
    """A number between the bounds, or nothing."""
    value = body.get(name, low)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise Invalid(f"{name} must be a number from {low:g} to {high:g}")


def url(body: Mapping[str, Any], *names: str) -> str | None:
    """An http(s) URL under the first of the names that is there, or nothing."""
    for name in names:
        if body.get(name) is not None:
            return _checked_url(body[name], name)
    return None


def check_images(body: Mapping[str, Any], name: str, *, data_urls: bool) -> None:
    """A list of URLs, each http(s) or, where allowed, a picture as data URL; or nothing."""
    value = body.get(name, [])
    if not isinstance(value, list):
        raise Invalid(f"{name} must be a list of URLs")
    for place, each in enumerate(value):
        check_image_url(each, f"{name}[{place}]", data_urls=data_urls)


def check_image_url(value: object, name: str, *, data_urls: bool) -> None:
    """An http(s) URL or, where allowed, a picture as data URL."""
    if data_urls and isinstance(value, str) and _DATA_URL.match(value):
        check_picture(value, name)
    else:
        _checked_url(value, name)


def check_picture(value: object, name: str) -> None:
    """A JPEG, PNG or WebP in base64, with or without `data:image/…;base64,` before it, of 10 MB at most."""
    if not isinstance(value, str):
        raise Invalid(f"{name} must be a text in base64")
    prefix = _DATA_URL.match(value)
    try:
        picture = base64.b64decode(value[prefix.end() :] if prefix else value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid(f"{name} must be valid base64") from error
    if len(picture) > IMAGE_MAX_BYTES:
        raise Invalid(f"{name} must have at most 10 MB, not {len(picture)} bytes")
    if not _is_picture(picture):
        raise Invalid(f"{name} must be a JPEG, PNG or WebP image")


def _is_picture(data: bytes) -> bool:
    """Only the head is read, so that a picture that unpacks to gigabytes does no harm."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_PICTURES) as picture:
                picture.verify()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
    return True


def _checked_url(value: object, name: str) -> str:
    if not isinstance(value, str) or not _is_http(value):
        raise Invalid(f"{name} must be an http or https URL")
    return value


def _is_http(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        return False
