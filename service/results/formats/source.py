"""A file that is looked at in places, never as a whole, and not for ever."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO, Final

MOST_READS: Final = 50_000  # of one file: a maze of tiny parts ends here, as if the file did


@dataclass(slots=True)
class ByteSource:
    """Reads anywhere; beyond the end there is nothing."""

    file: BinaryIO
    size_bytes: int
    length_known: bool = True  # else a format that ends with a mark must have it
    reads: int = 0

    def read(self, offset: int, count: int) -> bytes:
        """Up to so many bytes."""
        self.reads += 1
        if offset >= self.size_bytes or self.reads > MOST_READS:
            return b""
        self.file.seek(offset)
        return self.file.read(count)

    def tail(self, count: int) -> bytes:
        """The last bytes."""
        return self.read(max(0, self.size_bytes - count), count)
