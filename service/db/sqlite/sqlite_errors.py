"""What SQLite's errors mean: not able now, broken, or the statement's own fault.

It must not know what was tried.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from service.errors import StoreFailed, StoreUnavailable

#: The engine is not able at the moment. It may be later, for any command alike, so that nothing is gained by trying each.
_UNABLE: Final = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        # Nothing was written: a quota, a limit on the size of files, a file system that became read-only, and a disk
        # that is full while the log's index grows come as I/O errors. Errors of reading and of fsync are another matter.
        sqlite3.SQLITE_IOERR_WRITE,
        sqlite3.SQLITE_IOERR_NOMEM,
        sqlite3.SQLITE_IOERR_SHMSIZE,
    }
)
_BROKEN: Final = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def fault(error: sqlite3.Error | MemoryError) -> Exception:
    """The error in our words; one that belongs to the statement is given back as it is."""
    code = sqlite3.SQLITE_NOMEM if isinstance(error, MemoryError) else getattr(error, "sqlite_errorcode", None)
    if code is None:
        return error
    primary = code & 0xFF
    if code in _UNABLE or primary in _UNABLE:
        return StoreUnavailable(f"the database cannot be used now: {str(error) or 'out of memory'}")
    if primary in _BROKEN:
        return StoreFailed(f"{getattr(error, 'sqlite_errorname', 'SQLITE')}: {error}")
    return error


def remedy(error: BaseException) -> str:
    """What an operator does about a database that cannot be opened."""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return "end the other program's transaction"
    if isinstance(error, sqlite3.Error) and isinstance(fault(error), StoreUnavailable):
        return "make room on its disk, and let this user write to it"
    return "restore a backup, or name another file"
