"""The macros of statements: one text, and what each engine makes of it."""

from __future__ import annotations

import sqlite3

import pytest

from service.db.macros import compiled, sqlite_text


def test_statement_without_macros_stays_as_it_is() -> None:
    """Both engines are given the same."""
    sql = "SELECT id, coalesce(model, ':none @set(:ids) it''s') AS model FROM jobs WHERE id = :id"

    assert sqlite_text(sql) == sql
    assert compiled(sql, "postgresql").text == sql


@pytest.mark.parametrize(
    ("sql", "sqlite", "postgresql"),
    [
        (
            "id IN @set(:ids)",
            "id IN (SELECT value FROM json_each(:ids))",
            "id IN (SELECT jsonb_array_elements_text(CAST(:ids AS jsonb)) AS value)",
        ),
        (
            "id IN @numbers(:ids)",
            "id IN (SELECT value FROM json_each(:ids))",
            "id IN (SELECT CAST(jsonb_array_elements_text(CAST(:ids AS jsonb)) AS bigint) AS value)",
        ),
        (
            "@greatest(@least(a, coalesce(b, 0)), 1)",
            "max(min(a, coalesce(b, 0)), 1)",
            "greatest(least(a, coalesce(b, 0)), 1)",
        ),
        (
            "@has_pair(o, :key, :value)",
            "EXISTS (SELECT 1 FROM json_each(o) WHERE key = :key AND value = :value)",
            "(CAST(o AS jsonb) ->> CAST(:key AS text) = :value)",
        ),
        ("jobs @by_index(ix_jobs)", "jobs INDEXED BY ix_jobs", "jobs "),
        ("@position(url, '),(') + 3", "instr(url, '),(') + 3", "strpos(url, '),(') + 3"),
        ("a @then_join b ON TRUE", "a CROSS JOIN b ON TRUE", "a JOIN b ON TRUE"),
        ("@typed(:at, bigint) IS NULL", ":at IS NULL", "CAST(:at AS bigint) IS NULL"),
        ("ORDER BY @without_index(id)", "ORDER BY +id", "ORDER BY id"),
        ("LIMIT :n @skip_locked(t)", "LIMIT :n ", "LIMIT :n FOR UPDATE OF t SKIP LOCKED"),
        ("body = @no_bytes", "body = x''", "body = CAST('' AS bytea)"),
    ],
)
def test_macro_is_what_each_engine_says(sql: str, sqlite: str, postgresql: str) -> None:
    """Arguments may hold macros, parentheses, and literals with either."""
    assert compiled(sql).text == sqlite
    assert compiled(sql, "postgresql").text == postgresql


def test_rows_of_a_write_are_one_row_or_many() -> None:
    """Alone they keep their names; as a set their parameters are counted through."""
    statement = compiled("INSERT INTO t (a, b, c) @rows(:a, 'x:y, :z)', :b) ON CONFLICT (a) DO UPDATE SET b = ':c'")
    after = "ON CONFLICT (a) DO UPDATE SET b = ':c'"

    assert statement.text == f"INSERT INTO t (a, b, c) VALUES (:a, 'x:y, :z)', :b) {after}"
    assert statement.names == ("a", "b")
    assert statement.repeated(2) == f"INSERT INTO t (a, b, c) VALUES (?, 'x:y, :z)', ?), (?, 'x:y, :z)', ?) {after}"


def test_given_rows_have_names_and_types() -> None:
    """As a table in a statement: PostgreSQL must be told what the values are."""
    sql = "UPDATE t SET a = v.new FROM @given(id text = :id, new bigint = coalesce(:new, 0)) AS v WHERE t.id = v.id"
    around = "UPDATE t SET a = v.new FROM (SELECT column1 AS id, column2 AS new FROM (VALUES {}) AS rows) AS v WHERE t.id = v.id"

    assert compiled(sql).text == around.format("(:id, coalesce(:new, 0))")
    assert compiled(sql, "postgresql").text == around.format("(CAST(:id AS text), CAST(coalesce(:new, 0) AS bigint))")


def test_rows_beside_another_parameter_are_not_repeated() -> None:
    """It would have to be repeated with them."""
    assert compiled("INSERT INTO t (a) @rows(:a) ON CONFLICT (a) DO UPDATE SET b = :b").names == ()


def test_tuples_are_a_table_in_their_order() -> None:
    """Run on the engine: a JSON array of arrays, by name and counted."""
    sql = "SELECT p.place, p.name, p.n + 1 FROM @tuples(:pairs, name text, n bigint) p ORDER BY p.place DESC"
    raw = sqlite3.connect(":memory:")
    found = raw.execute(sqlite_text(sql), {"pairs": '[["a", 1], ["b)", 2]]'}).fetchall()
    raw.close()

    assert found == [(1, "b)", 3), (0, "a", 2)]
    assert "WITH ORDINALITY" in compiled(sql, "postgresql").text


@pytest.mark.parametrize("sql", ["x IN @sets(:ids)", "x IN @set(:ids", "x = 'a' || @nobody", "@rows(:a) @rows(:b)"])
def test_statement_that_no_engine_could_take_is_refused(sql: str) -> None:
    """With its text, when it is first used."""
    with pytest.raises(ValueError, match=r"(no macro @\w+|a macro is not closed|one set of rows): "):
        compiled(sql)
