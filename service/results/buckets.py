"""Copies in a bucket (S3, Google Cloud Storage, Azure) through obstore; credentials come from the usual environment variables.

The requests go where the operator's own setting says, and so past the gate that stands before what others name.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import obstore
import structlog
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store, from_url

from service.errors import FileMissing, SettingsInvalid, StorageUnavailable
from service.results.storage import (
    CHUNK_BYTES,
    MARKER,
    Kept,
    LocalStorage,
    Storage,
    clear_spool,
    is_of,
    place_of,
    places_of,
)

_REQUEST_S: Final = 60  # seconds that one request may take; a file goes up in parts
_CONNECT_S: Final = 5
_RETRIES: Final = 2
_RETRY_S: Final = 20  # seconds in which a request is repeated; the capture itself comes back later
_REFUSALS: Final = 3  # files that cannot be removed, of one call
_LISTED: Final = 500  # files of one step of a listing
_FAULTS: Final = (BaseError, OSError, ValueError)  # what obstore raises

_ANOTHERS: Final = (
    "REMORA_STORAGE_URL={url}: belongs to another installation of Remora; give each a directory or a prefix of its own "
    "(if this database is the one that those files belong to, remove the file {marker} there)"
)

Bucket = S3Store | GCSStore | AzureStore

_log = structlog.get_logger(__name__)


class BucketStorage:
    """A bucket, or a prefix in one.

    Args:
        bucket: Where.
        spool: A directory on this machine for files on their way.
        installation: Whose it is to be; empty: nobody asks.
        url: The address, which names it.
    """

    def __init__(self, bucket: Bucket, spool: Path, installation: str = "", url: str = "") -> None:
        self._bucket = bucket
        self.place = place_of(url)
        self._installation = installation
        self.spool = spool

    def prepare(self) -> bool:
        """Make the spool, and throw away what an earlier process left in it; False: the bucket is another's.

        A bucket that does not answer now is no reason not to start: before anything is removed it is asked again.
        """
        self.spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        clear_spool(self.spool)
        try:
            return self._claim()
        except _FAULTS as error:
            _log.warning("storage_unavailable", error=str(_unavailable(error)))
            return True

    async def put(self, key: str, file: Path | bytes, content_type: str) -> None:
        """See `Storage`. A presigned link can add no header, so the object itself holds what has to be said."""
        attributes: dict[Any, str] = {
            "Content-Type": content_type,
            "Content-Disposition": f'attachment; filename="{key.rpartition("/")[2]}"',
            "Cache-Control": "private, no-cache",
        }
        try:
            await obstore.put_async(self._bucket, key, file, attributes=attributes, max_concurrency=2)
        except _FAULTS as error:
            raise _unavailable(error) from error
        if isinstance(file, Path):
            await asyncio.to_thread(file.unlink, missing_ok=True)

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """See `Storage`."""
        try:
            found = await obstore.get_async(self._bucket, key, options={"range": (start, end)})
        except FileNotFoundError as error:
            raise FileMissing("the file is not in the bucket") from error
        except _FAULTS as error:
            raise _unavailable(error) from error
        return _pieces(found)

    async def delete(self, keys: Iterable[str]) -> None:
        """See `Storage`. Each try may take as long as a bucket that is away: after some failures no further is made."""
        failures: list[Exception] = []
        for key in keys:
            try:
                await obstore.delete_async(self._bucket, key)
            except FileNotFoundError:
                continue
            except _FAULTS as error:
                failures.append(error)
                if len(failures) == _REFUSALS:
                    break
        if failures:
            raise _unavailable(failures[0]) from failures[0]

    async def link(self, key: str, life_s: int) -> str | None:
        """See `Storage`. Without credentials that can sign (a machine's role at some clouds) we serve it ourselves."""
        try:
            return await obstore.sign_async(self._bucket, "GET", key, timedelta(seconds=life_s))
        except _FAULTS:
            return None

    async def listing(self) -> AsyncIterator[list[Kept]]:
        """See `Storage`."""
        try:
            async for some in obstore.list(self._bucket, chunk_size=_LISTED):
                found = [Kept(str(each["path"]), int(each["last_modified"].timestamp() * 1000)) for each in some]
                yield [each for each in found if each.key != MARKER]
        except _FAULTS as error:
            raise _unavailable(error) from error

    async def of_job(self, job_id: str) -> list[str]:
        """See `Storage`. A prefix of a listing ends with a part of the path, so that it begins behind those before the job."""
        found: list[str] = []
        try:
            for place in places_of(job_id):
                first, last = f"{place}/{job_id}", f"{place}/{job_id}~"
                async for some in obstore.list(self._bucket, place, offset=first, chunk_size=_LISTED):
                    keys = [str(each["path"]) for each in some]
                    found += [key for key in keys if is_of(key, job_id)]
                    if keys and keys[-1] > last:
                        break
        except _FAULTS as error:
            raise _unavailable(error) from error
        return found

    async def is_ours(self) -> bool:
        """See `Storage`."""
        try:
            return await asyncio.to_thread(self._claim)
        except _FAULTS as error:
            raise _unavailable(error) from error

    def _claim(self) -> bool:
        if not self._installation:
            return True
        try:
            whose = bytes(obstore.get(self._bucket, MARKER).bytes()).decode(errors="replace").strip()
        except FileNotFoundError:
            obstore.put(
                self._bucket, MARKER, f"{self._installation}\n".encode(), attributes={"Content-Type": "text/plain"}
            )
            return True
        return whose == self._installation


async def _pieces(found: obstore.GetResult) -> AsyncIterator[bytes]:
    try:
        async for piece in found.stream(min_chunk_size=CHUNK_BYTES):
            yield bytes(piece)
    except _FAULTS as error:
        raise _unavailable(error) from error


def _unavailable(error: Exception) -> StorageUnavailable:
    # obstore's messages hold the whole request, with its host and sometimes its signature.
    return StorageUnavailable(f"the bucket of results cannot be used ({type(error).__name__})")


def open_storage(url: str | None, spool: Path, installation: str) -> Storage | None:
    """The place that the setting names; None: results are not copied.

    Args:
        url: As `REMORA_STORAGE_URL`, checked.
        spool: Where files on their way to a bucket are written; the directory that lies beside it by default is ours alone.
        installation: Whose the place is to be: two would take each other's files for left behind.

    Raises:
        SettingsInvalid: It cannot be used, or is another's.
    """
    if url is None:
        return None
    try:
        if url.startswith("file:"):
            root = Path(url.removeprefix("file:"))
            alone = root.resolve() == spool.with_suffix(".results").resolve()
            storage: LocalStorage | BucketStorage = LocalStorage(root, installation, alone=alone)
        else:
            storage = BucketStorage(_bucket(url), spool, installation, url.rstrip("/"))
        ours = storage.prepare()
    except _FAULTS as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise SettingsInvalid([f"REMORA_STORAGE_URL={url}: cannot be used ({reason})"]) from error
    if not ours:
        raise SettingsInvalid([_ANOTHERS.format(url=url, marker=MARKER)])
    return storage


def _bucket(url: str) -> Bucket:
    """The store; an endpoint without TLS is used only where the operator named one so."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL", os.environ.get("AWS_ENDPOINT", ""))
    options: dict[str, Any] = {
        "timeout": f"{_REQUEST_S}s",
        "connect_timeout": f"{_CONNECT_S}s",
        "user_agent": "remora",
        "allow_http": endpoint.startswith("http://"),
    }
    retry: dict[str, Any] = {"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_RETRY_S)}
    store = from_url(url, client_options=options, retry_config=retry)  # type: ignore[call-overload]  # each cloud has its own overload
    if not isinstance(store, Bucket):
        raise ValueError("no bucket")  # noqa: TRY004 - the setting has a wrong value, nothing has a wrong type
    return store
