"""The benchmark of claims finds what it put there; and no claim is more work where more is due."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.claims import COPIES, DELIVERIES, JOBS, SWEPT, Due, timed

ROWS = {"submit": JOBS, "poll": JOBS, "delivery": DELIVERIES, "copy": COPIES, "deadline": SWEPT, "abandoned": SWEPT}


def due_in(directory: Path, count: int, accounts: int) -> Due:
    """So many of everything."""
    directory.mkdir()
    due = Due(directory / "remora.db")
    due.fill(count, accounts)
    return due


async def steps(due: Due, kind: str) -> int:
    """What a claim costs, in hundreds of SQLite's own instructions."""
    _, claim = due.claims()[kind]
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    due.connection.raw.set_progress_handler(count, 100)
    assert len(await claim()) == ROWS[kind]
    due.connection.raw.set_progress_handler(None, 0)
    return counted


@pytest.mark.parametrize("accounts", [1, 300])
async def test_no_claim_is_more_work_where_more_is_due(tmp_path: Path, accounts: int) -> None:
    """Ten times as many jobs, deliveries and copies: the same number of instructions, give or take a fifth."""
    few, many = due_in(tmp_path / "few", 3_000, accounts), due_in(tmp_path / "many", 30_000, accounts)
    found = {kind: (await steps(few, kind), await steps(many, kind)) for kind in ROWS}
    for due in (few, many):
        await due.writer.close()

    assert {kind: both for kind, both in found.items() if both[1] > 1.2 * both[0]} == {}


async def test_claim_is_timed_beside_a_look(tmp_path: Path) -> None:
    """Both are done as often as was asked, and the ratio is of the medians."""
    due = due_in(tmp_path / "due", 1_000, 3)
    table, claim = due.claims()["submit"]
    found = await timed(due, table, claim, 3)
    await due.writer.close()

    assert found.rows == JOBS
    assert found.ratio == found.claim_s / found.look_s > 0
