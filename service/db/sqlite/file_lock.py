"""Keeps a second process away from a database. Owns the locks, and nothing of what is in the file.

The lock that counts is on the file itself, so that hard links, bind mounts and other names lead to the same one. It must not
meet SQLite's own locks, which are POSIX locks: those belong to the process and all go when it closes any descriptor of the
file. So this one is an open file description lock on a byte that SQLite never locks, and its descriptor is opened before SQLite
opens the file and closed after. The file beside the database (`.lock`) keeps versions away that know of nothing else, and is all
that there is where the kernel has no such locks (macOS).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from pathlib import Path
from typing import Final

from service.errors import StoreUnavailable

_FLOCK: Final = struct.Struct("@hhqqi0q")  # struct flock: type, whence, start, length, pid
_START: Final = 1 << 62  # beyond any database; SQLite locks bytes at 1 GiB
_HAS_INODE_LOCKS: Final = hasattr(fcntl, "F_OFD_SETLK")


class DatabaseLock:
    """The right to have a database open; the kernel gives it back when the process dies."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self.beside = database.with_name(database.name + ".lock")
        self._open: list[int] = []

    def acquire(self) -> None:
        """Take the lock. A database that is not there yet is not made: `make` does that.

        Raises:
            StoreUnavailable: Another process has it; the message says which.
        """
        try:
            self._lock_beside()
            if self.database.exists():
                self._lock_inode()
        except BaseException:
            self.release()
            raise

    def make(self) -> None:
        """Make the database's file, if there is none, so that only its owner can read it; its log takes the mode over.

        One that is there keeps its mode: an operator may have opened it for a backup.
        """
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.database, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            self._lock_inode()

    def release(self) -> None:
        """Give the lock back, after SQLite closed the file. The one beside stays: removing it would race with the next owner."""
        while self._open:
            os.close(self._open.pop())

    def _lock_beside(self) -> None:
        fd = self._keep(os.open(self.beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _in_use(self.database, os.pread(fd, 32, 0).decode(errors="replace").strip()) from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)

    def _lock_inode(self) -> None:
        if not _HAS_INODE_LOCKS:
            return
        fd = self._keep(os.open(self.database, os.O_RDWR | os.O_CLOEXEC))
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _request(os.getpid()))
        except (BlockingIOError, PermissionError) as error:  # either is said of a lock that another has
            raise _in_use(self.database, _holder(fd)) from error

    def _keep(self, fd: int) -> int:
        self._open.append(fd)
        return fd


def in_use(database: Path) -> bool:
    """Whether a process has the database open for itself; takes no lock, so that a start beside it is not refused."""
    if not _HAS_INODE_LOCKS:
        lock = DatabaseLock(database)
        if not lock.beside.exists():
            return False
        try:
            lock.acquire()
        except StoreUnavailable:
            return True
        lock.release()
        return False
    fd = os.open(database, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return bool(_holder(fd))
    finally:
        os.close(fd)


def _request(pid: int) -> bytes:
    # Such a lock belongs to no process, so that nobody could tell who has it: its length says it.
    return _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _START, pid, 0)


def _holder(fd: int) -> str:
    """The pid of the process that has the lock; empty where nobody has it."""
    kind, _, _, length, _ = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _request(1)))
    return "" if kind == fcntl.F_UNLCK else str(length)


def _in_use(database: Path, holder: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"{database} is in use by another Remora process (pid {holder or 'unknown'}); stop that one first"
    )
