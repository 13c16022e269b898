"""Ids: a prefix that tells the kind, and a UUIDv7, so that they sort by the time of their making."""

from __future__ import annotations

import re
from typing import Literal

from service.clock import Clock, Randomness

Prefix = Literal["job", "evt", "sub", "dlv", "key", "acc", "sbm", "rpl"]

_RANDOM_BITS = 74  # of the 128: 48 are the time, 4 the version, 2 the variant
_COUNTER_BITS = 20  # of those 74: a counter within the millisecond, so that ids of one process never go back
_PATTERN = re.compile(
    r"(job|evt|sub|dlv|key|acc|sbm|rpl)_[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
)


class Ids:
    """Makes ids that grow strictly within one process, also when the clock steps back."""

    def __init__(self, clock: Clock, randomness: Randomness) -> None:
        self._clock = clock
        self._randomness = randomness
        self._last_ms = 0
        self._counter = 0

    def new(self, prefix: Prefix) -> str:
        """A new id such as `job_0199…`, canonical UUIDv7 text behind the prefix."""
        noise = int.from_bytes(self._randomness.bytes(9), "big")
        tail = noise & ((1 << (_RANDOM_BITS - _COUNTER_BITS)) - 1)
        now_ms = self._clock.now_ms()
        if now_ms > self._last_ms:
            self._last_ms = now_ms
            self._counter = noise >> 64 << 8  # start anywhere in the lower part, leaving room to count up
        else:
            self._counter += 1
            if self._counter >> _COUNTER_BITS:
                self._last_ms += 1
                self._counter = 0
        random_part = (self._counter << (_RANDOM_BITS - _COUNTER_BITS)) | tail
        value = self._last_ms << 80 | 7 << 76 | (random_part >> 62) << 64 | 0b10 << 62 | random_part & ((1 << 62) - 1)
        text = f"{value:032x}"
        return f"{prefix}_{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def earliest(prefix: Prefix, at_ms: int) -> str:
    """What no id sorts before that was made at that moment or later; an older one does."""
    text = f"{at_ms:012x}"
    return f"{prefix}_{text[:8]}-{text[8:]}"


def is_id(text: str, prefix: Prefix) -> bool:
    """Whether the text has the form of an id of that kind; says nothing of its existence."""
    return text.startswith(prefix) and _PATTERN.fullmatch(text) is not None
