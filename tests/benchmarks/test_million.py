from __future__ import annotations

import sqlite3
from pathlib import Path

from benchmarks.archive import ACCOUNT, SUBSCRIPTIONS, fill
from benchmarks.million import Plan, cleaning, cleaning_table, reads, reads_table
from service.db.inspection.invariants import breaches

NOW_MS = 1_795_000_000_000
TINY = Plan(small=4_000, large=8_000, rounds=3, phase_s=0.2, phases=20, removed=200)


def test_archive_is_a_store_as_the_service_leaves_it(tmp_path: Path) -> None:
    """Every rule holds in it; every event went to four destinations, and what differs by size is only the finished ones."""
    archive = fill(tmp_path / "remora.db", 8_000, NOW_MS)
    with sqlite3.connect(archive.path) as connection:
        [(jobs,)] = connection.execute("SELECT count(*) FROM jobs WHERE account_id = ?", (ACCOUNT,)).fetchall()
        by_status = dict(connection.execute("SELECT status, count(*) FROM deliveries GROUP BY status").fetchall())
        [(to_one,)] = connection.execute(
            "SELECT count(*) FROM deliveries WHERE subscription_id = ?", SUBSCRIPTIONS[:1]
        ).fetchall()
        found = breaches(connection)
    connection.close()

    assert found == []
    assert jobs == to_one == 2_000
    assert by_status == {"pending": 1_000, "dead": 100, "delivered": 6_900}


async def test_questions_find_the_same_in_both_stores(tmp_path: Path) -> None:
    """Both stores are asked the same, and the table has a ratio for every question."""
    (tmp_path / "large").mkdir()
    archives = [
        fill(tmp_path / "remora.db", TINY.small, NOW_MS),
        fill(tmp_path / "large" / "remora.db", TINY.large, NOW_MS),
    ]
    found = list(await reads(archives[0], archives[1], TINY.rounds))
    lines = list(reads_table(TINY, found))

    assert len(found) == 11
    assert all(small_ms > 0 and large_ms > 0 for _, small_ms, large_ms in found)
    assert len(lines) == 2 + 11 + 2


async def test_events_are_delivered_while_it_is_cleaned(tmp_path: Path) -> None:
    """Rows go while events come, every one of them arrives, and no rule is broken afterwards."""
    archive = fill(tmp_path / "remora.db", TINY.large, NOW_MS)
    found = await cleaning(archive, TINY, None)

    assert found.problems == []
    assert sum(found.removed.values()) >= TINY.removed
    assert all(each.count == 40 for each in (*found.before, *found.during))
    assert any("deliveries" in line for line in cleaning_table(found))
