"""Callback tokens: the secret path of a submission, made before its request leaves and known again when a callback comes.

The store has only their hashes. Those that were made or seen lately are remembered here, so that a callback that is expected
costs no read, and a stranger's guess never reaches the one writer.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from service.clock import Randomness
from service.db.reader import Reader
from service.jobs import queries

TOKEN_BYTES: Final = 32  # 256 bits: the path is the secret
MAX_TOKEN: Final = 128  # characters; ours have 43
REMEMBERED: Final = 16_384  # hashes, the latest: less than 3 MB


class CallbackTokens:
    """Makes tokens, and tells which are known.

    Args:
        reader: Of the store that holds the submissions.
        randomness: Nobody may guess what it gives.
        remembered: How many hashes are kept in memory.
    """

    def __init__(self, reader: Reader, randomness: Randomness, remembered: int = REMEMBERED) -> None:
        self._reader = reader
        self._randomness = randomness
        self._most = remembered
        self._latest: dict[bytes, None] = {}  # oldest first

    def new(self) -> str:
        """A token for a submission that is about to be stored."""
        token = base64.urlsafe_b64encode(self._randomness.bytes(TOKEN_BYTES)).rstrip(b"=").decode()
        self._remember(hash_of(token))
        return token

    async def find(self, token: str) -> bytes | None:
        """The hash of a token that a submission has, or is about to have; None for any other.

        Raises:
            Unavailable: The store could not be asked.
        """
        if not 0 < len(token) <= MAX_TOKEN:
            return None
        hashed = hash_of(token)
        if hashed not in self._latest:
            if not await queries.has_token(self._reader, hashed):
                return None
            self._remember(hashed)
        return hashed

    def _remember(self, hashed: bytes) -> None:
        if hashed not in self._latest and len(self._latest) >= self._most:
            del self._latest[next(iter(self._latest))]
        self._latest[hashed] = None


def hash_of(token: str) -> bytes:
    """What is stored of a token."""
    return hashlib.sha256(token.encode()).digest()
