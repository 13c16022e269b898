"""What an engine promises, asked of each: transactions, sets, guards, types, numbers, errors.

The writer's own promises are tried on an engine that fails on request in `test_engine`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from service.db.transaction import Tx, json_set
from service.errors import GuardFailed
from tests.db.engines import KINDS, Kind, OpenStore, Work, database, opened

INSERT_LANE = "INSERT INTO lanes (id, account_id, next_due_at) @rows(:id, :account_id, :due)"
LANES = "SELECT id, account_id, next_due_at FROM lanes ORDER BY id"
INSERT_EVENT = """
INSERT INTO events (id, account_id, job_id, seq, type, source, at, detail, pos, body)
@rows(:id, :account_id, :job_id, :seq, 'job.created', 'caller', :at, NULL, :pos, :body)
"""
BIGGEST = 2**63 - 1


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenStore]:
    """An empty store that is up to date."""
    kind: Kind = request.param
    async with opened(kind, await database(kind, tmp_path)) as store:
        yield store


def lane(number: int, due: int | None = None) -> dict[str, Any]:
    """A row of `lanes`."""
    return {"id": f"lane_{number:05}", "account_id": "acc_1", "due": due}


async def lanes(store: OpenStore) -> list[tuple[str, int | None]]:
    """What is committed."""
    return [(row["id"], row["next_due_at"]) for row in await store.reader.rows(LANES)]


@pytest.mark.parametrize("count", [1, 2, 3, 63, 64, 65, 200])
async def test_set_of_any_size_is_written_and_read(store: OpenStore, count: int) -> None:
    """In one statement or many: all rows, and as many changes as were expected."""

    async def do(tx: Tx) -> None:
        tx.write(INSERT_LANE, [lane(number) for number in range(count)], expect=count)
        tx.write(
            "UPDATE lanes SET next_due_at = v.due FROM @given(id text = :id, due bigint = :due) AS v WHERE lanes.id = v.id",
            [lane(number, number * 7) for number in range(count)],
            expect=count,
        )

    await store.run(do)

    assert await lanes(store) == [(f"lane_{number:05}", number * 7) for number in range(count)]


async def test_transaction_reads_what_it_wrote(store: OpenStore) -> None:
    """A read sends what was written before it; the same read for several parameters keeps their order."""

    async def do(tx: Tx) -> list[str]:
        tx.write(INSERT_LANE, [lane(1), lane(2), lane(3)])
        found = await tx.rows_each("SELECT id FROM lanes WHERE id = :id", [lane(3), lane(1), lane(9), lane(2)])
        return [row["id"] for row in found]

    assert await store.run(do) == ["lane_00003", "lane_00001", "lane_00002"]


@pytest.mark.parametrize(
    ("value", "column"),
    [
        (BIGGEST, "next_due_at"),
        (-BIGGEST, "next_due_at"),
        (0, "next_due_at"),
        (None, "next_due_at"),
        ("é😀\u202e '\"\\ {}", "account_id"),
        ("", "account_id"),
        ("x" * 100_000, "account_id"),
    ],
)
async def test_value_comes_back_as_it_was(store: OpenStore, value: object, column: str) -> None:
    """Numbers of 64 bits, and texts of any letters."""
    row = {"id": "lane_1", "account_id": "acc_1", "next_due_at": 1} | {column: value}
    sql = "INSERT INTO lanes (id, account_id, next_due_at) @rows(:id, :account_id, :next_due_at)"

    async def do(tx: Tx) -> None:
        tx.write(sql, [row])

    await store.run(do)
    found = await store.reader.row(f"SELECT {column} AS value FROM lanes")

    assert found is not None
    assert found["value"] == value
    assert type(found["value"]) is type(value)


async def test_sums_and_counts_are_whole_numbers(store: OpenStore) -> None:
    """Whatever type the engine makes of them."""

    async def do(tx: Tx) -> None:
        tx.write(INSERT_LANE, [lane(number, BIGGEST // 4) for number in range(4)])

    await store.run(do)
    found = await store.reader.row("SELECT sum(next_due_at) AS total, count(*) AS n FROM lanes")

    assert found is not None
    assert (found["total"], found["n"]) == (BIGGEST // 4 * 4, 4)
    assert type(found["total"]) is int


async def test_texts_are_ordered_byte_by_byte(store: OpenStore) -> None:
    """As ids and cursors need it, whatever the database's language."""
    names = ["Z", "a", "_", "é", "job_1", "job_A", "~"]

    async def do(tx: Tx) -> None:
        tx.write(INSERT_LANE, [lane(0) | {"id": name} for name in names])

    await store.run(do)

    assert [name for name, _ in await lanes(store)] == sorted(names)


async def test_guard_that_fails_writes_nothing_of_its_command(store: OpenStore) -> None:
    """Its neighbours in the batch are written."""

    async def good(tx: Tx) -> str:
        tx.write(INSERT_LANE, [lane(1)], expect=1)
        return "good"

    async def bad(tx: Tx) -> None:
        tx.write(INSERT_LANE, [lane(2)])
        tx.write("UPDATE lanes SET next_due_at = 1 WHERE id = :id", [lane(2), lane(3)], expect=2)

    answers = await asyncio.gather(store.run(good), store.run(bad), return_exceptions=True)

    assert answers[0] == "good"
    assert isinstance(answers[1], GuardFailed)
    assert str(answers[1]).startswith("1 of 2 rows changed")
    assert await lanes(store) == [("lane_00001", None)]


async def test_statement_that_is_wrong_spoils_its_command_only(store: OpenStore) -> None:
    """The error is the engine's own; what comes later finds everything in order."""

    async def wrong(tx: Tx) -> None:
        tx.write(INSERT_LANE, [lane(1)])
        await tx.rows("SELECT colour FROM lanes", {})

    async def good(tx: Tx) -> None:
        tx.write(INSERT_LANE, [lane(2)])

    with pytest.raises(Exception, match="colour"):
        await store.run(wrong)
    await store.run(good)

    assert await lanes(store) == [("lane_00002", None)]


async def test_follow_ups_are_told_after_the_commit_and_undone_without_one(store: OpenStore) -> None:
    """And one that breaks keeps neither the others nor the answer away."""
    told: list[str] = []

    def broken() -> None:
        raise ZeroDivisionError

    async def well(tx: Tx) -> str:
        tx.after_commit(lambda: told.append("committed"))
        tx.on_rollback(lambda: told.append("wrong"))
        tx.after_commit(broken)
        tx.after_commit(lambda: told.append("also"))
        tx.write(INSERT_LANE, [lane(1)])
        return "done"

    async def badly(tx: Tx) -> None:
        tx.after_commit(lambda: told.append("wrong"))
        tx.on_rollback(lambda: told.append("undone"))
        tx.write("DELETE FROM lanes WHERE id = :id", [lane(7)], expect=1)

    assert await store.run(well) == "done"
    with pytest.raises(GuardFailed):
        await store.run(badly)

    assert told == ["committed", "also", *["undone"] * 3]  # its guard is asked three times


async def test_same_key_twice_is_met_by_who_comes_second(store: OpenStore) -> None:
    """One of two is stored; the other one gets an error, and nothing of it is stored."""

    async def one(tx: Tx) -> None:
        tx.write(INSERT_LANE, [lane(1)])

    await store.run(one)
    with pytest.raises(Exception, match=r"(?i)unique|another process was first"):
        await store.run(one)

    assert len(await lanes(store)) == 1


async def test_events_are_numbered_in_the_order_of_their_jobs(store: OpenStore) -> None:
    """No number twice, none behind one that was seen; and whoever waits for the feed is told when they are in it."""
    in_feed = asyncio.Event()
    seen: list[list[int]] = []

    async def do(tx: Tx) -> None:
        tx.write(
            INSERT_EVENT,
            [
                {
                    "id": f"evt_{job}_{seq}",
                    "account_id": "acc_1",
                    "job_id": f"job_{job}",
                    "seq": seq,
                    "at": tx.now_ms,
                    "pos": tx.number(),
                    "body": b"{}",
                }
                for seq in range(1, 4)
                for job in "ba"
            ],
        )
        tx.after_numbered(in_feed.set)

    await store.run(do)
    await asyncio.wait_for(in_feed.wait(), 10)
    rows = await store.reader.rows("SELECT job_id, seq, pos FROM events ORDER BY pos")
    seen = [[row["pos"] for row in rows if row["job_id"] == job] for job in ("job_a", "job_b")]

    assert sorted(row["pos"] for row in rows) == list(range(1, 7))
    assert [[row["seq"] for row in rows if row["job_id"] == job] for job in ("job_a", "job_b")] == [[1, 2, 3]] * 2
    assert all(each == sorted(each) for each in seen)


async def test_labels_come_and_go_with_their_job(store: OpenStore) -> None:
    """Triggers write them on either engine."""
    sql = """
INSERT INTO jobs (id, account_id, provider, operation, status, input, job_metadata, tags, created_at, expires_at, due_at, seq,
    submit_tries, submit_failures, task_confirmed, cost_basis, result_count, polls, callbacks, hint_tries, poll_failures,
    not_found_polls, overdue, lease_epoch)
@rows('job_1', 'acc_1', 'p', 'o', 'queued', :nothing, :pairs, :tags, 1, 2, 1, 1, 0, 0, TRUE, 'unknown', 0, 0, 0, 0, 0, 0, FALSE, 0)
"""
    account = """
INSERT INTO accounts (id, name, status, limit_kind, secret, secret_prefix, created_at)
@rows('acc_1', 'a', 'active', 'none', :secret, 'w', 1)
"""

    async def come(tx: Tx) -> None:
        tx.write(account, [{"secret": b"s"}])
        tx.write(sql, [{"nothing": "{}", "pairs": '{"user": "ü", "long": "' + "x" * 99 + '"}', "tags": '["a", "b"]'}])

    async def go(tx: Tx) -> None:
        tx.write("DELETE FROM jobs WHERE id IN @set(:ids)", [{"ids": json_set(["job_1"])}], expect=1)

    await store.run(come)
    found = await store.reader.rows("SELECT name, value FROM labels ORDER BY name, value")
    await store.run(go)
    left = await store.reader.rows("SELECT name FROM labels")

    assert [(row["name"], row["value"]) for row in found] == [
        ("metadata.long", "x" * 64),
        ("metadata.user", "ü"),
        ("tag", "a"),
        ("tag", "b"),
    ]
    assert left == []


async def test_commands_that_wait_together_share_a_transaction(store: OpenStore) -> None:
    """Group commit is the writer's, whatever the engine; each is answered with its own."""
    times: set[int] = set()

    async def do(tx: Tx, number: int) -> int:
        times.add(id(tx))
        tx.write(INSERT_LANE, [lane(number)], expect=1)
        return number

    answers = await asyncio.gather(
        *(store.writer.run(Work(lambda tx, number=number: do(tx, number))) for number in range(50))  # type: ignore[misc]
    )

    assert answers == list(range(50))
    assert len(times) == 1
    assert len(await lanes(store)) == 50
