"""A served application: the real service over a real file, asked over a real socket; and ways to put it into a state."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest_asyncio

from service.app import Service
from service.db.transaction import Tx
from service.db.writer import Command
from service.environment import load
from tests import postgres
from tests.providers.scripted import found

ADMIN_KEY = "rmk_an-admin-key-for-tests-only"
PICTURE = {"provider": "sandbox", "operation": "generate", "input": {"prompt": "A cat"}}
#: All places at this provider are taken, as far as the service knows: such jobs stay queued.
STUCK = {
    "provider": "apimodels",
    "operation": "generate",
    "input": {"model": "sparkpix", "prompt": "A cute cat wearing a space helmet", "aspect_ratio": "16:9"},
}


@dataclass(frozen=True, slots=True)
class Sql(Command[None]):
    """A statement of a test, through the service's own writer, since nobody else may write."""

    statement: str
    params: Mapping[str, Any]


async def _handle_sql(tx: Tx, commands: Sequence[Sql]) -> list[None]:
    for command in commands:
        tx.write(command.statement, [command.params])
    return [None for _ in commands]


@dataclass(slots=True)
class Served:
    """What a test asks, and what it reaches behind it."""

    service: Service
    client: httpx.AsyncClient  # with the admin key
    stranger: httpx.AsyncClient  # without a key

    async def sql(self, statement: str, **params: Any) -> None:
        """Change the store behind the API's back."""
        await self.service._base.store.writer.run(Sql(statement, params))

    async def rows(self, sql: str, **params: Any) -> list[dict[str, Any]]:
        """What is stored."""
        return [dict(row) for row in await self.service._base.store.reader.rows(sql, params)]

    async def take(self, body: Mapping[str, Any] = STUCK, **more: Any) -> dict[str, Any]:
        """A job, as it was taken."""
        answer = await self.client.post("/v1/jobs", json={**body, **more})
        assert answer.status_code == 202, answer.text
        return answer.json()  # type: ignore[no-any-return]

    async def completed(self, **more: Any) -> dict[str, Any]:
        """A job that is completed, with a picture."""
        answer = await self.client.post("/v1/jobs", json={**PICTURE, **more}, headers={"Prefer": "wait=30"})
        assert answer.status_code == 200, answer.text
        return answer.json()  # type: ignore[no-any-return]

    async def count(self) -> int:
        """How many jobs there are, of all accounts."""
        [row] = await self.rows("SELECT count(*) AS n FROM jobs")
        return int(row["n"])

    async def account(self, *scopes: str) -> httpx.AsyncClient:
        """A client of an account of its own, with these scopes or all that an account has."""
        made = await self.client.post("/v1/accounts", json={"name": "other"})
        assert made.status_code == 201, made.text
        key = made.json()["key"]["secret"]
        client = self.keyed(key)
        if scopes:
            body = {"name": "some", "scopes": scopes, "account_id": made.json()["id"]}
            await client.aclose()
            answer = await self.client.post("/v1/keys", json=body)
            client = self.keyed(answer.json()["secret"])
        return client

    def keyed(self, key: str) -> httpx.AsyncClient:
        """A client with this key; the test closes it."""
        return httpx.AsyncClient(
            base_url=self.service.url, headers={"Authorization": f"Bearer {key}"}, timeout=60, trust_env=False
        )


@asynccontextmanager
async def serve(directory: Path, **more: str) -> AsyncIterator[Served]:
    """Start a service of one's own with further settings."""
    environment = (
        postgres.settings_of(directory)
        | {
            "REMORA_PORT": "0",
            "REMORA_ADMIN_KEY": ADMIN_KEY,
            "REMORA_EGRESS_ALLOW": "127.0.0.0/8",
            "REMORA_STORAGE_URL": "none",  # a link leads where the provider's word leads, whatever comes of a copy
            "REMORA_PROVIDERS__APIMODELS__API_KEY": "sk-test",
            "REMORA_PROVIDERS__APIMODELS__BASE_URL": "http://127.0.0.1:9",
        }
        | more
    )
    service = await Service.open(load(environment, directory))
    try:
        service._base.store.writer.handle(Sql, _handle_sql)  # type: ignore[arg-type]
        found(service.registry, "apimodels").submits.refused(
            86_400
        )  # nothing is sent: jobs stay as the tests make them
        await service.listen()
        near = service.url.replace("0.0.0.0", "127.0.0.1")
        async with (
            httpx.AsyncClient(
                base_url=near,
                headers={"Authorization": f"Bearer {ADMIN_KEY}"},
                timeout=60,
                trust_env=False,
            ) as client,
            httpx.AsyncClient(base_url=near, timeout=60, trust_env=False) as stranger,
        ):
            yield Served(service, client, stranger)
    finally:
        await service.close()


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """A service with the settings of a test."""
    async with serve(tmp_path) as running:
        yield running
