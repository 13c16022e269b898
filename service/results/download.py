"""Getting one file from a host that nobody trusts: bounded in bytes, time and memory, and judged by what it is.

Nothing is kept here: a whole file lies in memory or in the spool, and its caller puts it away. It must not know jobs.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import io
import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import urljoin, urlsplit

from service.egress import Download, Files
from service.errors import EgressError, EgressRefused, StorageUnavailable
from service.results.retry import DEAD_STATUSES, Missed
from service.results.sniff import Look, examine
from service.results.storage import CHUNK_BYTES

TOTAL_S: Final = 600.0  # for a file, redirects included
STALL_S: Final = 30.0  # in which the host may say nothing
SLOW_AFTER_S: Final = 30.0  # from then on the host must have kept …
SLOWEST_BYTES_PER_S: Final = 32_768  # … this pace on the whole: who drips would hold a place for all of the deadline
MEMORY_BYTES: Final = 1 << 20  # larger files go to the spool
MAX_REDIRECTS: Final = 3
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_DATA_URL: Final = re.compile(r"data:[^,]{0,256};base64,", re.IGNORECASE)


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
        if url[:5].lower() == "data:":
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
        began = asyncio.get_running_loop().time()
        try:
            while piece := await download.read():
                await body.add(piece)
                took_s = asyncio.get_running_loop().time() - began
                if took_s > self.slow_after_s and body.size < took_s * SLOWEST_BYTES_PER_S:
                    return Missed("too_slow")
            return await body.judged(_length(download))
        except _TooLargeError:
            return Missed("too_large")
        finally:
            body.close()

    async def _inline(self, url: str) -> Fetched | Missed:
        match = _DATA_URL.match(url)
        if match is None:
            return Missed("url_invalid")
        try:
            data = await asyncio.to_thread(base64.b64decode, url[match.end() :], validate=True)
        except (binascii.Error, ValueError):  # ValueError: not ASCII
            return Missed("url_invalid")
        if len(data) > self.max_bytes:
            return Missed("too_large")
        return await asyncio.to_thread(_looked_at, data)


def _looked_at(data: bytes) -> Fetched | Missed:
    look = examine(io.BytesIO(data), len(data), length_known=True)
    if isinstance(look, str):
        return Missed(look)
    return Fetched(data, len(data), hashlib.sha256(data).hexdigest(), look)


def _target(url: str, location: str) -> str | None:
    if not location:
        return None
    try:
        target = urljoin(url, location)
        here, there = urlsplit(url).scheme.lower(), urlsplit(target).scheme.lower()
    except ValueError:
        return None
    return target.partition("#")[0] if there == "https" or (here == there == "http") else None


def _refused(download: Download, max_bytes: int) -> Missed | None:
    status = download.status
    if status != 200:
        asked = download.headers.get("retry-after", "")
        retry_after_s = float(asked) if re.fullmatch(r"[0-9]{1,6}", asked) else None
        return Missed(f"http_{status}", dead=status in DEAD_STATUSES, retry_after_s=retry_after_s)
    if download.headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
        return Missed("encoded")  # asked for as it is; what would come out of it nobody can say
    length = _length(download)
    return Missed("too_large") if length is not None and length > max_bytes else None


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

    async def judged(self, length: int | None) -> Fetched | Missed:
        """The whole file, if it is whole and one that is kept."""
        if length is not None and length != self.size:
            return Missed("truncated")
        if self._file is not None:
            await self._flush()
            look = await asyncio.to_thread(examine, self._file, self.size, length_known=length is not None)
        else:
            look = await asyncio.to_thread(self._examine, length_known=length is not None)
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
