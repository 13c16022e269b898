"""What callers may ask for is found by an index: no list scans a table, whatever it is narrowed to and wherever it goes on.

Lists of jobs and of deliveries, which have the most filters, are asked in tests of their own.
"""

from __future__ import annotations

import itertools
import re
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from service.accounts import accounts, keys
from service.clock import SeededRandomness
from service.db.macros import sqlite_text
from service.db.migrate import upgrade
from service.db.sealing import SecretBox
from service.db.sqlite.inline_store import InlineConnection
from service.db.transaction import Params, Row
from service.deliveries import delivery_queries
from service.deliveries.replays import replay_queries
from service.deliveries.statistics.figures import nothing_known
from service.deliveries.subscribing import queries as subscription_queries
from service.events import feed_queries
from service.jobs import queries
from service.ledger import book_store
from service.results import queries as result_queries
from service.usage import store as usage_store
from service.usage.counting import UsageQuery

A, B = "acc_1", "sub_1"
#: Tables that have one row, or what is not counted yet: whoever counts empties them every few seconds.
SMALL = {"usage_progress", "usage_recounts"}
#: Names that are no tables: what a statement made for itself, bounded where it was made.
MADE = {"edge", "near", "found", "asked", "each_lane", "waiting", "matched", "tag", "json_each", "CONSTANT"}


class Recorder:
    """Reads, and keeps every statement with its parameters."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._raw = raw
        self.asked: list[tuple[str, Params]] = []

    async def rows(self, sql: str, params: Params | None = None) -> list[Row]:
        """See `Reader`."""
        self.asked.append((sql, params or {}))
        return self._raw.execute(sqlite_text(sql), params or {}).fetchall()

    async def row(self, sql: str, params: Params | None = None) -> Row | None:
        """See `Reader`."""
        found = await self.rows(sql, params)
        return found[0] if found else None

    async def close(self) -> None:
        """Nothing: the connection is the test's."""

    def plans(self) -> list[str]:
        """The lines of the plans of what was asked."""
        return [detail for _, detail in self._plans()]

    def scans(self) -> list[str]:
        """The lines of the plans that go through a table from end to end."""
        found: list[str] = []
        for sql, detail in self._plans():
            scanned = re.match(r"SCAN (\w+)", detail)
            if scanned and scanned[1] not in SMALL | MADE:
                found.append(f"{detail}: {' '.join(sql.split())[:120]}")
        return found

    def _plans(self) -> Iterator[tuple[str, str]]:
        for sql, params in self.asked:
            for row in self._raw.execute(f"EXPLAIN QUERY PLAN {sqlite_text(sql)}", params):
                yield sql, row["detail"]


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """Over an empty store: without figures the planner is at its worst."""
    upgrade(tmp_path / "remora.db")
    connection = InlineConnection(tmp_path / "remora.db")
    connection.raw.execute(
        "INSERT INTO accounts (id, name, status, limit_kind, secret, secret_prefix, created_at) "
        "VALUES ('acc_1', 'a', 'active', 'monthly', x'00', 'whsec_', 0)"
    )
    yield Recorder(connection.raw)
    connection.raw.close()


def _feed(*given: bool) -> feed_queries.FeedFilter:
    return feed_queries.FeedFilter(*(("x",) if each else () for each in given))


def _questions() -> dict[str, Callable[[Recorder], Awaitable[Any]]]:
    box = SecretBox(b"k" * 32, SeededRandomness(1))
    asked: dict[str, Callable[[Recorder], Awaitable[Any]]] = {
        "account": lambda r: accounts.find(r, A, 0),
        "timeline": lambda r: queries.timeline(r, "job_1", 7, 50),
        "job": lambda r: queries.find(r, A, "job_1"),
        "results": lambda r: queries.results(r, "job_1"),
        "counts": lambda r: delivery_queries.find_delivery(r, A, "dlv_1"),
        "edges": lambda r: feed_queries.read_edges(r, A),
        "position": lambda r: feed_queries.position_of(r, A, "evt_1"),
        "result link": lambda r: result_queries.held(r, "job_1", 0),
        "replay": lambda r: replay_queries.find_replay(r, A, "rpl_1"),
        "newest delivery": lambda r: delivery_queries.newest_delivery(r, A, B, "evt_1"),
    }
    for before in (None, "zzz"):
        page: dict[str, Any] = {"account_id": A, "before_id": before, "limit": 50}
        listed = partial(subscription_queries.list_subscriptions, box=box, now_ms=0, standings=nothing_known)
        asked |= {
            f"accounts {before}": partial(accounts.list_accounts, before_id=before, limit=50, now_ms=0),
            f"keys {before}": partial(keys.list_keys, **page),
            f"statement {before}": partial(book_store.statement, **page | {"before_id": None if before is None else 7}),
            f"subscriptions {before}": partial(listed, **page),
        }
        for subscription in (None, B):
            asked[f"replays {before} {subscription}"] = partial(
                replay_queries.list_replays, **page, subscription_id=subscription
            )
    for given in itertools.product((False, True), repeat=5):
        asked[f"feed {given}"] = partial(
            feed_queries.read_page, account_id=A, after=7, wanted=_feed(*given), limit=50, max_bytes=9
        )
    for tag, by_tag in ((None, ()), ("t", ()), (None, ("tag",))):
        wanted = UsageQuery(1, 2, by_tag, tag=tag)
        asked[f"usage {tag} {by_tag}"] = partial(usage_store.usage, account_id=A, wanted=wanted)
    return asked


QUESTIONS = _questions()


@pytest.mark.parametrize("name", QUESTIONS)
async def test_question_is_answered_by_an_index(recorder: Recorder, name: str) -> None:
    """No statement goes through a table from end to end."""
    await QUESTIONS[name](recorder)

    assert recorder.asked
    assert recorder.scans() == []


async def test_scan_is_found(recorder: Recorder) -> None:
    """The check would see one."""
    await recorder.rows("SELECT id FROM jobs WHERE provider = 'x'")

    assert recorder.scans() != []
