"""Whether the files that SQLite has open are still the ones at their paths.

SQLite itself goes on writing to a file that was moved, deleted or replaced, and nobody would find what it wrote.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from service.errors import StoreFailed


class Presence:
    """The files of an open database, as they were when it was opened."""

    def __init__(self, named: Path, path: Path) -> None:
        """Remember them; the database was read from, which opens all of them.

        Args:
            named: The database as the settings name it; a link may lead elsewhere later.
            path: The same without links, beside which SQLite keeps its log.
        """
        files = (str(named), f"{path}-wal", f"{path}-shm")
        self._files: Final = [(file, _identity(file)) for file in files]

    def check(self) -> None:
        """See whether all is in its place: three calls of `stat`, some microseconds.

        Raises:
            StoreFailed: Something is not; what was written last may be lost.
        """
        for file, opened in self._files:
            try:
                if _identity(file) == opened:
                    continue
                says = "is another file now"
            except OSError as error:
                says = f"is gone ({error.strerror})"
            raise StoreFailed(f"{file} {says}: it was moved, deleted or replaced under the running service")


def _identity(file: str) -> tuple[int, int]:
    found = os.stat(file)  # noqa: PTH116 - pathlib would cost as much as the call
    return found.st_dev, found.st_ino
