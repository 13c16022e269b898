"""Large inputs of jobs in the storage of results; see `jobs.inputs.Vault`."""

from __future__ import annotations

from dataclasses import dataclass

from service.results.storage import Storage, input_key


@dataclass(frozen=True, slots=True)
class StorageVault:
    """Keeps inputs beside results."""

    storage: Storage

    @property
    def place(self) -> str:
        """See `Vault`."""
        return self.storage.place

    async def put(self, job_id: str, data: bytes) -> str:
        """See `Vault`."""
        key = input_key(job_id)
        await self.storage.put(key, data, "application/json")
        return key

    async def get(self, key: str, size_bytes: int) -> bytes:
        """See `Vault`."""
        return b"".join([piece async for piece in await self.storage.read(key, 0, size_bytes)])

    async def drop(self, key: str) -> None:
        """See `Vault`."""
        await self.storage.delete([key])
