"""Cursors into logs that all accounts share: sealed, since a place there would tell how much the others do.

The same place always gives the same text, so that cursors can be compared. A text says nothing to anybody but this service, and
leads nowhere for another account.
"""

from __future__ import annotations

import base64
import re
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from service.api.answers.cursors import number_of
from service.db.sealing import SecretBox

FEED: Final = "pos"  # the kind of the feed's cursors
_PLACE_BYTES: Final = 8
_SEALED: Final = re.compile(r"[A-Za-z0-9_-]{32}")  # a place and a tag of 16 bytes


def looks_sealed(text: str) -> bool:
    """Whether a text has the form of a cursor; it may be anybody's."""
    return _SEALED.fullmatch(text) is not None


class SealedCursors:
    """Writes and reads them.

    Args:
        box: Gives the key.
        plain_until: Cursors of the feed were numbers once; those up to this place are still taken. Later ones would
            let a caller find out places by trying.
    """

    def __init__(self, box: SecretBox, plain_until: int) -> None:
        self._cipher = AESSIV(box.derive("cursors"))
        self._plain_until = plain_until

    def text(self, kind: str, account_id: str, place: int) -> str:
        """The cursor of a place."""
        bound = [kind.encode(), account_id.encode()]
        sealed = self._cipher.encrypt(place.to_bytes(_PLACE_BYTES, "big"), bound)
        return base64.urlsafe_b64encode(sealed).decode()

    def place(self, kind: str, account_id: str, text: str) -> int | None:
        """The place of a cursor; None if it is none of this kind and account."""
        plain = number_of(text, kind) if kind == FEED else None
        if plain is not None:
            return plain if plain <= self._plain_until else None
        if not looks_sealed(text):
            return None
        try:
            opened = self._cipher.decrypt(base64.urlsafe_b64decode(text), [kind.encode(), account_id.encode()])
        except InvalidTag:
            return None
        return int.from_bytes(opened, "big")
