"""Large inputs (base64 pictures) lie apart from their jobs: in the storage of results, or in a table where there is none.

A job's row then never carries megabytes. What is kept goes with the job. It must not know where the storage is.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec
import structlog

from service.db.reader import Reader
from service.errors import FileMissing, StorageUnavailable
from service.jobs import queries
from service.jobs.row import JobRow, about
from service.offload import QUICK_BYTES, beside
from service.providers.documents.longtexts import parsed

KEPT: Final = "kept"  # stands in `jobs.input_full` where the input lies apart
TO_STORAGE_BYTES: Final = 64 * 1024  # smaller ones are better off in the database
IN_THREAD_BYTES: Final = 256 * 1024  # from here on a digest takes longer than a thread
LONG_BYTES: Final = 1 << 10  # of a text that is decoded by itself
PUT_S: Final = 5.0  # seconds for which a caller waits for the storage; then the database takes it

_log = structlog.get_logger(__name__)


class Vault(Protocol):
    """Where large inputs go."""

    @property
    def place(self) -> str:
        """The name of the storage."""

    async def put(self, job_id: str, data: bytes) -> str:
        """Keep a job's input; returns the key. Raises StorageUnavailable."""

    async def get(self, key: str, size_bytes: int) -> bytes:
        """An input that was kept. Raises StorageUnavailable, or FileMissing."""

    async def drop(self, key: str) -> None:
        """Remove an input. Raises StorageUnavailable."""


@dataclass(frozen=True, slots=True)
class KeptInput:
    """An input as it lies apart: its bytes, or the key of its file."""

    job_id: str
    sha256: str
    size_bytes: int
    body: bytes | None = field(default=None, repr=False)
    storage_key: str | None = None
    storage_place: str | None = None


@dataclass(slots=True)
class Inputs:
    """Puts inputs apart and together again; `vault` None: everything lies in the database."""

    reader: Reader
    vault: Vault | None = None

    async def keep(self, job: JobRow, data: bytes) -> KeptInput:
        """Put a new job's input apart; what the storage does not take the database does."""
        digest = await _digest(data)
        if self.vault is not None and len(data) >= TO_STORAGE_BYTES:
            try:
                async with asyncio.timeout(PUT_S):
                    key = await self.vault.put(job.id, data)
                return KeptInput(job.id, digest, len(data), storage_key=key, storage_place=self.vault.place)
            except (StorageUnavailable, TimeoutError) as error:
                _log.warning("input_kept_in_database", **about(job), reason=str(error) or "the storage did not answer")
        return KeptInput(job.id, digest, len(data), body=data)

    async def let_go(self, kept: KeptInput | None) -> None:
        """Remove the file of an input whose job was not taken; where the storage is away, it is found later."""
        if self.vault is None or kept is None or kept.storage_key is None:
            return
        try:
            async with asyncio.timeout(PUT_S):
                await self.vault.drop(kept.storage_key)
        except (StorageUnavailable, TimeoutError):
            _log.warning("input_left_in_storage", job=kept.job_id)

    async def load(self, job: JobRow) -> dict[str, Any]:
        """A job's input as it was sent.

        Raises:
            StorageUnavailable: It cannot be had now.
            FileMissing: It is gone.
        """
        text: str | bytes = job.input_full or job.input
        if text == KEPT:
            text = await self._kept(job.id)
        return await beside(len(text) > QUICK_BYTES, _decoded, text)

    async def _kept(self, job_id: str) -> bytes:
        row = await queries.kept_input(self.reader, job_id)
        if row is None or (row["body"] is None and self.vault is None):
            raise FileMissing("the job's input is not where it should be")
        if row["body"] is not None:
            return bytes(row["body"])
        assert self.vault is not None  # noqa: S101 - asked above
        data = await self.vault.get(row["storage_key"], row["size_bytes"])
        if await _digest(data) != row["sha256"]:
            raise FileMissing("the job's input is not what was kept")
        return data


def _decoded(text: str | bytes) -> dict[str, Any]:
    if len(text) <= QUICK_BYTES:
        return msgspec.json.decode(text)  # type: ignore[no-any-return]
    data = text.encode() if isinstance(text, str) else text
    return parsed(data, msgspec.json.decode, long_bytes=LONG_BYTES, most_left_bytes=len(data))  # type: ignore[no-any-return]


async def _digest(data: bytes) -> str:
    return (await beside(len(data) >= IN_THREAD_BYTES, hashlib.sha256, data)).hexdigest()
