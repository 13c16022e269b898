"""Pictures that stand in a `data:` URL, which some providers give instead of an address."""

from __future__ import annotations

import base64
import binascii
import io
import re
from dataclasses import dataclass, field
from typing import Final

from service.results.sniff import examine

#: What a browser shows and cannot run; SVG is a document with scripts.
PICTURE_TYPES: Final = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif", "image/avif"})
_DATA_URL: Final = re.compile(r"data:([a-z0-9.+-]+/[a-z0-9.+-]+)((?:;[^;,]*)*?);base64,", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture's bytes and their type."""

    content_type: str
    data: bytes = field(repr=False)


def inline_picture(url: str) -> Picture | None:
    """The picture in a base64 `data:` URL; None where it is none, or none of the types that are served."""
    match = _DATA_URL.match(url)
    if match is None or match[1].lower() not in PICTURE_TYPES:
        return None
    try:
        data = base64.b64decode(url[match.end() :], validate=True)
    except (binascii.Error, ValueError):  # ValueError: not ASCII
        return None
    return Picture(match[1].lower(), data) if data else None


def sound_picture(url: str) -> Picture | None:
    """The same, whole and of a type that its bytes show; slow for a large one."""
    picture = inline_picture(url)
    if picture is None:
        return None
    look = examine(io.BytesIO(picture.data), len(picture.data), length_known=True)
    if isinstance(look, str) or look.content_type not in PICTURE_TYPES:
        return None
    return Picture(look.content_type, picture.data)
