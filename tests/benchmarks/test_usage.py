"""The usage benchmark's store is one that the service could have left, and its questions find what was put there."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from benchmarks.ended import DUE, RUNNING, fill
from benchmarks.usage import MOST_RATIO, Plan, ask_all, opened, table
from service.db.inspection.invariants import breaches

NOW_MS = 1_795_000_000_000
JOBS = 400


def test_store_keeps_the_rules(tmp_path: Path) -> None:
    """Every rule; only the jobs that still run have no timelines."""
    ended = fill(tmp_path / "remora.db", JOBS, NOW_MS)
    connection = sqlite3.connect(ended.path)
    found = breaches(connection)
    [(jobs,)] = connection.execute("SELECT count(*) FROM jobs").fetchall()
    connection.close()

    assert found == []
    assert jobs == JOBS + RUNNING
    assert len(set(ended.some)) == 100


async def test_questions_find_the_same_in_both_stores(tmp_path: Path) -> None:
    """Both are asked the same and have as much to find; the table has a ratio for every question."""
    asked = []
    for name, jobs in (("small", JOBS), ("large", 2 * JOBS)):
        (tmp_path / name).mkdir()
        asked.append(await opened(fill(tmp_path / name / "remora.db", jobs, NOW_MS)))
    found = {name: [await question() for question in each] for name, each in _questions(asked)}
    lines = list(table(Plan(JOBS, 2 * JOBS, 2), await ask_all(asked[0], asked[1], 2)))
    for each in asked:
        await each.store.close()

    assert found["jobs past their deadline or overdue"] == [2 * DUE, 2 * DUE]
    assert found["results whose end is due"] == [DUE, DUE]
    assert found["the newest 50 jobs with their results"] == [50, 50]
    assert found["… by tag"] == [8, 8]
    assert len(lines) == 2 + len(found) + 2
    assert str(MOST_RATIO) in lines[-1]


def _questions(asked: list) -> list:  # type: ignore[type-arg]
    each = [one.questions() for one in asked]
    return [(name, [questions[name] for questions in each]) for name in each[0]]
