"""Words of a provider, made fit for our records: short, and without what must stay secret."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

MESSAGE_CHARS: Final = 500  # of a provider's message that are kept
WORD_CHARS: Final = 64  # of a provider's state word that are kept
HIDDEN: Final = "[secret]"

HEAD_CHARS: Final = 2_048  # of an answer's head

#: Headers whose values nobody may see.
_SECRET_HEADERS: Final = re.compile(
    r"cookie|auth|token|secret|session|signature|credential|passw|api-?key", re.IGNORECASE
)
_QUERY: Final = re.compile(r"(?<=\S)\?[^\s,;>\"']*")
_HEADER: Final = re.compile(r"([^:\s]+)(:[ \t]*)(.*)")
_JSON: Final = json.JSONEncoder(ensure_ascii=False)
_READ_CHARS: Final = 65_536  # of a message that may be megabytes long
_CALLBACK_PATH: Final = "callbacks"
#: In an address as it is, or as it stands in a query or in JSON, packed as often as one likes.
_CALLBACK_TOKEN: Final = re.compile(r"((?<=[/fF])callbacks(?:/|\\+/|%(?:25)*+2[Ff]|\\+u002[Ff])++)[^\s\"'<>&?#/\\]+")
_FOLD: Final = re.compile(rb"\r?\n[ \t]+")
_UNPRINTABLE: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def word(value: object) -> str | None:
    """A state, type or code as text of at most 64 characters; numbers and booleans are spelt as in JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)[:WORD_CHARS]
    if not isinstance(value, str):
        return None
    return _UNPRINTABLE.sub(" ", value[: 4 * WORD_CHARS]).strip()[:WORD_CHARS].strip() or None


class Scrubber:
    """Makes messages of a provider fit to be shown: without our key and the tokens of our callback URLs."""

    def __init__(self, *secrets: str | None) -> None:
        self._secrets = {
            form
            for secret in secrets
            if secret
            for form in (secret, quote(secret, safe=""), _JSON.encode(secret)[1:-1])
        }

    def line(self, value: object) -> str | None:
        """A message as one line of at most 500 characters, an object or a list as its JSON; None when there is none."""
        if isinstance(value, dict | list):
            value = _json_start(value) if value else None
        if not isinstance(value, str):
            return None
        text = _UNPRINTABLE.sub(" ", self.hide(value[:_READ_CHARS])).strip()
        return text[:MESSAGE_CHARS].strip() or None

    def head(self, raw: bytes) -> str | None:
        """The head of an answer as it came, line by line, at most 2,048 characters of it; None when there is none."""
        raw = _FOLD.sub(b" ", raw)  # a line that goes on is judged by its name
        whole, _, rest = raw.rpartition(b"\n")  # of a line that was cut a half of a secret could be left
        name = rest.partition(b":")[0][:WORD_CHARS]
        lines = self.hide((whole + b"\n" + name + b": ..." if name.strip() else whole).decode("utf-8", "replace"))
        return "\n".join(map(_shown, filter(None, lines.splitlines())))[:HEAD_CHARS] or None

    def hide(self, text: str) -> str:
        """The text with every secret replaced; done before anything is cut, so that no half of one is left over."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        if _CALLBACK_PATH not in text:  # every callback asks, and preparing the replacement costs more than looking
            return text
        return _CALLBACK_TOKEN.sub(rf"\1{HIDDEN}", text)


def _shown(line: str) -> str:
    """A line of a head without what opens doors: cookies, keys, and the queries of addresses."""
    found = _HEADER.fullmatch(line)
    if found is not None and _SECRET_HEADERS.search(found[1]):
        return f"{found[1]}{found[2]}{HIDDEN}"
    return _QUERY.sub(f"?{HIDDEN}", _UNPRINTABLE.sub(" ", line))


def _json_start(value: object) -> str:
    """The JSON of a value, which may be megabytes long, up to where nobody reads on."""
    try:
        return "".join(_until_long(_JSON.iterencode(value)))
    except RecursionError:
        return ""


def _until_long(pieces: Iterable[str]) -> Iterable[str]:
    length = 0
    for piece in pieces:
        yield piece[:_READ_CHARS]
        length += len(piece)
        if length > _READ_CHARS:
            return
