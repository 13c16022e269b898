"""Where a provider's URLs lead, and where our key may go: to the card's own origin and to the further ones that it trusts.

Pure. It must not know what is asked there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import urljoin, urlsplit

from service.fileurls import is_data_url, link_in, resolved, trimmed

MAX_CHARS: Final = 8192  # of a URL that a provider gives
_PORTS: Final = {"http": 80, "https": 443}


class LinkOrigins:
    """The origins of one provider.

    Args:
        base_url: The card's, with the operator's setting applied.
        trusted: Further ones; a `*` stands for one label of the host.
    """

    def __init__(self, base_url: str, trusted: Sequence[str] = ()) -> None:
        self._base = f"{base_url}/"
        own = re.escape(_origin(base_url))
        others = [re.escape(_origin(origin)).replace(r"\*", "[a-z0-9-]+") for origin in trusted]
        self._known = re.compile("|".join([own, *others]))

    def absolute(self, url: object) -> str | None:
        """The absolute form of a URL that the provider gave, if our key may go there."""
        if not isinstance(url, str) or not 0 < len(url) <= MAX_CHARS or not url.isprintable():
            return None
        try:
            absolute = urljoin(self._base, url)
            return absolute if self._known.fullmatch(_origin(absolute)) else None
        except ValueError:  # a port that is no number, a bracket that is not closed
            return None

    def file(self, text: str) -> str | None:
        """The URL of a file in a text that the provider gave: anywhere, since no key goes there; None for what is none.

        A `data:` URL is not looked into. One that begins with a slash is at the card's own origin, or of its scheme.
        """
        if is_data_url(text):
            return trimmed(text)
        try:
            return link_in(resolved(self._base, text) if trimmed(text).startswith("/") else text)
        except ValueError:
            return None


def _origin(url: str) -> str:
    """Scheme, host and port, the port always said."""
    parts = urlsplit(url)
    if "@" in parts.netloc or "\\" in url:
        raise ValueError("a URL with a user is not one of the provider's own")
    return f"{parts.scheme}://{parts.hostname}:{parts.port or _PORTS.get(parts.scheme)}"
