"""A log of events to be read: appended and cut off through the store's own writer, and announced as the fan-out does."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from service.db.transaction import Params, Row, Tx
from service.db.writer import Command
from service.events.feed import Hub
from tests.deliveries.desk import OURS, Desk, desk


@dataclass(frozen=True, slots=True)
class Append(Command[None]):
    """Write events of this type one after the other, with bodies of about this size."""

    event_type: str
    account_id: str
    count: int
    size: int
    announced: bool
    numbered: bool


@dataclass(frozen=True, slots=True)
class Number(Command[None]):
    """Number the events that have none, as an engine does that learns their order after their commit."""


@dataclass(frozen=True, slots=True)
class Remove(Command[None]):
    """What retention does: the account's events up to a position go, and the floor says so."""

    account_id: str
    upto: int


class CountingReader:
    """The store's reader, with the number of reads."""

    def __init__(self, log: EventLog) -> None:
        self._reader = log.desk.store.reader
        self.reads = 0

    async def rows(self, sql: str, params: Params | None = None) -> list[Row]:
        """Read a set."""
        self.reads += 1
        return await self._reader.rows(sql, params)

    async def row(self, sql: str, params: Params | None = None) -> Row | None:
        """Read at most one row."""
        self.reads += 1
        return await self._reader.row(sql, params)

    async def close(self) -> None:
        """Belongs to the store."""


@dataclass(slots=True)
class EventLog:
    """The store of a desk, and who follows it."""

    desk: Desk
    hub: Hub

    async def append(
        self,
        count: int = 1,
        *,
        event_type: str = "job.completed",
        account_id: str = OURS,
        size: int = 0,
        announced: bool = True,
        numbered: bool = True,
    ) -> None:
        """Write events, and tell those who follow."""
        await self.desk.store.writer.run(Append(event_type, account_id, count, size, announced, numbered))

    async def number(self) -> None:
        """Number what was written without."""
        await self.desk.store.writer.run(Number())

    async def remove(self, upto: int, account_id: str = OURS) -> None:
        """Remove old ones."""
        await self.desk.store.writer.run(Remove(account_id, upto))

    def ids(self, account_id: str = OURS) -> list[str]:
        """What is in the log, oldest first."""
        rows = self.desk.rows("SELECT id FROM events WHERE account_id = ? ORDER BY pos", account_id)
        return [row[0] for row in rows]

    async def _append(self, tx: Tx, commands: Sequence[Append]) -> list[Exception | None]:
        for command in commands:
            filling = "x" * command.size
            body = (
                f'{{"type":"{command.event_type}","timestamp":"2026-11-21T10:00:00.000Z","data":{{"x":"{filling}"}}}}'
            )
            rows = [
                {
                    "id": self.desk.ids.new("evt"),
                    "account": command.account_id,
                    "type": command.event_type,
                    "at": tx.now_ms,
                    "pos": tx.number() if command.numbered else None,
                    "body": body.encode(),
                }
                for _ in range(command.count)
            ]
            tx.write(
                "INSERT INTO events (id, account_id, seq, type, source, at, pos, body) "
                "VALUES (:id, :account, 1, :type, 'api', :at, :pos, :body)",
                rows,
            )
        accounts = {command.account_id for command in commands if command.announced}
        tx.after_commit(lambda: self.hub.published(accounts))
        return [None for _ in commands]

    async def _number(self, tx: Tx, commands: Sequence[Number]) -> list[Exception | None]:
        found = await tx.rows("SELECT id FROM events WHERE body IS NOT NULL AND pos IS NULL ORDER BY id", {})
        tx.write(
            "UPDATE events SET pos = :pos WHERE id = :id", [{"id": row["id"], "pos": tx.number()} for row in found]
        )
        return [None for _ in commands]

    async def _remove(self, tx: Tx, commands: Sequence[Remove]) -> list[Exception | None]:
        cut = [{"account": command.account_id, "upto": command.upto} for command in commands]
        tx.write("DELETE FROM events WHERE account_id = :account AND pos <= :upto", cut)
        tx.write("UPDATE accounts SET feed_floor = :upto WHERE id = :account", cut)
        return [None for _ in commands]


@contextlib.asynccontextmanager
async def event_log(directory: Path) -> AsyncIterator[EventLog]:
    """An empty log of two accounts."""
    async with desk(directory) as opened:
        log = EventLog(opened, opened.fanout.hub)
        opened.store.writer.handle(Append, log._append)
        opened.store.writer.handle(Number, log._number)
        opened.store.writer.handle(Remove, log._remove)
        yield log
