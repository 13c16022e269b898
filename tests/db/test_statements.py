"""Every statement of the service names tables and columns that there are, and says what differs between engines by macros."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Final

import asyncpg
import pytest

from service.db import pullback
from service.db.macros import closing, compiled, numbered, parts_of
from service.db.migrate import upgrade
from service.db.sqlite.inline_store import InlineConnection
from service.deliveries import claim_store
from service.deliveries.delivery_queries import DeliveryFilter, list_deliveries
from service.jobs import queries
from service.jobs import store as job_store
from service.jobs.listing import list_queries
from service.jobs.listing.list_queries import JobFilter
from service.jobs.row import MUTABLE
from tests import postgres
from tests.db.statements import Literal, is_whole, literals, modules, values
from tests.db.test_plans import QUESTIONS, Recorder

#: SQLite's own words; what they do has a macro, or a way to be said that both engines know.
ONLY_SQLITE: Final = re.compile(
    r"json_each|json_extract|->|INDEXED BY|CROSS JOIN|\bx'|\binstr\(|\bOR (?:REPLACE|IGNORE)\b|LIMIT -1|\bcolumn\d|\bGLOB\b|\browid\b"
    r"|\bVALUES \(:|\bstored = [01]\b|[( ]\+[a-z]"
)
_EXTREME: Final = re.compile(r"(?<!@)\b(?:max|min)\(")
_PARAMETER: Final = re.compile(r"(?<![:\w]):(\w+)")
#: Modules that ask a SQLite file itself: the engine, and what examines a database while nobody serves it.
OF_SQLITE: Final = {
    "service.db.sqlite.sqlite_engine",
    "service.db.macros",
    "service.db.inspection.examine",
    "service.db.migrate",
    "service.db.keyring",
}
#: Parameters that hold small numbers: PostgreSQL takes what it cannot tell for 32 bits, in which no time fits.
SMALL: Final = {"count", "lanes", "scan"}
#: Parameters that hold a time: one that stands for itself is a text to PostgreSQL.
TIMES: Final = {"now", "grace_ms", "lease_until"}
#: Where modules are that ask a PostgreSQL itself, with its own words and parameters.
OF_POSTGRESQL: Final = "service.db.postgres."


def _only_sqlite(sql: str) -> str | None:
    """A word of SQLite's in a statement; `max` of several values, too, which elsewhere is an aggregate only."""
    if found := ONLY_SQLITE.search(sql):
        return found[0]
    several = (
        found for found in _EXTREME.finditer(sql) if len(parts_of(sql[found.end() : closing(sql, found.end()) - 1])) > 1
    )
    return next((found[0] for found in several), None)


class Statements:
    """What is known of all statements."""

    def __init__(self, found: Iterator[tuple[ModuleType, str]], samples: list[str]) -> None:
        self.literals: list[Literal] = []
        self.by_module: dict[str, str] = {}
        for module, source in found:
            self.literals += literals(module, source)
            self.by_module |= dict.fromkeys(values(module, source), module.__name__)
        self.by_module |= {each.strip(): "sample" for each in samples if each.strip() not in self.by_module}
        known = "\n\n".join(self.by_module)
        # What is a part of another statement is prepared with it.
        self.whole = [each for each in self.by_module if known.count(each) == 1]

    def unknown(self) -> list[str]:
        """Where a statement is written that no value, no text and no sample tells."""
        return [each.where for each in self.literals if not each.is_in(self.by_module)]

    def faults(self, raw: sqlite3.Connection) -> list[str]:
        """What SQLite says to those that cannot be prepared."""
        found = []
        for sql in self.whole:
            if self.by_module[sql].startswith(OF_POSTGRESQL):
                continue
            statement = compiled(sql)
            text = statement.text
            given = (
                (None,) * count
                if (count := re.sub(r"'[^']*'", "", text).count("?"))
                else dict.fromkeys(_PARAMETER.findall(text))
            )
            try:
                raw.execute(f"EXPLAIN {text}", given)
                if statement.names:
                    raw.execute(f"EXPLAIN {statement.repeated(2)}", (None,) * 2 * len(statement.names))
            except sqlite3.Error as error:
                found.append(f"{self.by_module[sql]}: {error}: {' '.join(sql.split())[:100]}")
        return found

    async def faults_of_postgresql(self, url: str) -> list[str]:
        """What PostgreSQL says to those that cannot be prepared."""
        found = []
        connection = await asyncpg.connect(url)
        for sql in self.whole:
            if self.by_module[sql] in OF_SQLITE:
                continue
            for rows in (0, 2) if compiled(sql, "postgresql").names else (0,):
                text, names = numbered(sql, rows)
                try:
                    types = [each.name for each in (await connection.prepare(text)).get_parameters()]
                except asyncpg.PostgresError as error:
                    found.append(f"{self.by_module[sql]}: {error}: {' '.join(sql.split())[:100]}")
                    continue
                found += [
                    f"{self.by_module[sql]}: :{name} is {kind}"
                    for name, kind in zip(names, types, strict=bool(names))
                    if (kind == "int4" and name not in SMALL) or (kind == "text" and name in TIMES)
                ]
        await connection.close()
        return found

    def of_sqlite_only(self) -> list[str]:
        """Statements that are not written for both engines."""
        both = [
            each
            for each in self.whole
            if self.by_module[each] not in OF_SQLITE and not self.by_module[each].startswith(OF_POSTGRESQL)
        ]
        texts = {each: compiled(each, "postgresql") for each in both}
        return [
            f"{self.by_module[each]}: {found}"
            for each, statement in texts.items()
            if (found := _only_sqlite(each) or re.search(r"@\w+|\0", statement.text))
        ]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """A database that is up to date."""
    path = tmp_path_factory.mktemp("statements") / "remora.db"
    upgrade(path)
    connection = InlineConnection(path)
    yield connection.raw
    connection.raw.close()


def _samples(raw: sqlite3.Connection) -> list[str]:
    """What functions put together: of every way through them."""
    made = [pullback._PULL.format(table=table, column=column) for table, column in pullback._DUE]
    made += [job_store._update_of(MUTABLE)]
    wishes = itertools.product((None, 1), (False, True))
    made += [claim_store._rows_for(claim_store.Wish("l", 1, at, None, a_try)) for at, a_try in wishes]
    filters = [JobFilter(), JobFilter(status=("queued", "failed")), JobFilter(provider_task_id="t")]
    long = (("k", "v" * 64), ("l", "w"))
    filters += [
        JobFilter(("queued",), "p", "o", "tag", None, long, 1, 2, "job_9"),
        JobFilter(("queued",), "p", "o", None, "t", long, 1, 2, "job_9"),
    ]
    for wanted in filters:
        plan = list_queries.plan_of("acc_1", wanted)
        made += [plan.edge(), plan.page(), list_queries.export_query(wanted, {})[0]]
    return made + asyncio.run(_asked(raw))


async def _asked(raw: sqlite3.Connection) -> list[str]:
    raw.execute(
        "INSERT OR IGNORE INTO accounts (id, name, status, limit_kind, secret, secret_prefix, created_at) "
        "VALUES ('acc_1', 'a', 'active', 'monthly', x'00', 'whsec_', 0)"
    )
    recorder = Recorder(raw)
    for question in QUESTIONS.values():
        await question(recorder)
    await queries.active_providers(recorder)
    await queries.submitting_providers(recorder)
    for statuses, job, before in itertools.product(((), ("dead",), ("dead", "skipped")), (None, "job_1"), (None, "z")):
        await list_deliveries(recorder, "acc_1", DeliveryFilter(statuses, "sub_1", job, None, before), 9)
    return [sql for sql, _ in recorder.asked]


@pytest.fixture(scope="module")
def statements(raw: sqlite3.Connection) -> Statements:
    """All of the service's."""
    return Statements(modules(), _samples(raw))


def test_statement_is_found_wherever_it_is_written(statements: Statements) -> None:
    """No text of a statement is in the source that was not prepared, by itself or within another."""
    assert statements.unknown() == []
    assert len(statements.whole) > 200


def test_statement_names_tables_and_columns_that_there_are(statements: Statements, raw: sqlite3.Connection) -> None:
    """Each can be prepared on a database of the newest revision, for one row and for two."""
    assert statements.faults(raw) == []


async def test_statement_can_be_prepared_on_postgresql(statements: Statements) -> None:
    """By the server itself: names, types of parameters, words; a planted one that only SQLite knows is seen."""
    url = await postgres.database()
    planted = Statements(
        iter([]),
        [
            "SELECT colour FROM jobs",
            "SELECT id, :now AS now FROM jobs",
            "SELECT id FROM jobs WHERE due_at = CASE WHEN :grace_ms > 0 THEN 1 END",
        ],
    )

    assert await statements.faults_of_postgresql(url) == []
    assert len(await planted.faults_of_postgresql(url)) == 3


def test_statement_is_written_for_both_engines(statements: Statements) -> None:
    """Outside of what knows SQLite no word is SQLite's own, and PostgreSQL's text has no macro left."""
    assert statements.of_sqlite_only() == []


_PLANTED = '''"""Planted."""
from service.db.leases import Leased
_GOOD = "SELECT id FROM jobs"
_TWICE = ["SELECT ida FROM jobs", """
SELECT ida FROM jobs
"""]
_BAD = "SELECT idd FROM jobs"
_TABLE = f"DELETE FROM job WHERE id IN ({_GOOD})"
_MANY = {"a": ("UPDATE jobs SET due = 1",)}
_LEASED = Leased("lanes", ("id",))
def f(tx, name):
    """SELECT this is FROM a docstring."""
    where = "provider = :provider"
    tx.rows(f"SELECT id FROM jobs WHERE {where} AND colour = 1", {})
    tx.rows(f"SELECT status FROM jobs WHERE {name} = 1", {})
    tx.write("INSERT INTO lanes (id, account_idd) @rows(:id, :account_id)", [])
'''


def test_planted_faults_are_seen(tmp_path: Path, raw: sqlite3.Connection) -> None:
    """A wrong name in a value, in a list, in a lease, and in a function; and what only a call would tell."""
    path = tmp_path / "planted.py"
    path.write_text(_PLANTED, "utf-8")
    spec = importlib.util.spec_from_file_location("planted", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    planted = Statements(iter([(module, _PLANTED)]), [])

    faults = "\n".join(planted.faults(raw))
    for wrong in ("idd", "ida", "job", "due", "lease_owner", "colour", "account_idd"):
        assert re.search(rf"(no such \w+: |no column named ){wrong}\b", faults), (wrong, faults)
    assert planted.unknown() == ["planted:15"]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT id FROM jobs INDEXED BY ix_jobs_for_list",
        "SELECT id FROM jobs WHERE id IN (SELECT value FROM json_each(:ids))",
        "INSERT OR REPLACE INTO meta (key, value) SELECT :key, :value",
        "UPDATE accounts SET feed_floor = max(feed_floor, :pos)",
        "UPDATE accounts SET feed_floor = max(coalesce(feed_floor, 0), 1)",
        "UPDATE accounts SET feed_floor = max((SELECT max(pos) FROM events), 1)",
        "UPDATE results SET stored = 1",
        "UPDATE callbacks SET body = x''",
        "SELECT jobs.id FROM labels CROSS JOIN jobs ON jobs.id = labels.job_id",
        "INSERT INTO lanes (id) VALUES (:id)",
        "SELECT id FROM jobs LIMIT -1 OFFSET 2",
        "SELECT id FROM jobs WHERE +status = 'queued'",
    ],
)
def test_word_of_one_engine_is_seen(sql: str) -> None:
    """Planted: each is good SQLite, and has another way to be said."""
    planted = Statements(iter([]), [sql])

    assert is_whole(sql)
    assert planted.of_sqlite_only() != []
