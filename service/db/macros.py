"""Statements for two engines: SQL text with a few macros, for what SQLite and PostgreSQL write differently.

A macro is `@name` or `@name(arguments)`; macros may stand in each other's arguments. A statement is compiled when it is used
first, once for each engine. This file owns the macros and what each engine makes of them. It must not know any statement.

| macro | what it is |
| --- | --- |
| `x IN @set(:ids)`, `FROM @set(tags) t` | the texts of a JSON array, a parameter (see `json_set`) or a column, as `value`; `@numbers(:ids)`: its numbers |
| `FROM @tuples(:pairs, a text, n bigint) p` | the rows of a JSON array of arrays as a table; `p.place` counts them, from 0 |
| `INSERT INTO t (a, b) @rows(:a, 'x')` | the rows of a `write`: as few statements as can be |
| `UPDATE t … FROM @given(id text = :id) v` | the rows of a `write` as a table |
| `@greatest(a, b)`, `@least(a, b)` | of values of which none is NULL; with NULL the engines differ |
| `@position(text, part)` | where a part begins, from 1; 0: nowhere |
| `@has_pair(object, key, value)` | whether a JSON object has this text under this key |
| `@by_index(name)` | the index that SQLite must use; PostgreSQL chooses by itself |
| `ORDER BY @without_index(id)` | SQLite must sort, and not walk the column's index; PostgreSQL chooses by itself |
| `@then_join` | a join whose order SQLite must keep; PostgreSQL chooses by itself |
| `@typed(:again, bigint)` | a parameter whose type PostgreSQL cannot tell from where it stands |
| `@no_bytes` | an empty blob |
| `@number_in(value)` | the number that a blob holds as text |
| `@skip_locked(t)` | ends a claim: rows of this table that another process is claiming are passed over; on SQLite there is one writer |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

Dialect = Literal["sqlite", "postgresql"]

_MACRO: Final = re.compile(r"'[^']*'|@(\w+)(\(?)")  # or a literal, in which there is none
_PARAMETER: Final = re.compile(r"('[^']*')|(?<![:\w]):([A-Za-z_]\w*)")  # the same
_ROW: Final = "\0"  # stands for the row of a `write` until it is known how many there are


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement as one engine takes it.

    Args:
        text: For one row; parameters are `:name`.
        before: What stands before the rows of a set …
        row: … one of them …
        after: … and what follows.
        names: The parameters of a row, in order; none: the statement is for one row only.
    """

    text: str
    before: str = ""
    row: str = ""
    after: str = ""
    names: tuple[str, ...] = ()

    def repeated(self, count: int) -> str:
        """The statement for so many rows; their parameters are `?`, row by row."""
        row = _PARAMETER.sub(lambda found: found[1] or "?", self.row)
        return self.before + ", ".join([row] * count) + self.after


Macro = Callable[[str], str]


def parts_of(text: str) -> list[str]:
    """Arguments, apart where they are not within parentheses or a literal."""
    parts, depth, quoted = [""], 0, False
    for char in text:
        quoted ^= char == "'"
        depth += 0 if quoted else (char == "(") - (char == ")")
        if char == "," and not depth and not quoted:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts]


def _typed(text: str) -> list[tuple[str, str]]:
    """Columns and their types, of `name type, …`."""
    return [(name, kind) for name, _, kind in (part.partition(" ") for part in parts_of(text))]


def _given(text: str) -> list[tuple[str, str, str]]:
    """Columns, their types and values, of `name type = value, …`."""
    parts = (part.partition("=") for part in parts_of(text))
    return [(name, kind, value.strip()) for column, _, value in parts for name, kind in [column.split()]]


def _sqlite_set(text: str) -> str:
    return f"(SELECT value FROM json_each({text}))"


def _sqlite_tuples(text: str) -> str:
    array, columns = text.split(",", 1)
    names = [f"json_extract(value, '$[{place}]') AS {name}" for place, (name, _) in enumerate(_typed(columns))]
    return f"(SELECT key AS place, {', '.join(names)} FROM json_each({array}))"


def _rows_as_table(text: str) -> str:
    names = ", ".join(f"column{place} AS {name}" for place, (name, _, _) in enumerate(_given(text), 1))
    return f"(SELECT {names} FROM (VALUES {_ROW}) AS rows)"


def _sqlite_pair(text: str) -> str:
    json, key, value = parts_of(text)
    return f"EXISTS (SELECT 1 FROM json_each({json}) WHERE key = {key} AND value = {value})"


def _texts(array: str) -> str:
    return f"jsonb_array_elements_text(CAST({array} AS jsonb))"


def _postgresql_tuples(text: str) -> str:
    array, columns = text.split(",", 1)
    names = [f"CAST(value ->> {place} AS {kind}) AS {name}" for place, (name, kind) in enumerate(_typed(columns))]
    elements = f"jsonb_array_elements(CAST({array} AS jsonb)) WITH ORDINALITY AS each (value, number)"
    return f"(SELECT number - 1 AS place, {', '.join(names)} FROM {elements})"


def _postgresql_pair(text: str) -> str:
    json, key, value = parts_of(text)
    return f"(CAST({json} AS jsonb) ->> CAST({key} AS text) = {value})"


#: What an engine makes of a macro: one pair a line, SQLite first, with the reason where it is not plain.
_MACROS: Final[Mapping[str, tuple[Macro, Macro]]] = {
    # PostgreSQL needs the types of what JSON and bare VALUES bring.
    "set": (_sqlite_set, lambda a: f"(SELECT {_texts(a)} AS value)"),
    "numbers": (_sqlite_set, lambda a: f"(SELECT CAST({_texts(a)} AS bigint) AS value)"),
    "tuples": (_sqlite_tuples, _postgresql_tuples),
    "rows": (lambda _: f"VALUES {_ROW}", lambda _: f"VALUES {_ROW}"),
    "given": (_rows_as_table, _rows_as_table),
    "greatest": (lambda a: f"max({a})", lambda a: f"greatest({a})"),
    "least": (lambda a: f"min({a})", lambda a: f"least({a})"),
    "position": (lambda a: f"instr({a})", lambda a: f"strpos({a})"),
    "has_pair": (_sqlite_pair, _postgresql_pair),
    # SQLite keeps no statistics of ours; the plan is said where it would choose a worse one.
    "by_index": (lambda a: f"INDEXED BY {a}", lambda _: ""),
    "then_join": (lambda _: "CROSS JOIN", lambda _: "JOIN"),
    "without_index": (lambda a: f"+{a}", lambda a: a),
    # PostgreSQL must be told the type of a parameter where no column tells it.
    "typed": (lambda a: parts_of(a)[0], lambda a: f"CAST({' AS '.join(parts_of(a))})"),
    "number_in": (
        lambda a: f"CAST(CAST({a} AS TEXT) AS INTEGER)",
        lambda a: f"CAST(convert_from({a}, 'UTF8') AS bigint)",
    ),
    "no_bytes": (lambda _: "x''", lambda _: "CAST('' AS bytea)"),
    "skip_locked": (lambda _: "", lambda a: f"FOR UPDATE OF {a} SKIP LOCKED"),
}
#: What the row of a `write` looks like, by the macro that places it.
_ROWS: Final[Mapping[str, tuple[Macro, Macro]]] = {
    "rows": (lambda a: f"({a})", lambda a: f"({a})"),
    "given": (
        lambda a: f"({', '.join(value for _, _, value in _given(a))})",
        lambda a: f"({', '.join(f'CAST({value} AS {kind})' for _, kind, value in _given(a))})",
    ),
}


@lru_cache(maxsize=4096)
def compiled(sql: str, dialect: Dialect = "sqlite") -> Statement:
    """The statement for an engine.

    Raises:
        ValueError: There is no such macro, its parentheses do not close, or there are two sets of rows.
    """
    rows: list[str] = []
    text = _expanded(sql, 0 if dialect == "sqlite" else 1, rows)
    if not rows:
        return Statement(text)
    if len(rows) > 1:
        raise ValueError(f"a statement writes one set of rows: {sql}")
    before, after = text.split(_ROW)
    names = _names(rows[0])
    if _names(before) or _names(after):
        names = ()  # what stands outside of the row cannot be repeated with it
    return Statement(before + rows[0] + after, before, rows[0], after, names)


def _names(sql: str) -> tuple[str, ...]:
    return tuple(name for _, name in _PARAMETER.findall(sql) if name)


@lru_cache(maxsize=4096)
def numbered(sql: str, rows: int = 0) -> tuple[str, tuple[str, ...]]:
    """The statement as PostgreSQL takes it: parameters by number, and their names in that order.

    Args:
        sql: The statement.
        rows: So many rows of a set, whose parameters come row by row; 0: one row, in which a name has one number.
    """
    statement = compiled(sql, "postgresql")
    names: list[str] = []

    def number(found: re.Match[str]) -> str:
        if found[1]:
            return found[1]
        if rows or found[2] not in names:
            names.append(found[2])
        return f"${len(names) if rows else names.index(found[2]) + 1}"

    if not rows:
        return _PARAMETER.sub(number, statement.text), tuple(names)
    text = statement.before + ", ".join([statement.row] * rows) + statement.after
    return _PARAMETER.sub(number, text), tuple(names)


@lru_cache(maxsize=4096)
def sqlite_text(sql: str) -> str:
    """The statement as SQLite takes it."""
    return compiled(sql).text


def _expanded(sql: str, engine: Literal[0, 1], rows: list[str]) -> str:
    done, place = "", 0
    while found := _MACRO.search(sql, place):
        done += sql[place : found.start()]
        place = found.end()
        name, inner = found[1], ""
        if name is None:
            done += found[0]
            continue
        if name not in _MACROS:
            raise ValueError(f"no macro @{name}: {sql}")
        if found[2]:
            place = closing(sql, place)
            inner = _expanded(sql[found.end() : place - 1], engine, rows)
        if name in _ROWS:
            rows.append(_ROWS[name][engine](inner))
        done += _MACROS[name][engine](inner)
    return done + sql[place:]


def closing(sql: str, start: int) -> int:
    """The place behind the parenthesis that closes what was opened before `start`."""
    depth, quoted = 1, False
    for place in range(start, len(sql)):
        char = sql[place]
        quoted ^= char == "'"
        depth += 0 if quoted else (char == "(") - (char == ")")
        if not depth:
            return place + 1
    raise ValueError(f"a macro is not closed: {sql}")
