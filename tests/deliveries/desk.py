"""A store with everything that subscriptions need, without network: what is to be sent is caught at the lanes."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.accounts.secrets import new_sealed
from service.clock import SeededRandomness, VirtualClock
from service.db.inspection.invariants import breaches
from service.db.keyring import open_box
from service.db.migrate import upgrade
from service.db.opening import SQLiteStore, open_store
from service.db.sealing import SecretBox
from service.db.sqlite.file_lock import DatabaseLock
from service.db.sqlite.inline_store import InlineConnection, InlineReader
from service.db.transaction import Tx
from service.db.writer import Command, Writer
from service.deliveries import store as delivery_store
from service.deliveries.fanout import Fanout, Outgoing
from service.deliveries.fanout_store import WriteFanoutPart
from service.deliveries.lanes.lanes import Lanes
from service.deliveries.lanes.queue import Sending
from service.deliveries.subscribing.changes import Changes
from service.deliveries.subscribing.subscribe import Subscribe
from service.egress.door import Door
from service.ids import Ids
from service.schemas.subscription_schemas import SubscriptionRequest, SubscriptionWithSecretView
from service.subscriptions.destinations import DestinationCache
from service.subscriptions.snapshots import Destination

OURS = "acc_0199a000-0000-7000-8000-000000000001"
THEIRS = "acc_0199a000-0000-7000-8000-000000000002"
NEVER_MADE = "sub_0199a000-0000-7000-8000-00000000000f"
URL = "https://shop.example/hooks"


@dataclass(frozen=True, slots=True)
class Publish(Command[str]):
    """Write an event of a job and fan it out, as the tracker does; `fail` breaks the transaction afterwards. Answered with its id."""

    account_id: str
    event_type: str = "job.completed"
    provider: str | None = "apimodels"
    operation: str | None = "generate"
    tags: frozenset[str] = frozenset()
    results_expire_in_s: int | None = None
    callback_url: str | None = None
    numbered: bool = True  # False: as on an engine that numbers after the commit
    fail: bool = False


@dataclass(frozen=True, slots=True)
class Backlog(Command[None]):
    """Put deliveries into the store, for a subscription, or for a URL into the lane that is named."""

    lane: str
    count: int
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Look(Command[dict[str, list[Destination]]]):
    """What the fan-out would see."""

    account_id: str


@dataclass(slots=True)
class Desk:
    """What a test drives and looks at."""

    store: SQLiteStore
    clock: VirtualClock
    ids: Ids
    cache: DestinationCache
    fanout: Fanout
    subscribe: Subscribe
    sent: list[Sending]  # caught at the lanes; it stays pending, as if no answer came

    async def make(self, account_id: str = OURS, **fields: Any) -> SubscriptionWithSecretView:
        """A new subscription as it is shown to its maker."""
        return await self.subscribe.create(account_id, SubscriptionRequest.read({"url": URL} | fields))

    async def publish(self, event_type: str = "job.completed", *, account_id: str = OURS, **more: Any) -> list[str]:
        """Publish an event; the subscriptions that it was sent to from memory."""
        before = len(self.sent)
        await self.store.writer.run(Publish(account_id, event_type, **more))
        await self.fanout.lanes.settle()
        return [str(each.subscription_id) for each in self.sent[before:]]

    async def backlog(self, lane: str, count: int, url: str | None = None) -> None:
        """So many further deliveries of the newest event for a subscription (or URL), due now and nobody's."""
        await self.store.writer.run(Backlog(lane, count, url))

    async def look(self, account_id: str = OURS) -> list[Destination]:
        """The enabled destinations, through a transaction."""
        return (await self.store.writer.run(Look(account_id)))[account_id]

    def rows(self, sql: str, *params: object) -> list[Any]:
        """What another process would read now."""
        with contextlib.closing(sqlite3.connect(f"file:{self.store.path}?mode=ro", uri=True)) as connection:
            return connection.execute(sql, params).fetchall()

    async def handle_publish(self, tx: Tx, commands: Sequence[Publish]) -> list[str | Exception]:
        """The writer's handler for `Publish`."""
        made: list[str | Exception] = []
        for command in commands:
            event = Outgoing(
                event_id=self.ids.new("evt"),
                account_id=command.account_id,
                job_id=None,
                type=command.event_type,
                at=tx.now_ms,
                body=b"{}",
                provider=command.provider,
                operation=command.operation,
                tags=command.tags,
                callback_url=command.callback_url,
                results_expire_at=None
                if command.results_expire_in_s is None
                else tx.now_ms + command.results_expire_in_s * 1000,
            )
            tx.write(
                "INSERT INTO events (id, account_id, seq, type, source, at, pos, body) "
                "VALUES (:id, :account, 1, :type, 'api', :at, :pos, x'7b7d')",
                [
                    {
                        "id": event.event_id,
                        "account": event.account_id,
                        "type": event.type,
                        "at": event.at,
                        "pos": tx.number() if command.numbered else None,
                    }
                ],
            )
            await self.fanout.add(tx, [event])
            made.append(event.event_id)
            if command.fail:
                msg = "this transaction is rolled back"
                raise RuntimeError(msg)
        return made

    async def handle_backlog(self, tx: Tx, commands: Sequence[Backlog]) -> list[Exception | None]:
        """The writer's handler for `Backlog`."""
        for command in commands:
            [event] = await tx.rows("SELECT id, account_id, type FROM events ORDER BY pos DESC LIMIT 1", {})
            row = {
                "event_id": event["id"],
                "account_id": event["account_id"],
                "job_id": None,
                "type": event["type"],
                "subscription_id": command.lane if command.url is None else None,
                "lane": command.lane,
                "url": command.url,
                "status": "pending",
                "reason": None,
                "created_at": tx.now_ms,
                "give_up_at": None,
                "due_at": tx.now_ms,
                "finished_at": None,
                "lease_owner": None,
                "lease_until": None,
                "lease_epoch": 0,
            }
            delivery_store.insert(tx, [row | {"id": self.ids.new("dlv")} for _ in range(command.count)])
            lane = {"lane": command.lane, "account_id": event["account_id"], "due_at": tx.now_ms}
            delivery_store.wake_lanes(tx, [lane])
        return [None for _ in commands]

    async def handle_look(self, tx: Tx, commands: Sequence[Look]) -> list[dict[str, list[Destination]] | Exception]:
        """The writer's handler for `Look`."""
        return [
            {each: known.enabled.all for each, known in (await self.cache.of(tx, {command.account_id})).items()}
            for command in commands
        ]


def _two_accounts(path: Path, box: SecretBox, randomness: SeededRandomness) -> None:
    accounts = [(each, each, new_sealed(box, randomness, each)[1]) for each in (OURS, THEIRS)]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executemany(
            "INSERT INTO accounts (id, name, status, limit_kind, secret, secret_prefix, created_at) "
            "VALUES (?, ?, 'active', 'none', ?, 'whsec_', 0)",
            accounts,
        )
        connection.commit()


def _inline_store(path: Path, clock: VirtualClock, randomness: SeededRandomness) -> SQLiteStore:
    connection = InlineConnection(path)
    box = open_box(connection.raw, path, "a key of at least 32 characters!!", randomness)
    writer, reader = Writer(connection, clock), InlineReader(connection)
    return SQLiteStore(writer, reader, reader, box, fresh=False, path=path, lock=DatabaseLock(path))


@contextlib.asynccontextmanager
async def desk(
    directory: Path, *, inline: bool = False, limit: int = 1_000, caching: type[DestinationCache] = DestinationCache
) -> AsyncIterator[Desk]:
    """Open everything, with a store without threads if told so, and up to `limit` subscriptions; at the end close it and check the invariants."""
    clock, randomness = VirtualClock(), SeededRandomness(1)
    upgrade(directory / "remora.db")
    if inline:
        store = _inline_store(directory / "remora.db", clock, randomness)
    else:
        store = await open_store(directory / "remora.db", None, clock, randomness)
    _two_accounts(store.path, store.box, randomness)
    store.writer.start()
    door = Door(allow=(), clock=clock)
    ids = Ids(clock, randomness)
    cache = caching(store.box)
    sent: list[Sending] = []

    async def catch(sending: Sending) -> None:
        sent.append(sending)

    lanes = Lanes(catch, clock, randomness, lambda _: None, timeout_s=15)
    fanout = Fanout(ids, cache, lanes, "me", 60_000)
    subscribe = Subscribe(store.writer, store.reader, door, store.box, ids, randomness, clock)
    made = Desk(store, clock, ids, cache, fanout, subscribe, sent)
    Changes(cache, fanout.add, ids, limit=limit).register(store.writer)
    store.writer.handle(WriteFanoutPart, fanout.write_later)
    delivery_store.register(store.writer)
    store.writer.handle(Publish, made.handle_publish)
    store.writer.handle(Look, made.handle_look)
    store.writer.handle(Backlog, made.handle_backlog)
    try:
        yield made
    finally:
        await lanes.settle()
        await door.close()
        await store.close()
    with contextlib.closing(sqlite3.connect(directory / "remora.db")) as connection:
        # The events published here belong to no job, and I1 counts a job's; `backlog` sends one event many times.
        known = ("a final state is reached once", "no destination has an event twice")
        assert [each for each in breaches(connection) if not each.says.startswith(known)] == []
