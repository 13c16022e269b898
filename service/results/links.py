"""Links to results that work without a key, because nobody can guess them.

A lasting link is the same every time it is made, so that an event's bytes never go stale; a short-lived one carries its end.
Nothing is stored: the link holds what it names, under a MAC. It must not know whether the result exists.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from dataclasses import dataclass
from typing import Final
from uuid import UUID

_MAC_BYTES: Final = 16
_LASTING: Final = 1  # the first byte
_SHORT: Final = 2
_HEAD_BYTES: Final = 19  # the kind, the job's UUID, the index in two bytes
_UNTIL_BYTES: Final = 6  # milliseconds since 1970
_LENGTHS: Final = {_LASTING: _HEAD_BYTES + _MAC_BYTES, _SHORT: _HEAD_BYTES + _UNTIL_BYTES + _MAC_BYTES}
#: A `Host` header that may stand in a link: a name or an address and a port, nothing that could lead elsewhere.
_HOST: Final = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Linked:
    """What a link names. `until` is the end of a short-lived one, in ms UTC."""

    job_id: str
    index: int
    until: int | None = None


class ResultLinks:
    """Makes and reads the links of one installation.

    Args:
        key: Derived from the root secret for this purpose; with another root all links die.
        base_url: Where this service is reached, without a slash at the end.
        certain: The operator said so; else it is a guess, and the `Host` of a request is better.
    """

    def __init__(self, key: bytes, base_url: str, *, certain: bool = True) -> None:
        self._key = key
        self._keyed = hmac.new(key, digestmod="sha256")  # copied for each link
        self._base_url = base_url
        self._certain = certain

    def seen_by(self, host: str | None) -> ResultLinks:
        """For an answer to somebody who reaches this service as `host`; the same links where the operator said how."""
        if self._certain or host is None or not _HOST.fullmatch(host):
            return self
        return ResultLinks(self._key, f"http://{host}")

    def url(self, job_id: str, index: int) -> str:
        """The lasting link of a job's result."""
        return self._made(_head(_LASTING, job_id, index))

    def short(self, job_id: str, index: int, until: int) -> str:
        """A link that ends at `until`, in ms UTC."""
        return self._made(_head(_SHORT, job_id, index) + until.to_bytes(_UNTIL_BYTES, "big"))

    def read(self, token: str) -> Linked | None:
        """What the last part of a link names; None for what we did not make."""
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):  # ValueError: not ASCII
            return None
        if not raw or len(raw) != _LENGTHS.get(raw[0]) or self._text(raw) != token:
            return None
        body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(body)):
            return None
        until = int.from_bytes(body[_HEAD_BYTES:], "big") if body[0] == _SHORT else None
        return Linked(f"job_{UUID(bytes=body[1:17])}", int.from_bytes(body[17:19], "big"), until)

    def _made(self, body: bytes) -> str:
        return f"{self._base_url}/r/{self._text(body + self._mac(body))}"

    def _mac(self, body: bytes) -> bytes:
        keyed = self._keyed.copy()
        keyed.update(body)
        return keyed.digest()[:_MAC_BYTES]

    @staticmethod
    def _text(raw: bytes) -> str:
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _head(kind: int, job_id: str, index: int) -> bytes:
    # Not by way of UUID, whose making costs more than all the rest of a link.
    return bytes([kind]) + bytes.fromhex(job_id.removeprefix("job_").replace("-", "")) + index.to_bytes(2, "big")
