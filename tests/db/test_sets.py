"""A set of rows as few statements: the same rows, in the same order, with the same count as row by row."""

from __future__ import annotations

import sqlite3

import pytest

from service.db.sqlite.sqlite_tx import apply

INSERT = "INSERT INTO things (id, name, kind) @rows(:id, :name, 'plain')"


@pytest.fixture
def raw() -> sqlite3.Connection:
    """A database with one table."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute(
        "CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT UNIQUE, kind TEXT, copies INT DEFAULT 1)"
    )
    return connection


@pytest.mark.parametrize("count", [1, 2, 3, 64, 65, 191])
def test_set_of_any_size_is_written_whole_and_in_order(raw: sqlite3.Connection, count: int) -> None:
    """However many rows there are, each is written once with its own values, and all are counted."""
    rows = [{"name": f"n{number}", "id": number} for number in range(count)]
    assert apply(raw, INSERT, rows) == count
    found = raw.execute("SELECT id, name, kind FROM things ORDER BY rowid").fetchall()
    assert found == [(number, f"n{number}", "plain") for number in range(count)]


def test_set_is_written_as_few_statements(raw: sqlite3.Connection) -> None:
    """Of sizes that the driver keeps prepared: 191 rows are two of 64, and one each of 32, 16, 8, 4, 2 and 1."""
    sent: list[str] = []
    raw.set_trace_callback(sent.append)
    apply(raw, INSERT, [{"id": number, "name": f"n{number}"} for number in range(191)])

    assert [each.count("'plain'") for each in sent] == [64, 64, 32, 16, 8, 4, 2, 1]


@pytest.mark.parametrize("row", ["@rows(:id)", "@rows(:id + 0 * :id)"])
def test_parameter_may_be_the_only_one_or_stand_twice(raw: sqlite3.Connection, row: str) -> None:
    """Each row keeps its own value all the same."""
    assert apply(raw, f"INSERT INTO things (id) {row}", [{"id": number} for number in range(5)]) == 5
    assert raw.execute("SELECT id FROM things ORDER BY rowid").fetchall() == [(number,) for number in range(5)]


def test_set_that_meets_itself_follows_its_conflict_clause(raw: sqlite3.Connection) -> None:
    """A row that repeats an earlier one of the same set is treated as if that one had long been there."""
    sql = f"{INSERT} ON CONFLICT (name) DO UPDATE SET copies = things.copies + 1"
    assert apply(raw, sql, [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 3, "name": "a"}]) == 3
    assert raw.execute("SELECT id, name, copies FROM things ORDER BY id").fetchall() == [(1, "a", 2), (2, "b", 1)]


def test_update_counts_only_rows_that_the_guard_lets_through(raw: sqlite3.Connection) -> None:
    """Of three rows one was changed by somebody else: two are written, and the count says so."""
    apply(raw, INSERT, [{"id": number, "name": f"n{number}"} for number in (1, 2, 3)])
    sql = """UPDATE things SET name = v.name FROM @given(id bigint = :id, old text = :old, name text = :name) AS v WHERE things.id = v.id AND things.name = v.old"""
    olds = {1: "n1", 2: "other", 3: "n3"}
    assert apply(raw, sql, [{"id": number, "old": olds[number], "name": f"new{number}"} for number in olds]) == 2
    assert raw.execute("SELECT name FROM things ORDER BY id").fetchall() == [("new1",), ("n2",), ("new3",)]


def test_parameter_outside_the_values_is_applied_row_by_row(raw: sqlite3.Connection) -> None:
    """A statement that cannot be widened still does to each row what it says."""
    sql = "INSERT INTO things (id, name) @rows(:id, :name) ON CONFLICT (id) DO UPDATE SET name = :name || '!'"
    assert apply(raw, sql, [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}, {"id": 2, "name": "c"}]) == 3
    assert raw.execute("SELECT id, name FROM things ORDER BY id").fetchall() == [(1, "b!"), (2, "c")]
