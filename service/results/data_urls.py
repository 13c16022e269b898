"""Pictures that stand in a `data:` URL, which some providers give instead of an address."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Final

from service.fileurls import data_in
from service.results.formats.sniff import examine

#: What a browser shows and cannot run; SVG is a document with scripts.
PICTURE_TYPES: Final = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif", "image/avif"})


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture's bytes and their type."""

    content_type: str
    data: bytes = field(repr=False)


def inline_picture(url: str) -> Picture | None:
    """The whole picture in a `data:` URL, of a type that its bytes show; None where it is none. Slow for a large one."""
    data = data_in(url)
    if data is None:
        return None
    look = examine(io.BytesIO(data), len(data), length_known=True)
    if isinstance(look, str) or look.content_type not in PICTURE_TYPES:
        return None
    return Picture(look.content_type, data)
