"""Where our copies lie: the port, the keys, and the local directory. Buckets are in `buckets`.

Whatever has a key is whole: a file appears under it in one step, on stable storage, or not at all. It must not know jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, ParamSpec, Protocol, TypeVar

from service.errors import FileMissing, StorageUnavailable

P = ParamSpec("P")
T = TypeVar("T")

CHUNK_BYTES: Final = 256 * 1024  # that are read or written in one step
KINDS: Final = ("results", "thumbs", "inputs")
SPOOL: Final = ".spool"  # beside the files, so that a rename is enough
MARKER: Final = "remora-installation"  # the file that says whose all the others are
_SPOOLED: Final = re.compile(r"[0-9a-f]{16}([0-9a-f]{16})?")  # files on their way
_KEY: Final = re.compile(r"(results|thumbs|inputs)/[0-9a-f]{2}/[A-Za-z0-9_-]{1,80}\.[a-z0-9]{2,4}")
_RESULT_KEY: Final = re.compile(r"(?:results|thumbs)/[0-9a-f]{2}/(job_[0-9a-f-]{36})-([0-9]{1,5})-[0-9]+\.[a-z0-9]+")
_INPUT_KEY: Final = re.compile(r"inputs/[0-9a-f]{2}/(job_[0-9a-f-]{36})\.json")


@dataclass(frozen=True, slots=True)
class Kept:
    """A file as a listing shows it."""

    key: str
    modified_ms: int


class Storage(Protocol):
    """The port. Every method raises `StorageUnavailable` when the place does not answer, is full or refuses us."""

    spool: Path  # where files are written before they are put
    place: str  # a name that no other storage has

    async def put(self, key: str, file: Path | bytes, content_type: str) -> None:
        """Keep a file under a key that is new; a file of the spool is gone afterwards."""

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from `start` up to `end`; what is missing is told before the first of them.

        Raises:
            FileMissing: There is no such file.
        """

    async def delete(self, keys: Iterable[str]) -> None:
        """Remove files; those that are gone already are no fault, and one that cannot go does not keep the others."""

    async def link(self, key: str, life_s: int) -> str | None:
        """A URL that leads to the file without a key for so long; None where the place has none and we serve it."""

    def listing(self) -> AsyncIterator[list[Kept]]:
        """All files, some at a time; what cannot be listed is told behind all others."""

    async def of_job(self, job_id: str) -> list[str]:
        """The keys of all files of a job, those that no row knows too."""

    async def is_ours(self) -> bool:
        """Whether the place belongs to this installation; what belongs to nobody is marked as ours."""


def result_key(job_id: str, index: int, epoch: int, ending: str) -> str:
    """The key of a copy. Every claim has its own, so that a late owner never writes over another's file."""
    return f"results/{job_id[-2:]}/{job_id}-{index}-{epoch}.{ending}"


def thumb_key(key: str) -> str:
    """The key of a copy's thumbnail."""
    return f"thumbs/{key.removeprefix('results/').rpartition('.')[0]}.webp"


def input_key(job_id: str) -> str:
    """The key of a job's input."""
    return f"inputs/{job_id[-2:]}/{job_id}.json"


def owner_of(key: str) -> tuple[str, int | None] | None:
    """Which job, and which of its results, a key belongs to; None: it is not one of ours."""
    if match := _RESULT_KEY.fullmatch(key):
        return match[1], int(match[2])
    match = _INPUT_KEY.fullmatch(key)
    return (match[1], None) if match else None


def place_of(url: str) -> str:
    """The name of a storage: of its address a digest, which is short and tells nobody the address."""
    return hashlib.sha256(url.encode()).hexdigest()[:12]


def places_of(job_id: str) -> list[str]:
    """Where files of a job can lie."""
    return [f"{kind}/{job_id[-2:]}" for kind in KINDS]


def is_of(key: str, job_id: str) -> bool:
    """Whether a key is one of the job's."""
    owner = owner_of(key)
    return owner is not None and owner[0] == job_id


class LocalStorage:
    """A directory on this machine.

    Args:
        root: The directory.
        installation: Whose it is to be; empty: nobody asks.
        alone: Nobody else can mean this directory, so that another's mark is an old one.
    """

    def __init__(self, root: Path, installation: str = "", *, alone: bool = False) -> None:
        self._root = root
        self._installation = installation
        self._alone = alone
        self.spool = root / SPOOL
        self.place = place_of(f"file:{root.resolve()}")

    def prepare(self) -> bool:
        """Make the directory, and throw away what an earlier process left unfinished; False: it is another's.

        Raises:
            OSError: It cannot be made or written.
        """
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._claim():
            return False
        self.spool.mkdir(mode=0o700, exist_ok=True)
        clear_spool(self.spool)
        return True

    async def put(self, key: str, file: Path | bytes, content_type: str) -> None:
        """See `Storage`."""
        await _on_disk(self._put, self._path(key), file)

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """See `Storage`. The file is open from here on, so that it may be removed while it is read."""
        file = await _on_disk(self._open, self._path(key))
        return _pieces(file, start, end)

    async def delete(self, keys: Iterable[str]) -> None:
        """See `Storage`."""
        await _on_disk(self._delete, [self._path(key) for key in keys])

    async def link(self, key: str, life_s: int) -> str | None:
        """See `Storage`: we serve it."""
        return None

    async def listing(self) -> AsyncIterator[list[Kept]]:
        """See `Storage`."""
        failed: StorageUnavailable | None = None
        for directory in await _on_disk(self._directories):
            try:
                files = await _on_disk(self._files, directory)
            except StorageUnavailable as error:
                failed = failed or error
                continue
            yield files
        if failed is not None:
            raise failed

    async def of_job(self, job_id: str) -> list[str]:
        """See `Storage`."""
        return await _on_disk(self._of_job, job_id)

    async def is_ours(self) -> bool:
        """See `Storage`."""
        return await _on_disk(self._claim)

    def _claim(self) -> bool:
        path = self._root / MARKER
        if not self._installation:
            return True
        whose = path.read_text("utf-8", "replace").strip() if path.exists() else ""
        if whose not in {"", self._installation} and not self._alone:
            return False
        if whose != self._installation:
            path.unlink(missing_ok=True)
            _make_durable(path, f"{self._installation}\n".encode())
        return True

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            msg = f"{key!r} is no key"
            raise ValueError(msg)
        return self._root / key

    def _put(self, path: Path, file: Path | bytes) -> None:
        # The root itself is never made again: a disk may be away, and what comes then belongs on no other.
        for directory in (path.parent.parent, path.parent, self.spool):
            if not directory.is_dir():
                directory.mkdir(mode=0o700, exist_ok=True)
        source = file if isinstance(file, Path) else self.spool / secrets.token_hex(8)
        try:
            _make_durable(source, None if isinstance(file, Path) else file)
            source.replace(path)
        except OSError:
            source.unlink(missing_ok=True)
            raise
        _sync_directory(path.parent)

    @staticmethod
    def _open(path: Path) -> int:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    @staticmethod
    def _delete(paths: list[Path]) -> None:
        failed: OSError | None = None
        for path in paths:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def _directories(self) -> list[Path]:
        return sorted(each for kind in KINDS for each in (self._root / kind).glob("*") if each.is_dir())

    def _of_job(self, job_id: str) -> list[str]:
        found: list[str] = []
        for place in places_of(job_id):
            if (self._root / place).is_dir():
                found += [f"{place}/{each.name}" for each in os.scandir(self._root / place)]
        return [key for key in found if is_of(key, job_id)]

    def _files(self, directory: Path) -> list[Kept]:
        found = []
        for entry in os.scandir(directory):
            key = f"{directory.parent.name}/{directory.name}/{entry.name}"
            if _KEY.fullmatch(key):
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    found.append(Kept(key, int(entry.stat(follow_symlinks=False).st_mtime * 1000)))
        return found


def clear_spool(spool: Path) -> None:
    """Remove files that an earlier process left on their way, and nothing that has another name."""
    for path in spool.iterdir():
        if _SPOOLED.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)


def _make_durable(path: Path, data: bytes | None) -> None:
    flags = os.O_WRONLY | os.O_CLOEXEC if data is None else os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600)
    try:
        rest = memoryview(data or b"")
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_directory(path: Path) -> None:
    """A rename is durable only once its directory is."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


async def _pieces(fd: int, start: int, end: int) -> AsyncIterator[bytes]:
    try:
        while start < end:
            piece = await asyncio.to_thread(os.pread, fd, min(CHUNK_BYTES, end - start), start)
            if not piece:
                return
            start += len(piece)
            yield piece
    finally:
        os.close(fd)


async def _on_disk(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run it in a thread, and say in our words what the disk says."""
    try:
        return await asyncio.to_thread(work, *args, **kwargs)
    except FileNotFoundError as error:
        raise FileMissing("the file is not there") from error
    except OSError as error:
        raise StorageUnavailable(f"the directory of results cannot be used: {error.strerror}") from error
