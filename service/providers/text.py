"""Words of a provider, made fit for our records: one line, short, and without what must stay secret."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

MESSAGE_CHARS: Final = 500
WORD_CHARS: Final = 64
HIDDEN: Final = "[secret]"

_READ_CHARS: Final = 65_536  # of a message that may be megabytes long
_CALLBACK_PATH: Final = "/callbacks"
_CALLBACK_TOKEN: Final = re.compile(r"(/callbacks(?:/|%2[Ff]))[^\s\"'<>&?#/]+")
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
        self._secrets = {form for secret in secrets if secret for form in (secret, quote(secret, safe=""))}

    def line(self, value: object) -> str | None:
        """A message as one line of at most 500 characters; None when there is none."""
        if not isinstance(value, str):
            return None
        text = _UNPRINTABLE.sub(" ", self.hide(value[:_READ_CHARS])).strip()
        return text[:MESSAGE_CHARS].strip() or None

    def hide(self, text: str) -> str:
        """The text with every secret replaced; done before anything is cut, so that no half of one is left over."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        if _CALLBACK_PATH not in text:  # every callback asks, and preparing the replacement costs more than looking
            return text
        return _CALLBACK_TOKEN.sub(rf"\1{HIDDEN}", text)
