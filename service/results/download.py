"""Getting one file from a host that nobody trusts: bounded in bytes, time and memory, and judged by what it is.

Nothing is kept here: a whole file lies in memory or in the spool, and its caller puts it away. It must not know jobs.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import re
import secrets
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from service.egress import Download, Files
from service.errors import EgressError, EgressRefused, StorageUnavailable
from service.fileurls import data_in, is_data_url, resolved, trimmed
from service.results.formats.sniff import TRUNCATED, WRONG_TYPE, Look, examine
from service.results.packed import Unpacker
from service.results.retry import DEAD_STATUSES, Missed
from service.results.storage import CHUNK_BYTES

TOTAL_S: Final = 600.0  # for a file, redirects included
STALL_S: Final = 30.0  # in which the host may say nothing
SLOW_AFTER_S: Final = 30.0  # from then on the host must have kept …
SLOWEST_BYTES_PER_S: Final = 32_768  # … this pace on the whole: who drips would hold a place for all of the deadline
MEMORY_BYTES: Final = 1 << 20  # larger files go to the spool
MAX_REDIRECTS: Final = 3  # of a result's link
_WHOLE: Final = frozenset({200, 203})
_PARTIAL: Final = 206
_ENCODED: Final = "encoded"  # what would come out of it nobody can say
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole file that may be kept; `file` is its bytes, or where it lies in the spool."""

    file: Path | bytes = field(repr=False)
    size_bytes: int
    sha256: str
    look: Look


class _TooLargeError(Exception):
    """The file is larger than is kept."""


@dataclass(slots=True)
class Downloader:
    """Fetches files; `spool` is where large ones are written."""

    files: Files
    spool: Path
    max_bytes: int
    total_s: float = TOTAL_S
    stall_s: float = STALL_S
    slow_after_s: float = SLOW_AFTER_S

    async def get(self, url: str) -> Fetched | Missed:
        """The file behind a URL of the provider's, or why there is none.

        Raises:
            StorageUnavailable: The spool cannot be written.
        """
        if is_data_url(url):
            return await self._inline(url)
        try:
            async with asyncio.timeout(self.total_s):
                return await self._follow(url)
        except EgressRefused as error:
            return Missed(error.reason if error.reason in {"address_forbidden", "url_invalid"} else "address_refused")
        except EgressError as error:
            return Missed(error.reason)
        except TimeoutError:
            return Missed("timeout")

    async def _follow(self, url: str) -> Fetched | Missed:
        """Redirects are followed a few times, each to be judged anew, and never from https to http."""
        for _ in range(MAX_REDIRECTS + 1):
            download = await self.files.fetch(url, timeout_s=self.total_s, stall_s=self.stall_s)
            try:
                if download.status not in _REDIRECTS:
                    return await self._read(download)
                target = _target(url, download.headers.get("location", ""))
            finally:
                download.close()
            if target is None:
                return Missed("url_invalid")
            url = target
        return Missed("too_many_redirects")

    async def _read(self, download: Download) -> Fetched | Missed:
        missed = _refused(download, self.max_bytes)
        if missed is not None:
            return missed
        body = _Body(self.spool, self.max_bytes)
        try:
            return await self._received(download, body)
        except _TooLargeError:
            return Missed("too_large")
        except zlib.error:
            return Missed(_ENCODED)
        finally:
            body.close()

    async def _received(self, download: Download, body: _Body) -> Fetched | Missed:
        unpacker = Unpacker(download.headers.get("content-encoding", ""))
        length, received = _length(download), 0
        began = asyncio.get_running_loop().time()
        more = True
        while more:
            piece = await download.read()
            more, received = bool(piece), received + len(piece)
            if received > self.max_bytes:
                raise _TooLargeError
            for part in unpacker.feed(piece):
                await body.add(part)
            took_s = asyncio.get_running_loop().time() - began
            if more and took_s > self.slow_after_s and received < took_s * SLOWEST_BYTES_PER_S:
                return Missed("too_slow")
        if (length is not None and length != received) or not unpacker.whole:
            return Missed(TRUNCATED)
        found = await body.judged(length_known=length is not None or unpacker.unpacks)
        return Missed(_ENCODED) if found == Missed(WRONG_TYPE) and unpacker.left_packed else found

    async def _inline(self, url: str) -> Fetched | Missed:
        data = await asyncio.to_thread(data_in, url)
        if data is None:
            return Missed("url_invalid")
        if len(data) > self.max_bytes:
            return Missed("too_large")
        return await asyncio.to_thread(_looked_at, data)


def _looked_at(data: bytes) -> Fetched | Missed:
    look = examine(io.BytesIO(data), len(data), length_known=True)
    if isinstance(look, str):
        return Missed(look, final=True)  # what stands in the answer itself is the same at every try
    return Fetched(data, len(data), hashlib.sha256(data).hexdigest(), look)


def _target(url: str, location: str) -> str | None:
    """Where a redirect leads; None: nowhere that is followed."""
    if not location:
        return None
    try:
        target = resolved(url, location)
    except ValueError:
        return None
    return None if _is_secure(url) and not _is_secure(target) else target


def _is_secure(url: str) -> bool:
    return trimmed(url)[:6].lower() == "https:"


def _refused(download: Download, max_bytes: int) -> Missed | None:
    status = download.status
    if status not in _WHOLE and not (status == _PARTIAL and _is_all(download.headers.get("content-range", ""))):
        asked = download.headers.get("retry-after", "")
        retry_after_s = float(asked) if re.fullmatch(r"[0-9]{1,6}", asked) else None
        return Missed(f"http_{status}", dead=status in DEAD_STATUSES, retry_after_s=retry_after_s)
    length = _length(download)
    return Missed("too_large") if length is not None and length > max_bytes else None


def _is_all(content_range: str) -> bool:
    """Whether a part that nobody asked for is the whole."""
    match = re.fullmatch(r"bytes 0-([0-9]{1,15})/([0-9]{1,15})", content_range.strip(), re.IGNORECASE)
    return match is not None and int(match[1]) + 1 == int(match[2])


def _length(download: Download) -> int | None:
    text = download.headers.get("content-length", "")
    return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else None


class _Body:
    """What has come of a file: in memory while it is small, then in the spool."""

    def __init__(self, spool: Path, max_bytes: int) -> None:
        self._spool = spool
        self._max_bytes = max_bytes
        self._waiting = bytearray()
        self._path: Path | None = None
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self.size = 0

    async def add(self, piece: bytes) -> None:
        """Take a piece."""
        self.size += len(piece)
        if self.size > self._max_bytes:
            raise _TooLargeError
        self._waiting += piece
        if len(self._waiting) >= (MEMORY_BYTES if self._file is None else CHUNK_BYTES):
            await self._flush()

    async def judged(self, *, length_known: bool) -> Fetched | Missed:
        """The file, if it is whole and one that is kept; see `examine`."""
        if self._file is not None:
            await self._flush()
            look = await asyncio.to_thread(examine, self._file, self.size, length_known=length_known)
        else:
            look = await asyncio.to_thread(self._examine, length_known=length_known)
        if isinstance(look, str):
            return Missed(look)
        file: Path | bytes = bytes(self._waiting) if self._path is None else self._path
        self._path = None  # it is the caller's now
        return Fetched(file, self.size, self._hash.hexdigest(), look)

    def close(self) -> None:
        """Close the file, and remove it if it is still ours."""
        if self._file is not None:
            self._file.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _examine(self, *, length_known: bool) -> Look | str:
        self._hash.update(self._waiting)
        return examine(io.BytesIO(self._waiting), self.size, length_known=length_known)

    async def _flush(self) -> None:
        try:
            if self._file is None:
                self._path = self._spool / secrets.token_hex(16)
                self._file = await asyncio.to_thread(_created, self._path)
            await asyncio.to_thread(self._write, self._file)
        except OSError as error:
            raise StorageUnavailable(f"the spool cannot be written: {error.strerror}") from error

    def _write(self, file: BinaryIO) -> None:
        self._hash.update(self._waiting)
        file.write(self._waiting)
        file.flush()
        self._waiting.clear()


def _created(path: Path) -> BinaryIO:
    """A new file of the spool, which is made again where it is gone; what it lies in is not: a disk may be away."""
    if not path.parent.is_dir():
        path.parent.mkdir(mode=0o700, exist_ok=True)
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w+b")
