"""A store in which jobs end, are corrected, charged later and erased, as the tracker would write it; and what is counted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.clock import VirtualClock
from service.db.migrate import upgrade
from service.db.sqlite.inline_store import InlineConnection, InlineReader
from service.db.writer import Writer
from service.scheduler.roller import Roller
from service.usage import store as usage_store
from service.usage.counting import DAY_MS, UsageQuery, UsageRow, grouped

ACCOUNT = "acc_1"
DAY = 20_000  # 2024-10-04
NOON = DAY * DAY_MS + DAY_MS // 2


@dataclass
class Ledger:
    """What a test does to jobs, straight in SQL, and what it asks."""

    raw: Any
    writer: Writer
    reader: InlineReader
    roller: Roller
    pos: int = 0

    @classmethod
    def open(cls, directory: Path) -> Ledger:
        """An empty one; the caller is in a running loop."""
        upgrade(directory / "remora.db")
        connection = InlineConnection(directory / "remora.db")
        connection.raw.execute("PRAGMA foreign_keys = OFF")  # accounts are only names here
        writer, reader = Writer(connection, VirtualClock()), InlineReader(connection)
        usage_store.register(writer)
        writer.start()
        return cls(connection.raw, writer, reader, Roller(writer, reader))

    def end(
        self,
        job_id: str,
        status: str = "completed",
        *,
        at: int = NOON,
        took_ms: int = 4_000,
        charged: int | None = 10_000,
        **columns: Any,
    ) -> None:
        """A job ends; one that was there before is corrected."""
        given: dict[str, Any] = {
            "id": job_id,
            "account_id": ACCOUNT,
            "provider": "apimodels",
            "operation": "generate",
            "model": "sparkpix",
            "key_id": "key_1",
            "created_at": at - took_ms,
            "tags": (),
        } | columns
        given |= {"status": status, "finished_at": at, "cost_charged": charged, "tags": json.dumps(given["tags"])}
        rest = {
            "seq": 1,
            "input": "{}",
            "job_metadata": "{}",
            "submit_tries": 1,
            "submit_failures": 0,
            "task_confirmed": 1,
            "cost_basis": "price_list",
            "result_count": 1,
            "polls": 0,
            "callbacks": 1,
            "hint_tries": 0,
            "poll_failures": 0,
            "not_found_polls": 0,
            "overdue": 0,
            "expires_at": at,
            "error_code": "internal",
            "lease_epoch": 0,
        }
        self._insert("jobs", given | rest, "OR REPLACE")
        self.pos += 1
        event = {"id": f"evt_{self.pos}", "account_id": given["account_id"], "job_id": job_id, "seq": self.pos}
        told = {"type": f"job.{status}", "source": "poll", "at": at, "pos": self.pos, "body": b"{}"}
        self._insert("events", event | told)

    def forget_feed(self) -> None:
        """Retention takes every event out of the feed."""
        self.raw.execute("UPDATE events SET left_pos = pos, body = NULL, pos = NULL")

    def take_numbers(self) -> None:
        """What has no number yet, on an engine that gives them after the commit."""
        self.raw.execute("UPDATE events SET pos = NULL")

    def charge_later(self, job_id: str, charged: int) -> None:
        """A cost is booked for a job that ended before, as the tracker's store notes it."""
        self.raw.execute("UPDATE jobs SET cost_charged = ? WHERE id = ?", (charged, job_id))
        self.raw.execute("INSERT INTO usage_recounts (account_id, job_id) VALUES (?, ?)", (ACCOUNT, job_id))

    def _insert(self, table: str, row: dict[str, Any], how: str = "") -> None:
        names = ", ".join(row)
        self.raw.execute(f"INSERT {how} INTO {table} ({names}) VALUES ({', '.join(':' + name for name in row)})", row)

    async def rows(self, *group_by: str, account: str = ACCOUNT, **narrowed: Any) -> list[UsageRow]:
        """The answer for the days around `DAY`."""
        wanted = UsageQuery(DAY - 10, DAY + 10, group_by, **narrowed)
        return grouped(await usage_store.usage(self.reader, account, wanted), wanted)

    async def jobs(self, *group_by: str, **narrowed: Any) -> dict[tuple[Any, ...], int]:
        """How many jobs, by group."""
        return {row.group: sum(row.jobs.values()) for row in await self.rows(*group_by, **narrowed)}
