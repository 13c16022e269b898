"""A start after the clock was ahead: nothing sleeps until the time that it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.clock import SeededRandomness
from service.db import pullback
from service.db.opening import open_store
from service.db.pullback import PullBack
from tests.scheduler.attic import DAY_MS, OURS, Attic, attic

YEAR_MS = 365 * DAY_MS
WAIT_MS = 300_000


async def _start(old: Attic) -> int:
    old.connection.commit()
    store = await open_store(old.path, None, old.clock, SeededRandomness(1))
    pullback.register(store.writer)
    store.writer.start()
    try:
        return await store.writer.run(PullBack())
    finally:
        await store.close()


def _due(old: Attic) -> dict[str, int]:
    """By how much everything that waits is due from now on."""
    now_ms = old.clock.now_ms()
    return {
        f"{table}.{column}": old.connection.execute(f"SELECT max({column}) FROM {table}").fetchone()[0] - now_ms
        for table, column in pullback._DUE
    }


def _wait(old: Attic, ahead_ms: int) -> None:
    """Something of every kind waits, written under a clock that was so much ahead."""
    due_at, job = old.clock.now_ms() + ahead_ms + WAIT_MS, old.job(-ahead_ms / DAY_MS, pending=True)
    old.insert("inputs", job_id=job, sha256="x", size_bytes=9, storage_key="a/b", sweep_at=due_at)
    numbers = ("since", "until", "next_pos", "last_pos", "looked_at", "queued", "total", "created_at", "lease_epoch")
    replay = {"id": "rpl", "account_id": OURS, "subscription_id": "s", "status": "running", "due_at": due_at}
    old.insert("replays", **replay, types="[]", statuses="[]", **dict.fromkeys(numbers, 0))
    for table, column in pullback._DUE:
        old.connection.execute(f"UPDATE {table} SET {column} = ?", (due_at,))


@pytest.mark.parametrize("ahead_ms", [120_000, YEAR_MS])
async def test_what_was_written_ahead_of_now_is_due_after_its_own_wait(tmp_path: Path, ahead_ms: int) -> None:
    """Every kind of due time comes back by as much as the newest row is ahead."""
    with attic(tmp_path) as old:
        _wait(old, ahead_ms)
        newest_ms = await _start(old)

        assert newest_ms == old.clock.now_ms() + ahead_ms
        assert set(_due(old).values()) == {WAIT_MS}


async def test_due_times_are_pulled_back_once(tmp_path: Path) -> None:
    """Further starts, with nothing new in the store, leave them: each would be another attempt."""
    with attic(tmp_path) as old:
        _wait(old, YEAR_MS)
        await _start(old)
        old.clock.advance(1)
        again = [await _start(old) for _ in range(3)]

        assert set(again) == {old.clock.now_ms() - 1_000 + YEAR_MS}
        assert set(_due(old).values()) == {WAIT_MS - 1_000}


async def test_clock_that_is_ahead_once_more_is_noticed(tmp_path: Path) -> None:
    """By less than before, too."""
    with attic(tmp_path) as old:
        _wait(old, YEAR_MS)
        await _start(old)
        old.job(-0.5, pending=True)
        due_at = old.clock.now_ms() + DAY_MS // 2 + WAIT_MS
        for table, column in pullback._DUE:
            old.connection.execute(f"UPDATE {table} SET {column} = ?", (due_at,))
        await _start(old)

        assert set(_due(old).values()) == {WAIT_MS}


async def test_due_times_of_a_right_clock_stay(tmp_path: Path) -> None:
    """What waits for a day waits for a day."""
    with attic(tmp_path) as old:
        _wait(old, 0)
        await _start(old)

        assert set(_due(old).values()) == {WAIT_MS}
