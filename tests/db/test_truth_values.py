"""Truth values are declared, written, asked for and handed on as such: an engine that tells them from numbers takes all of it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from sqlalchemy import Boolean, Integer
from sqlmodel import SQLModel

import service.db.tables  # noqa: F401 - fills SQLModel's metadata
from service.db.migrate import upgrade
from service.db.sqlite.inline_store import InlineConnection, InlineReader
from service.db.sqlite.sqlite_tx import SQLiteTx
from service.jobs import queries, store
from service.jobs.row import COLUMNS, JobRow, all_values
from service.jobs.view import ResultRow
from service.results import queries as result_queries
from service.states import JobStatus
from tests.generated import ROOT

_COLUMNS = [column for table in SQLModel.metadata.tables.values() for column in table.columns]
FLAGS = {column.name for column in _COLUMNS if isinstance(column.type, Boolean)}
NUMBERS = {column.name for column in _COLUMNS if isinstance(column.type, Integer)} - FLAGS

#: `name = 0`, as it is asked or set; what stands before is no part of a longer name or a parameter.
_COMPARED = re.compile(r"(?<![\w:])(\w+) *(?:=|<>|!=|IS|IS NOT) *[01]\b")
_INSERTED = re.compile(r"INSERT INTO \w+ \(([^()]*)\)\s*VALUES \(([^()]*)\)")


def _confused(text: str) -> Iterator[str]:
    """What a module does with a truth value as with a number, or with a number as with a truth value."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Constant(value=str(sql)):
                yield from (f"SQL: {found[0]}" for found in _COMPARED.finditer(sql) if found[1] in FLAGS)
                for names, values in _INSERTED.findall(sql):
                    pairs = zip(names.split(","), values.split(","), strict=False)
                    yield from (f"SQL: {name.strip()}" for name, value in pairs if _is_number_for_flag(name, value))
            case ast.Call(func=ast.Name("bool"), args=[ast.Subscript(slice=ast.Constant(value=name))]) if (
                name in NUMBERS
            ):
                yield f"bool: {name}"
            case ast.Call(func=ast.Name("bool"), args=[ast.Attribute(attr=name)]) if name in NUMBERS:
                yield f"bool: {name}"
            case ast.Dict(keys=keys, values=values):
                named = {
                    key.value: value for key, value in zip(keys, values, strict=True) if isinstance(key, ast.Constant)
                }
                yield from (f"written: {name}" for name in FLAGS & named.keys() if _is_number(named[name]))
            case ast.Assign(targets=[ast.Attribute(attr=name)], value=value) if name in FLAGS and _is_number(value):
                yield f"written: {name}"
            case ast.AnnAssign(target=ast.Name(name), annotation=ast.Name("int")) if name in FLAGS:
                yield f"declared: {name}"


def _is_number_for_flag(name: str, value: str) -> bool:
    return name.strip() in FLAGS and value.strip() in {"0", "1"}


def _is_number(value: ast.expr) -> bool:
    called = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "int"
    return called or (isinstance(value, ast.Constant) and type(value.value) is int)


def test_truth_values_are_found_among_the_columns() -> None:
    """Those that the tables declare; who adds one that is used as one is told by the test below."""
    assert {"task_confirmed", "overdue", "stored", "refreshed", "stop_at_expiry"} == FLAGS


def test_no_module_takes_a_truth_value_for_a_number() -> None:
    """A column is a truth value if code asks for its truth, or compares it with 0 and 1: it is declared so, and never compared."""
    found = {
        (path.relative_to(ROOT).as_posix(), each)
        for path in (ROOT / "service").rglob("*.py")
        for each in _confused(path.read_text("utf-8"))
    }

    assert found == set()


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ('SQL = "SELECT 1 FROM results WHERE stored = 0"', ["SQL: stored = 0"]),
        ('SQL = f"UPDATE results SET {VOID}, stored = 1"', ["SQL: stored = 1"]),
        ('SQL = "UPDATE results SET restored = 1"', []),
        ('SQL = "INSERT INTO results (idx, stored) VALUES (0, 0)"', ["SQL: stored"]),
        ('SQL = "INSERT INTO results (idx, stored) VALUES (0, FALSE)"', []),
        ('stop = bool(row["lease_epoch"])', ["bool: lease_epoch"]),
        ("stop = bool(job.polls)", ["bool: polls"]),
        ('row = {"refreshed": int(command.refreshed)}', ["written: refreshed"]),
        ('row = {"refreshed": command.refreshed}', []),
        ("job.overdue = 1", ["written: overdue"]),
        ("job.overdue = True", []),
        ("class Row:\n    overdue: int = 0", ["declared: overdue"]),
    ],
)
def test_planted_confusions_are_seen(line: str, seen: list[str]) -> None:
    """A checker that finds nothing would prove nothing."""
    assert list(_confused(line)) == seen


@pytest.fixture
async def connection(tmp_path: Path) -> InlineConnection:
    """Two jobs with a result each: all truth values of the one are true, and none of the other's."""
    upgrade(tmp_path / "remora.db")
    connection = InlineConnection(tmp_path / "remora.db")
    raw = connection.raw
    raw.execute(
        "INSERT INTO accounts (id, name, status, limit_kind, secret, secret_prefix, created_at) "
        "VALUES ('acc_1', 'a', 'active', 'none', x'00', 'whsec_', 0)"
    )
    for truth in (False, True):
        job = JobRow(f"job_{truth}", "acc_1", "p", "o", JobStatus.QUEUED, 1, 9, due_at=1, result_count=1)
        job.task_confirmed = job.overdue = truth
        marks = ", ".join("?" * len(COLUMNS))
        raw.execute(f"INSERT INTO jobs ({', '.join(COLUMNS)}) VALUES ({marks})", all_values(job))
        raw.execute(
            "INSERT INTO results (job_id, idx, source_url, stored, expires_at) VALUES (?, 0, '', ?, 9)", (job.id, truth)
        )
    return connection


@pytest.mark.parametrize("truth", [False, True])
async def test_objects_made_of_rows_have_truth_values(connection: InlineConnection, *, truth: bool) -> None:
    """The engine gives 0 and 1; a job and a result have False and True, whoever read them."""
    reader, tx, job_id = InlineReader(connection), SQLiteTx(connection, 0), f"job_{truth}"
    found = await queries.find(reader, "acc_1", job_id)
    assert found is not None
    jobs = [found, (await store.load(tx, [job_id]))[job_id]]
    results = [
        *await queries.results(reader, job_id),
        *(await queries.results_of(reader, [found]))[job_id],
        *(await store.load_results(tx, [job_id]))[job_id],
    ]
    held = await result_queries.held(reader, job_id, 0)
    of_jobs = [getattr(job, each.name) for job in jobs for each in fields(JobRow) if each.type == "bool"]
    of_results = [getattr(result, each.name) for result in results for each in fields(ResultRow) if each.type == "bool"]
    await connection.close()

    assert held is not None
    assert [len(of_jobs), len(of_results)] == [4, 3]
    assert {*map(repr, of_jobs), *map(repr, of_results), repr(held.stored)} == {repr(truth)}
