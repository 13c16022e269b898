"""An open store with the commands of accounts, under a virtual clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest_asyncio

from service.accounts import accounts, bootstrap
from service.accounts.accounts import AccountRow, CreateAccount, prefix_of
from service.accounts.bootstrap import AdminKey, ensure_default
from service.accounts.keys import Keys, KeyText, new_key
from service.accounts.secrets import new_sealed
from service.clock import SeededRandomness, VirtualClock
from service.db.opening import SQLiteStore, open_store
from service.ids import Ids
from service.schemas.words import Scope


@dataclass(slots=True)
class Books:
    """The store with everything that accounts need."""

    store: SQLiteStore
    keys: Keys
    clock: VirtualClock
    randomness: SeededRandomness
    ids: Ids

    async def account(self, name: str = "shop", *scopes: str) -> tuple[AccountRow, KeyText, str]:
        """An account with its first key and its signing secret in the clear."""
        account_id, key = self.ids.new("acc"), new_key(self.randomness)
        secret, sealed = new_sealed(self.store.box, self.randomness, account_id)
        given = scopes or (Scope.JOBS_READ.value,)
        command = CreateAccount(
            account_id, name, "none", sealed, prefix_of(secret), self.ids.new("key"), key, tuple(given)
        )
        account, _ = await self.store.writer.run(command)
        return account, key, secret

    async def start(self, given: str | None = None) -> AdminKey:
        """What a start of the service does."""
        return await ensure_default(
            writer=self.store.writer,
            reader=self.store.reader,
            box=self.store.box,
            ids=self.ids,
            randomness=self.randomness,
            database=self.store.path,
            given=given,
        )


@pytest_asyncio.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    """A fresh store."""
    clock, randomness = VirtualClock(), SeededRandomness(1)
    store = await open_store(tmp_path / "remora.db", None, clock, randomness)
    keys = Keys(store.reader, store.writer, clock)
    accounts.register(store.writer)
    bootstrap.register(store.writer)
    store.writer.start()
    try:
        yield Books(store, keys, clock, randomness, Ids(clock, randomness))
    finally:
        await keys.close()
        await store.close()
