"""Lists of deliveries: what they hold, and that a page reads little more than it shows."""

from __future__ import annotations

import contextlib
import itertools
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from service.db.macros import sqlite_text
from service.db.migrate import upgrade
from service.deliveries.delivery_queries import DeliveryFilter, edge_query, list_deliveries, page_query

OURS, THEIRS = "acc_ours", "acc_theirs"
ROWS = 100_000
LIMIT = 50
STEPS = 100  # of SQLite's machine, which the counter counts at once
#: Steps that a page may take: reading a row that is shown takes about forty, and so does one that is passed over.
FEW = 20_000

#: Of a thousand deliveries in a row: which one is what; all others are delivered.
UNUSUAL = {3: "dead", 500: "skipped", 501: "skipped", 998: "pending", 999: "pending"}


def _rows() -> Iterator[tuple[Any, ...]]:
    for number in range(ROWS):
        status = UNUSUAL.get(number % 1000, "delivered")
        account = THEIRS if number % 7 == 0 else OURS
        yield (
            f"dlv_{number:06}",
            f"evt_{number // 4:06}",
            account,
            f"job_{number // 8:06}",
            "sub_rare" if number % 10_000 == 5 else "sub_busy",
            status,
            number if status == "pending" else None,
        )


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """A store with many deliveries, nearly all of them delivered."""
    path = tmp_path_factory.mktemp("list") / "remora.db"
    upgrade(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.executemany(
            "INSERT INTO deliveries (id, event_id, account_id, job_id, subscription_id, status, due_at, type, lane, attempt_count, "
            "schedule_base, created_at, lease_epoch) VALUES (?, ?, ?, ?, ?, ?, ?, 'job.completed', 'lane', 0, 0, 0, 0)",
            _rows(),
        )
        connection.commit()
        yield connection


def page(connection: sqlite3.Connection, wanted: DeliveryFilter, limit: int = LIMIT) -> tuple[list[str], int]:
    """The ids of a page, and how many steps it took."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += STEPS
        return 0

    connection.set_progress_handler(count, STEPS)
    try:
        sql, params = page_query(OURS, wanted, limit)
        found = [row["id"] for row in connection.execute(sqlite_text(sql), params)]
    finally:
        connection.set_progress_handler(None, STEPS)
    return found, steps


def expected(wanted: DeliveryFilter, limit: int = LIMIT) -> list[str]:
    """The same page, by looking at every row."""
    fit = [
        row[0]
        for row in _rows()
        if row[2] == OURS
        and (not wanted.status or row[5] in wanted.status)
        and wanted.event_id in (None, row[1])
        and wanted.job_id in (None, row[3])
        and wanted.subscription_id in (None, row[4])
        and (wanted.before_id is None or row[0] < wanted.before_id)
    ]
    return sorted(fit, reverse=True)[:limit]


@pytest.mark.parametrize(
    "wanted",
    [
        DeliveryFilter(),
        DeliveryFilter(before_id="dlv_050000"),
        DeliveryFilter(status=("dead",)),
        DeliveryFilter(status=("dead",), before_id="dlv_050000"),
        DeliveryFilter(status=("pending", "skipped")),
        DeliveryFilter(status=("delivered",)),
        DeliveryFilter(status=("delivered", "dead")),
        DeliveryFilter(status=("pending", "delivered", "dead", "skipped")),
        DeliveryFilter(subscription_id="sub_rare"),
        DeliveryFilter(subscription_id="sub_rare", status=("delivered",)),
        DeliveryFilter(subscription_id="sub_rare", status=("dead",)),
        DeliveryFilter(subscription_id="sub_busy", status=("dead", "skipped")),
        DeliveryFilter(event_id="evt_000750"),
        DeliveryFilter(event_id="evt_000750", status=("dead", "delivered")),
        DeliveryFilter(job_id="job_000375", subscription_id="sub_busy"),
        DeliveryFilter(job_id="job_000375", status=("skipped",)),
        DeliveryFilter(event_id="evt_nobody"),
    ],
    ids=str,
)
def test_page_is_right_and_reads_little(filled: sqlite3.Connection, wanted: DeliveryFilter) -> None:
    """Whatever is asked for, the page is the newest that fit, and the hundred thousand others are left alone."""
    found, steps = page(filled, wanted)

    assert found == expected(wanted)
    assert steps < FEW


def test_pages_follow_each_other(filled: sqlite3.Connection) -> None:
    """Walking on from the last one shown loses nothing and repeats nothing."""
    wanted, walked, last = ("dead", "pending", "skipped"), list[str](), None
    while found := page(filled, DeliveryFilter(status=wanted, before_id=last))[0]:
        walked += found
        last = found[-1]

    assert walked == expected(DeliveryFilter(status=wanted), ROWS)


@pytest.mark.parametrize("status", ["pending", "dead", "skipped"])
def test_unusual_statuses_have_an_index(filled: sqlite3.Connection, status: str) -> None:
    """The planner takes the index that was made for it, also with a cursor and a subscription."""
    wanted = DeliveryFilter(status=(status,), subscription_id="sub_busy", before_id="dlv_050000")
    sql, params = page_query(OURS, wanted, LIMIT)
    plan = " / ".join(row["detail"] for row in filled.execute(f"EXPLAIN QUERY PLAN {sqlite_text(sql)}", params))

    assert "ix_deliveries_for_list_by_status (account_id=? AND status=? AND id<?)" in plan
    assert "SCAN deliveries" not in plan


class _Reader:
    """Reads on the test's connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def rows(self, sql: str, params: Any = None) -> list[Any]:
        return self._connection.execute(sqlite_text(sql), params or {}).fetchall()

    async def row(self, sql: str, params: Any = None) -> Any:
        return self._connection.execute(sqlite_text(sql), params or {}).fetchone()

    async def close(self) -> None:
        """Nothing: the connection is the test's."""


NOTHING = [
    DeliveryFilter(subscription_id="sub_none", status=("dead",)),
    DeliveryFilter(subscription_id="sub_rare", status=("delivered", "skipped")),
    DeliveryFilter(subscription_id="sub_busy", status=("pending", "dead")),
    DeliveryFilter(subscription_id="sub_busy"),
    DeliveryFilter(status=("delivered",)),
]


@pytest.mark.parametrize("wanted", NOTHING, ids=str)
@pytest.mark.parametrize(("limit", "scan"), [(50, 1_000), (3, 7_001)])
async def test_pages_that_look_at_little_lose_nothing(
    filled: sqlite3.Connection, wanted: DeliveryFilter, limit: int, scan: int
) -> None:
    """A page may be short and yet go on; together they are all that fits, each once."""
    found: list[str] = []
    last: str | None = None
    for _ in range(400):
        listed = await list_deliveries(_Reader(filled), OURS, replace(wanted, before_id=last), limit, scan)
        found += [each["id"] for each in listed.deliveries]
        last = listed.next_id
        if last is None:
            break

    assert found == expected(wanted, ROWS)[: len(found)]
    assert last is not None or found == expected(wanted, ROWS)


@pytest.mark.parametrize(
    "wanted", [*NOTHING, DeliveryFilter(subscription_id="sub_busy", status=("delivered",))], ids=str
)
async def test_page_that_finds_nothing_is_bounded(filled: sqlite3.Connection, wanted: DeliveryFilter) -> None:
    """Of an account without any of a hundred thousand, as of somebody else's subscription: a page looks at so many and no more."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += STEPS
        return 0

    filled.set_progress_handler(count, STEPS)
    try:
        listed = await list_deliveries(_Reader(filled), "acc_none", wanted, LIMIT, 500)
    finally:
        filled.set_progress_handler(None, STEPS)

    assert listed.deliveries == []
    assert steps < FEW


def test_every_combination_walks_an_index(filled: sqlite3.Connection) -> None:
    """No page and no edge scans the table or sorts it; what one job or one event has is all that is ever sorted."""
    for statuses, subscription, job, event, before in itertools.product(
        ((), ("dead",), ("delivered",), ("delivered", "dead", "skipped")),
        (None, "sub_busy"),
        (None, "job_000375"),
        (None, "evt_000750"),
        (None, "dlv_050000"),
    ):
        wanted = DeliveryFilter(statuses, subscription, job, event, before)
        asked = [page_query(OURS, wanted, LIMIT, "dlv_000000"), edge_query(OURS, wanted, 10)]
        for sql, params in filter(None, asked):
            plan = [row["detail"] for row in filled.execute(f"EXPLAIN QUERY PLAN {sqlite_text(sql)}", params)]
            faults = [each for each in plan if re.search(r"SCAN (deliveries|d)\b|AUTOMATIC", each)]
            assert faults == [], (wanted, plan)
        if asked[1] is not None:
            plan = [
                row["detail"] for row in filled.execute(f"EXPLAIN QUERY PLAN {sqlite_text(asked[1][0])}", asked[1][1])
            ]
            assert not any("TEMP B-TREE" in each for each in plan), (wanted, plan)
            assert all("COVERING INDEX" in each for each in plan if each.startswith("SEARCH")), (wanted, plan)
