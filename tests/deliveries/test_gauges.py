"""What waits, as operators see it: bounded counts, and few series with names that tell nothing of anybody's URLs."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from service.deliveries.lanes.lane_names import origin_lane, path_lane
from service.deliveries.statistics.backlog_queries import WaitingDeliveries, backlog, waiting
from service.deliveries.statistics.figures import Figures
from service.deliveries.statistics.gauges import gauges
from tests.deliveries.desk import OURS, THEIRS, Desk, desk

DUE = 1_000_000


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Desk]:
    """A store without network."""
    async with desk(tmp_path) as opened:
        yield opened


def fill(at: Desk, lanes: dict[str, int], *, status: str = "pending", first_due: int = DUE) -> None:
    """So many deliveries in each lane, due one millisecond after the other."""

    def rows() -> Iterator[tuple[str, str, str, int | None]]:
        for lane, count in lanes.items():
            for number in range(count):
                yield f"dlv_{lane}_{status}_{number}", lane, status, first_due + number if status == "pending" else None

    with contextlib.closing(sqlite3.connect(at.store.path)) as connection:
        connection.executemany(
            "INSERT INTO deliveries (id, event_id, account_id, lane, status, due_at, type, attempt_count, schedule_base, "
            "created_at, lease_epoch) VALUES (?, 'evt_1', 'acc_1', ?, ?, ?, 'job.completed', 0, 0, 0, 0)",
            rows(),
        )
        connection.commit()


async def test_waiting_is_counted_by_lane_and_up_to_ten_thousand(at: Desk) -> None:
    """What ended does not wait; a long backlog is not counted to its end, and its oldest is found all the same."""
    fill(at, {"sub_a": 3, "sub_b": 10_001})
    fill(at, {"sub_a": 5}, status="dead")
    found = await waiting(at.store.reader, ["sub_a", "sub_b", "sub_none"])

    assert found == {
        "sub_a": WaitingDeliveries("sub_a", 3, DUE),
        "sub_b": WaitingDeliveries("sub_b", 10_000, DUE),
        "sub_none": WaitingDeliveries("sub_none", 0, None),
    }
    empty_store(at)


async def test_oldest_due_is_none_while_nothing_is_due(at: Desk) -> None:
    """What waits for its next try is not late."""
    assert WaitingDeliveries("sub_a", 1, DUE).overdue_since(DUE - 1) is None
    assert WaitingDeliveries("sub_a", 1, DUE).overdue_since(DUE) == DUE
    assert WaitingDeliveries("sub_a").overdue_since(DUE) is None
    assert await waiting(at.store.reader, []) == {}


async def test_backlog_of_all_names_the_fifty_worst(at: Desk) -> None:
    """Everything counts for the sum and the oldest; only those with the most are named."""
    fill(at, {f"sub_{number:02}": number + 1 for number in range(60)})
    fill(at, {"sub_old": 1}, first_due=5)
    found = await backlog(at.store.reader)

    assert found.pending == sum(range(1, 61)) + 1
    assert found.due_at == 5
    assert [each.lane for each in found.worst] == [f"sub_{number:02}" for number in range(59, 9, -1)]
    empty_store(at)


async def test_backlog_of_nothing(at: Desk) -> None:
    """An empty store is no special case."""
    found = await backlog(at.store.reader)

    assert (found.pending, found.due_at, found.worst) == (0, None, ())


async def test_gauges_tell_of_destinations_without_their_urls(at: Desk) -> None:
    """One-off destinations of an account are one series, which shows no host."""
    one, two = path_lane(OURS, "https://a.example/hook?token=1"), origin_lane(OURS, "https://b.example/hook")
    other = path_lane(THEIRS, "https://a.example/hook")
    fill(at, {one: 2, two: 3, other: 1, "sub_a": 4})
    figures = Figures(at.clock, at.fanout.lanes)
    for lane in (one, "sub_a"):
        figures.attempted(lane, delivered=True, answered_ms=64)
    told = await gauges(at.store.reader, figures, DUE + 1_500)

    assert told["remora_deliveries_pending"] == {(): 10}
    assert told["remora_delivery_oldest_due_seconds"] == {(): 1.5}
    assert told["remora_destination_pending"] == {(f"{OURS}:one_off",): 5, ("sub_a",): 4, (f"{THEIRS}:one_off",): 1}
    assert told["remora_destination_oldest_due_seconds"]["sub_a",] == 1.5
    assert told["remora_destination_success_ratio"] == {("sub_a",): 1.0}
    assert told["remora_destination_p95_seconds"] == {("sub_a",): 0.063}
    empty_store(at)


def empty_store(at: Desk) -> None:
    """The invariants are about deliveries that came about in another way."""
    with contextlib.closing(sqlite3.connect(at.store.path)) as connection:
        connection.execute("DELETE FROM deliveries")
        connection.commit()
