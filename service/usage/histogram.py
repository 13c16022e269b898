"""A histogram of durations that costs the same to add up however many jobs are in it. Pure arithmetic.

Its buckets grow by a tenth each, so that what it says of a quantile is within 5 % of a duration that was really there. The
counts stand side by side in one large integer, a lane for each bucket: adding two histograms is one addition in C.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from math import ceil, log, sqrt
from typing import Final, NamedTuple

GROWTH: Final = 1.1  # of a bucket against the one before
BUCKETS: Final = 256  # the last one begins above a year
LANE_BYTES: Final = 5  # of a count: no bucket ever sees a trillion jobs
_LANE: Final = 8 * LANE_BYTES  # bits
_LOG_GROWTH: Final = log(GROWTH)


class Histogram(NamedTuple):
    """How many durations fell into which bucket; `lanes` holds the counts, the lowest bucket in the lowest lane."""

    lanes: int = 0

    @classmethod
    def of(cls, duration_ms: int) -> Histogram:
        """One duration."""
        return cls(1 << _LANE * bucket_of(duration_ms))

    def plus(self, other: Histogram) -> Histogram:
        """Both together."""
        return Histogram(self.lanes + other.lanes)

    def minus(self, other: Histogram) -> Histogram:
        """This one without the other."""
        return Histogram(self.lanes - other.lanes)

    @property
    def total(self) -> int:
        """How many durations there are."""
        return sum(self._counts()[1])

    def quantiles_ms(self, *shares: float) -> tuple[float | None, ...]:
        """The durations that these shares of them stay at or below, within 5 %; None where there are none.

        Args:
            shares: Each above 0, to 1.
        """
        first, counts = self._counts()
        up_to = list(accumulate(counts))
        total = up_to[-1]
        return tuple(_middle(first + bisect_left(up_to, ceil(share * total))) if total else None for share in shares)

    def packed(self) -> bytes:
        """As it is stored: the lowest bucket that is not empty, and the lanes from there on."""
        if not self.lanes:
            return b""
        first = self._first()
        lanes = self.lanes >> _LANE * first
        return bytes([first]) + lanes.to_bytes((lanes.bit_length() + 7) // 8, "little")

    @classmethod
    def unpacked(cls, stored: bytes) -> Histogram:
        """From what was stored."""
        return cls(int.from_bytes(stored[1:], "little") << _LANE * stored[0]) if stored else cls()

    def _counts(self) -> tuple[int, list[int]]:
        """The first bucket that is not empty, and the counts from there on."""
        if not self.lanes:
            return 0, [0]
        first = self._first()
        lanes = self.lanes >> _LANE * first
        raw = lanes.to_bytes((lanes.bit_length() + 7) // 8, "little")
        return first, [int.from_bytes(raw[at : at + LANE_BYTES], "little") for at in range(0, len(raw), LANE_BYTES)]

    def _first(self) -> int:
        return ((self.lanes & -self.lanes).bit_length() - 1) // _LANE


def bucket_of(duration_ms: int) -> int:
    """The bucket of a duration: 0 below a millisecond, then a tenth wider each."""
    if duration_ms < 1:
        return 0
    return min(BUCKETS - 1, 1 + int(log(duration_ms) / _LOG_GROWTH + 1e-9))


def _middle(bucket: int) -> float:
    return 0.0 if bucket == 0 else GROWTH ** (bucket - 1) * sqrt(GROWTH)
