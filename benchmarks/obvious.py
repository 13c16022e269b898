"""The obvious build of the same path, for comparison: Litestar handler, SQLModel session and commit, httpx client.

A callback is looked up, the job completed and its event and delivery written in one session and commit; the event is
signed and posted; the attempt is recorded in a second session and commit. SQLite in WAL with synchronous=FULL, one lock
around each session because most of concurrent ones fail with "database is locked". It answers 200 after all that.
Run by `benchmarks.path`: `python -m benchmarks.obvious --core N --subscriber URL --database FILE --jobs N`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
import uvloop
from litestar import Litestar, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from benchmarks.subject import arguments, listening_socket

SECRET = b"a secret of the obvious build"


class Job(SQLModel, table=True):
    id: str = Field(primary_key=True)
    token: str = Field(unique=True)
    number: str
    status: str
    prompt: str
    callback_url: str
    results: str = "[]"


class Event(SQLModel, table=True):
    id: str = Field(primary_key=True)
    job_id: str = Field(foreign_key="job.id", index=True)
    type: str
    body: str


class Delivery(SQLModel, table=True):
    id: str = Field(primary_key=True)
    event_id: str = Field(foreign_key="event.id", index=True)
    url: str
    status: str
    attempts: int = 0
    status_code: int | None = None


def _event_of(job: Job, urls: list[str]) -> str:
    told = {
        "id": job.id,
        "status": job.status,
        "metadata": {"number": job.number},
        "input": {"prompt": job.prompt},
        "results": [{"index": index, "url": url} for index, url in enumerate(urls)],
    }
    return json.dumps({"type": "job.completed", "timestamp": time.time(), "data": {"seq": 4, "job": told}})


def _signed(event_id: str, body: bytes) -> dict[str, str]:
    now = str(int(time.time()))
    digest = hmac.digest(SECRET, f"{event_id}.{now}.".encode() + body, hashlib.sha256)
    return {
        "content-type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": now,
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
    }


class Obvious:
    """The whole service, as it is written when nobody measures."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._client = httpx.AsyncClient(trust_env=False)
        self._lock = asyncio.Lock()

    async def complete(self, token: str, data: dict[str, Any]) -> None:
        event_id, delivery_id = f"evt_{uuid.uuid4()}", f"dlv_{uuid.uuid4()}"
        async with self._lock, AsyncSession(self._engine) as session:
            job = (await session.exec(select(Job).where(Job.token == token))).first()
            if job is None:
                raise NotFoundException
            urls = data["data"]["resultUrls"]
            job.status, job.results = "completed", json.dumps(urls)
            body, url = _event_of(job, urls), job.callback_url
            session.add(job)
            session.add(Event(id=event_id, job_id=job.id, type="job.completed", body=body))
            await session.flush()
            session.add(Delivery(id=delivery_id, event_id=event_id, url=url, status="pending"))
            await session.commit()
        raw = body.encode()
        sent = await self._client.post(url, content=raw, headers=_signed(event_id, raw))
        async with self._lock, AsyncSession(self._engine) as session:
            delivery = await session.get_one(Delivery, delivery_id)
            delivery.attempts, delivery.status_code = 1, sent.status_code
            delivery.status = "delivered" if sent.is_success else "pending"
            session.add(delivery)
            await session.commit()

    @asynccontextmanager
    async def lifespan(self, _: Litestar) -> AsyncIterator[None]:
        yield
        await self._client.aclose()
        await self._engine.dispose()


def _engine(database: Path) -> AsyncEngine:
    engine = create_async_engine(f"sqlite+aiosqlite:///{database}")

    @event.listens_for(engine.sync_engine, "connect")
    def _pragmas(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "busy_timeout = 5000", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    return engine


async def _seed(engine: AsyncEngine, jobs: int, subscriber: str) -> None:
    """Jobs whose callbacks are awaited, the token of each being its number."""
    async with engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.create_all)
    async with AsyncSession(engine) as session:
        for number in range(jobs):
            prompt = f"A cute cat wearing a space helmet, number {number}"
            session.add(
                Job(
                    id=f"job_{uuid.uuid4()}",
                    token=str(number),
                    number=str(number),
                    status="running",
                    prompt=prompt,
                    callback_url=subscriber,
                )
            )
        await session.commit()


async def _main(database: Path, jobs: int, subscriber: str) -> None:
    engine = _engine(database)
    await _seed(engine, jobs, subscriber)
    build = Obvious(engine)

    @post("/callbacks/{token:str}", status_code=200)
    async def callback(token: FromPath[str], data: dict[str, Any]) -> None:
        await build.complete(token, data)

    app = Litestar([callback], lifespan=[build.lifespan], openapi_config=None, logging_config=None)
    listening = listening_socket()
    print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    config = uvicorn.Config(app, access_log=False, log_config=None, lifespan="on", timeout_keep_alive=30)
    await uvicorn.Server(config).serve([listening])


if __name__ == "__main__":
    given = arguments(__doc__)
    uvloop.run(_main(given.database, given.jobs, given.subscriber))
