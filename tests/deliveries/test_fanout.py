"""One event for very many destinations: the event loop is never held for long, and no transaction writes all of them."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from service.db.transaction import Tx
from service.db.writer import Command
from service.deliveries.fanout import AT_ONCE, PART
from service.deliveries.fanout_store import FanoutsDuty, WriteFanoutPart
from service.deliveries.retention.erasure_store import erase
from service.deliveries.retention.recalled import Recalled
from service.subscriptions.subscription_commands import DeleteSubscription, DisableSubscription
from tests.deliveries.desk import OURS, Desk, Publish, desk

COUNT = 3 * AT_ONCE
CROWD = 2 * PART + 300


class FailingPart(Command[bool]):
    """Write a part, in a transaction that is rolled back."""


class ErasedJob(Command[bool]):
    """Let go of what is sent of a job."""


async def _many(at: Desk, count: int) -> str:
    """So many subscriptions of the account; the id of the first, which is no copy."""
    made = await at.make()
    with contextlib.closing(sqlite3.connect(at.store.path)) as connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(subscriptions)")]
        columns = ", ".join("'sub_' || n.value" if name == "id" else f"t.{name}" for name in names)
        numbers = f"WITH RECURSIVE n (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < {count - 1})"
        connection.execute(
            f"{numbers} INSERT INTO subscriptions SELECT {columns} FROM subscriptions t, n WHERE t.id = ?",
            (made["id"],),
        )
        connection.commit()
    return str(made["id"])


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Desk]:
    """A store without network, and an account with many subscriptions."""
    async with desk(tmp_path, inline=True) as opened:
        await _many(opened, COUNT)
        yield opened


@pytest.fixture
async def crowd(tmp_path: Path) -> AsyncIterator[Desk]:
    """The same with more than two parts of them."""
    async with desk(tmp_path, inline=True, limit=CROWD + 1) as opened:
        await _many(opened, CROWD)
        yield opened


def _written(at: Desk) -> tuple[int, int]:
    """The deliveries, and how many subscriptions they are for."""
    [found] = at.rows("SELECT count(*), count(DISTINCT subscription_id) FROM deliveries")
    return found[0], found[1]


async def _rest(at: Desk) -> None:
    await FanoutsDuty(at.store.writer, at.store.reader).run_once()
    await at.fanout.lanes.settle()


async def steps_of(at: Desk, publish: Publish) -> tuple[int, int]:
    """The most deliveries that were made, and that began to wait for their turn, in one round of the event loop."""
    lanes = at.fanout.lanes
    made, begun, last = 0, 0, (len(lanes.places), lanes.in_flight())
    writing = asyncio.ensure_future(at.store.writer.run(publish))
    while not writing.done() or lanes.in_flight() != last[1]:
        await asyncio.sleep(0)
        now = len(lanes.places), lanes.in_flight()
        made, begun, last = max(made, now[0] - last[0]), max(begun, now[1] - last[1]), now
    with contextlib.suppress(RuntimeError):
        writing.result()
    return made, begun


async def test_event_for_many_destinations_holds_nobody_up(at: Desk) -> None:
    """Others have their turn after every few hundred, and each destination gets the event once."""
    made, begun = await steps_of(at, Publish(OURS))
    await at.fanout.lanes.settle()

    assert 0 < made <= AT_ONCE
    assert 0 < begun <= AT_ONCE
    assert len({each.subscription_id for each in at.sent}) == len(at.sent) == COUNT
    assert at.rows("SELECT count(*), count(DISTINCT subscription_id) FROM deliveries") == [(COUNT, COUNT)]


async def test_fan_out_that_is_rolled_back_leaves_nothing_in_memory(at: Desk) -> None:
    """Also where it had been made in several pieces."""
    await steps_of(at, Publish(OURS, fail=True))

    assert len(at.fanout.lanes.places) == 0
    assert at.fanout.lanes.count() == 0
    assert at.rows("SELECT count(*) FROM deliveries") == [(0,)]
    assert at.sent == []


async def test_no_transaction_writes_more_than_a_part(crowd: Desk) -> None:
    """The event's own writes the first, each other one the next; in the end everybody has the event once."""
    await crowd.publish(callback_url="https://own.example.com/")
    assert _written(crowd) == (PART, PART - 1)  # the job's own destination is among the first
    assert await crowd.store.writer.run(WriteFanoutPart())
    assert _written(crowd) == (2 * PART, 2 * PART - 1)
    await _rest(crowd)

    assert _written(crowd) == (CROWD + 1, CROWD)
    assert len({each.subscription_id for each in crowd.sent}) == len(crowd.sent) == CROWD + 1
    assert crowd.rows("SELECT count(*) FROM fanouts") == [(0,)]
    assert not await crowd.store.writer.run(WriteFanoutPart())


async def test_parts_of_several_events_do_not_mix(crowd: Desk) -> None:
    """Each delivery is of the event that it was left over from."""
    for _ in range(2):
        await crowd.publish()
    await _rest(crowd)

    assert (
        crowd.rows("SELECT count(*), count(DISTINCT subscription_id) FROM deliveries GROUP BY event_id")
        == [(CROWD, CROWD)] * 2
    )


async def test_who_was_disabled_meanwhile_or_before_misses_it_and_can_have_it_replayed(crowd: Desk) -> None:
    """What a part does not send it notes as skipped, as the first one does."""
    last = crowd.rows("SELECT id FROM subscriptions ORDER BY id DESC LIMIT 1")[0][0]
    await crowd.store.writer.run(DisableSubscription(last, OURS, "asked"))
    await crowd.publish()
    next_to_last = crowd.rows("SELECT id FROM subscriptions ORDER BY id DESC LIMIT 1 OFFSET 1")[0][0]
    await crowd.store.writer.run(DisableSubscription(next_to_last, OURS, "asked"))
    await _rest(crowd)

    assert _written(crowd) == (CROWD, CROWD)
    found = crowd.rows("SELECT subscription_id, reason FROM deliveries WHERE status = 'skipped' ORDER BY 1")
    assert found == [(next_to_last, "subscription_disabled"), (last, "subscription_disabled")]


async def test_who_is_deleted_meanwhile_or_comes_later_gets_nothing(crowd: Desk) -> None:
    """The destinations of an event are those that there were when it was written."""
    await crowd.publish()
    last = crowd.rows("SELECT id FROM subscriptions ORDER BY id DESC LIMIT 1")[0][0]
    await crowd.store.writer.run(DeleteSubscription(last, OURS))
    new = await crowd.make()
    await _rest(crowd)

    assert _written(crowd) == (CROWD - 1, CROWD - 1)
    assert crowd.rows("SELECT count(*) FROM deliveries WHERE subscription_id IN (?, ?)", last, new["id"]) == [(0,)]


async def test_who_has_it_already_does_not_get_it_again(crowd: Desk) -> None:
    """A replay writes the delivery of an event that its subscription does not have yet."""
    await crowd.publish()
    last = crowd.rows("SELECT id FROM subscriptions ORDER BY id DESC LIMIT 1")[0][0]
    await crowd.backlog(last, 1)
    await _rest(crowd)

    assert _written(crowd) == (CROWD, CROWD)


async def test_event_that_is_gone_leaves_no_part(crowd: Desk) -> None:
    """Retention takes its bytes, or all of it."""
    for _ in range(2):
        await crowd.publish()
    with contextlib.closing(sqlite3.connect(crowd.store.path)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        first, second = [row[0] for row in connection.execute("SELECT id FROM events ORDER BY id")]
        connection.execute("UPDATE events SET body = NULL, pos = NULL WHERE id = ?", (first,))
        connection.execute("DELETE FROM deliveries WHERE event_id = ?", (second,))
        connection.execute("DELETE FROM events WHERE id = ?", (second,))
        connection.commit()
    await _rest(crowd)

    assert _written(crowd) == (PART, PART)
    assert crowd.rows("SELECT count(*) FROM fanouts") == [(0,)]


async def test_part_that_is_rolled_back_is_still_to_be_written(crowd: Desk) -> None:
    """As after a process that was killed: nothing of it is there, and the next one writes it."""
    await crowd.publish()

    async def fail(tx: Tx, commands: Sequence[FailingPart]) -> list[bool | Exception]:
        await crowd.fanout.write_later(tx, [WriteFanoutPart() for _ in commands])
        raise RuntimeError

    crowd.store.writer.handle(FailingPart, fail)
    with pytest.raises(RuntimeError):
        await crowd.store.writer.run(FailingPart())
    assert _written(crowd) == (PART, PART)
    await _rest(crowd)

    assert _written(crowd) == (CROWD, CROWD)


async def test_erased_job_is_told_to_nobody_further(crowd: Desk) -> None:
    """The parts of its events go with what waits of them; those of others stay."""
    for _ in range(2):
        await crowd.publish()
    with contextlib.closing(
        sqlite3.connect(crowd.store.path)
    ) as connection:  # without a job, which matters to nothing here
        [(event_id,)] = connection.execute("SELECT min(id) FROM events").fetchall()
        connection.execute("UPDATE events SET job_id = 'job_erased' WHERE id = ?", (event_id,))
        connection.execute("UPDATE deliveries SET job_id = 'job_erased' WHERE event_id = ?", (event_id,))
        connection.commit()

    async def erased(tx: Tx, _: Sequence[ErasedJob]) -> list[bool | Exception]:
        await erase(tx, ["job_erased"], recalled=Recalled(1_000))
        return [True]

    crowd.store.writer.handle(ErasedJob, erased)
    await crowd.store.writer.run(ErasedJob())
    await _rest(crowd)
    with contextlib.closing(sqlite3.connect(crowd.store.path)) as connection:
        connection.execute("UPDATE events SET job_id = NULL")
        connection.commit()

    found = crowd.rows("SELECT event_id = ?, count(*) FROM deliveries GROUP BY event_id ORDER BY event_id", event_id)
    assert found == [(1, PART), (0, CROWD)]
