"""Secrets at rest: AES-256-GCM, bound to the row they belong to, so that a sealed value copied elsewhere does not open."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from service.clock import Randomness
from service.errors import RemoraError

NONCE_BYTES = 12  # of AES-GCM
MIN_KEY_BYTES = 32  # of a root secret


class SecretKeyWrong(RemoraError):
    """A sealed value does not open with this key."""


class SecretBox:
    """Seals and opens secrets, and derives further keys for other purposes from the same root."""

    def __init__(self, root: bytes, randomness: Randomness) -> None:
        self._root = root
        self._randomness = randomness
        self._cipher = AESGCM(self.derive("seal"))

    def derive(self, purpose: str) -> bytes:
        """A key of 32 bytes for one purpose; the same root gives the same key."""
        return hmac.new(self._root, b"remora/" + purpose.encode(), hashlib.sha256).digest()

    def seal(self, plain: bytes, place: str) -> bytes:
        """Encrypt for one place, such as `subscriptions/sub_…/secret`."""
        nonce = self._randomness.bytes(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, place.encode())

    def open(self, sealed: bytes, place: str) -> bytes:
        """Decrypt what was sealed for this place.

        Raises:
            SecretKeyWrong: Another key, another place, or damaged bytes.
        """
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place.encode())
        except (InvalidTag, ValueError) as error:  # ValueError: not even as long as a nonce
            msg = f"the secret at {place} does not open with this REMORA_SECRET_KEY"
            raise SecretKeyWrong(msg) from error


def parse_root(text: str) -> bytes:
    """The root key from a setting: base64 or any text of at least 32 characters.

    Raises:
        ValueError: It is too short.
    """
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) >= MIN_KEY_BYTES:
        return raw
    if len(text) >= MIN_KEY_BYTES:
        return hashlib.sha256(text.encode()).digest()
    msg = "at least 32 characters, for example the output of: openssl rand -base64 32"
    raise ValueError(msg)
