"""Lists of jobs: exact under every filter, through an index always, and bounded also where nothing is found."""

from __future__ import annotations

import itertools
import json
import random
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.db.macros import sqlite_text
from service.db.migrate import migrations_directory, upgrade
from service.db.sqlite.inline_store import InlineConnection, InlineReader
from service.ids import earliest
from service.jobs.listing.list_queries import JobFilter, ListedJobs, export_page, export_query, list_jobs, plan_of
from tests.db.test_migrate import upgrade_to

BEGIN = 1_750_000_000_000
LONG = "x" * 64
_INSERT = """
INSERT INTO jobs (id, account_id, provider, operation, status, seq, input, job_metadata, tags, submit_tries, submit_failures,
    task_confirmed, provider_task_id, cost_basis, result_count, polls, callbacks, hint_tries, poll_failures, not_found_polls, overdue,
    created_at, finished_at, expires_at, error_code, lease_epoch)
VALUES (:id, :account, :provider, :operation, :status, 2, '{}', :metadata, :tags, 1, 0, :confirmed, :task, 'unknown', 1, 0, 0, 0, 0, 0, 0,
    :at, :at, :at, 'expired', 1)
"""


class Archive:
    """A store with finished jobs, and the same jobs in plain Python."""

    def __init__(self, path: Path, revision: str = "head") -> None:
        upgrade_to(path, revision)
        self.connect(path)
        self.jobs: list[dict[str, Any]] = []
        for account in ("acc_1", "acc_2"):
            self.raw.execute(
                "INSERT INTO accounts (id, name, status, limit_kind, secret, secret_prefix, created_at) "
                "VALUES (?, 'a', 'active', 'none', x'00', 'whsec_', 0)",
                (account,),
            )

    def connect(self, path: Path) -> None:
        """Open it."""
        connection = InlineConnection(path)
        self.raw = connection.raw
        self.reader = InlineReader(connection)

    def add(self, number: int, **more: Any) -> None:
        """A job, a second after the one before."""
        at = BEGIN + number * 1000
        job = {
            "id": f"{earliest('job', at)}-7000-8000-{number:012x}",
            "account": "acc_1",
            "provider": "p1",
            "operation": "o1",
            "status": "completed",
            "metadata": {},
            "tags": [],
            "task": None,
            "confirmed": 1,
            "at": at,
        } | more
        self.jobs.append(job)
        self.raw.execute(_INSERT, job | {"metadata": json.dumps(job["metadata"]), "tags": json.dumps(job["tags"])})

    def oracle(self, wanted: JobFilter) -> list[str]:
        """What the filters mean, written out."""

        def fits(job: dict[str, Any]) -> bool:
            return (
                job["account"] == "acc_1"
                and (not wanted.status or job["status"] in wanted.status)
                and wanted.provider in {None, job["provider"]}
                and wanted.operation in {None, job["operation"]}
                and (wanted.tag is None or wanted.tag in job["tags"])
                and (wanted.provider_task_id is None or (job["task"] == wanted.provider_task_id and job["confirmed"]))
                and all(job["metadata"].get(name) == value for name, value in wanted.metadata)
                and (wanted.created_after is None or job["at"] > wanted.created_after)
                and (wanted.created_before is None or job["at"] < wanted.created_before)
            )

        return sorted((job["id"] for job in self.jobs if fits(job)), reverse=True)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """An empty one."""
    archive = Archive(tmp_path / "remora.db")
    yield archive
    archive.raw.close()


def _combinations() -> list[JobFilter]:
    some: dict[str, tuple[Any, ...]] = {
        "status": ((), ("failed",), ("failed", "cancelled", "completed")),
        "provider": (None, "p2"),
        "operation": (None, "o2"),
        "tag": (None, "t1"),
        "provider_task_id": (None, "task1"),
        "metadata": ((), (("k", "v1"),), (("k", "v1"), ("long", LONG + "a"))),
        "created_after": (None, BEGIN + 40_000),
        "created_before": (None, BEGIN + 160_000),
    }
    return [JobFilter(**dict(zip(some, each, strict=True))) for each in itertools.product(*some.values())]


def _filled(archive: Archive, count: int) -> None:
    chance = random.Random(7)
    for number in range(count):
        archive.add(
            number,
            account=chance.choice(("acc_1", "acc_1", "acc_1", "acc_2")),
            provider=chance.choice(("p1", "p2", "p2")),
            operation=chance.choice(("o1", "o2", "o2")),
            status=chance.choice(("completed", "failed", "cancelled", "expired")),
            tags=chance.sample(["t1", "t2", "t3"], chance.randrange(4)),
            metadata=chance.choice(
                ({}, {"k": "v1"}, {"k": "v1", "long": LONG + "a"}, {"k": "v1", "long": LONG + "b"}, {"k": "v2"})
            ),
            task=chance.choice((None, "task1", "task2")),
            confirmed=chance.choice((0, 1)),
        )


async def _all_pages(archive: Archive, wanted: JobFilter, *, limit: int, scan: int) -> list[str]:
    found: list[str] = []
    before: str | None = None
    for _ in range(1_000):
        page: ListedJobs = await list_jobs(archive.reader, "acc_1", replace(wanted, before_id=before), limit, scan)
        assert len(page.jobs) <= limit
        assert before is None or page.next_id is None or page.next_id < before
        found += [job.id for job in page.jobs]
        before = page.next_id
        if before is None:
            return found
    raise AssertionError("the pages have no end")


async def test_every_combination_of_filters_lists_exactly_what_fits(archive: Archive) -> None:
    """Over pages of any size that look at any number of jobs: each job that fits, once, newest first."""
    _filled(archive, 240)
    sizes = itertools.cycle([(3, 7), (50, 20_000), (1, 1), (200, 11)])
    for wanted in _combinations():
        limit, scan = next(sizes)
        assert await _all_pages(archive, wanted, limit=limit, scan=scan) == archive.oracle(wanted), wanted


async def test_every_combination_exports_exactly_what_fits(archive: Archive) -> None:
    """The same jobs, oldest first, also where a label leads."""
    _filled(archive, 240)
    for wanted in _combinations():
        found: list[str] = []
        at: str | None = ""
        while at is not None:
            page = await export_page(archive.reader, "acc_1", wanted, (at, "~"), 13)
            found += [row["id"] for row in page.rows]
            at = page.last
        assert found == archive.oracle(wanted)[::-1], wanted


def _plan(raw: sqlite3.Connection, sql: str, params: Any) -> str:
    return "\n".join(row["detail"] for row in raw.execute(f"EXPLAIN QUERY PLAN {sqlite_text(sql)}", params))


def _faults(plan: str, *, sorts: bool = False) -> list[str]:
    """Lines of a plan that look at rows without an index, or sort where that is not said to be harmless."""
    lines = [line for line in plan.splitlines() if not re.search(r"json_each|CONSTANT ROW", line)]
    return [
        line
        for line in lines
        if line.startswith("SCAN") or "AUTOMATIC" in line or ("TEMP B-TREE" in line and not sorts)
    ]


def test_every_combination_of_filters_is_served_by_an_index(archive: Archive) -> None:
    """Whatever is asked, the engine searches an index in the order of the list: nothing is scanned, and nothing sorted."""
    _filled(archive, 50)
    for analysed in (False, True):
        if analysed:  # with figures the planner chooses otherwise than without
            archive.raw.execute("ANALYZE")
        for wanted in _combinations():
            for label in range(max(1, len(wanted.labels))):
                plan = plan_of("acc_1", wanted, label)
                params = {**plan.params, "scan": 10, "limit": 10}
                one_task = wanted.provider_task_id is not None  # which only a few have
                # Of many labels the planner thinks that next to nothing has them all, and may sort what is left of
                # the jobs up to the edge; without an edge nothing bounds a sort.
                for sql, sorts in ((plan.page(), one_task or len(plan.rest) > 3), (plan.edge(), one_task)):
                    assert _faults(_plan(archive.raw, sql, params), sorts=sorts) == [], (wanted, sql)
            bounds = {"account": "acc_1", "behind": "", "until": "~", "limit": 10}
            assert _faults(_plan(archive.raw, *export_query(wanted, bounds))) == [], wanted


def test_scan_is_seen_in_a_plan(archive: Archive) -> None:
    """The check before would find what it is for."""
    for sql in (
        "SELECT id FROM jobs WHERE provider = 'p1' ORDER BY id DESC",
        "SELECT id FROM jobs WHERE account_id = 'acc_1' ORDER BY created_at",
    ):
        assert _faults(_plan(archive.raw, sql, {})) != []


def _steps(raw: sqlite3.Connection) -> list[int]:
    steps = [0]

    def count() -> int:
        steps[0] += 1
        return 0

    raw.set_progress_handler(count, 100)
    return steps


@pytest.mark.parametrize(
    "wanted",
    [
        JobFilter(provider="none"),
        JobFilter(status=("completed", "failed"), operation="none"),
        JobFilter(tag="all", provider="none"),
        JobFilter(tag="none"),
        JobFilter(metadata=(("k", "none"),)),
        JobFilter(tag="all", metadata=(("k", LONG + "none"),)),
        JobFilter(created_before=BEGIN),
    ],
)
async def test_finding_nothing_costs_the_same_however_many_jobs_there_are(archive: Archive, wanted: JobFilter) -> None:
    """What one page of a filter that matches nothing takes is bounded: four times the jobs take no more."""
    taken = []
    for low, high in ((0, 1_000), (1_000, 4_000)):
        for number in range(low, high):
            archive.add(number, tags=["all"], metadata={"k": LONG + str(number)})
        steps = _steps(archive.raw)
        await list_jobs(archive.reader, "acc_1", wanted, 50, 200)
        taken.append(steps[0])

    assert taken[1] <= taken[0] + 2


async def test_rarest_label_leads(archive: Archive) -> None:
    """One order among many jobs with the same tag is found at once, whichever of the two was given first."""
    for number in range(3_000):
        archive.add(number, tags=["all"], metadata={"order": str(number), "shop": "all"})
    for wanted in (
        JobFilter(tag="all", metadata=(("order", "17"),)),
        JobFilter(metadata=(("shop", "all"), ("order", "17"))),
    ):
        page = await list_jobs(archive.reader, "acc_1", wanted, 50, scan=100)
        assert ([job.id for job in page.jobs], page.next_id) == (archive.oracle(wanted), None)


async def test_labels_come_and_go_with_their_job(archive: Archive) -> None:
    """A job without tags and metadata has none; what a job has goes when the job does."""
    archive.add(0)
    archive.add(1, tags=["a", "a", "b"], metadata={"k": LONG + "y", "tag": "a"})
    found = [tuple(row) for row in archive.raw.execute("SELECT name, value, job_id FROM labels ORDER BY name, value")]
    job_id = archive.jobs[1]["id"]
    archive.raw.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
    [(left,)] = archive.raw.execute("SELECT count(*) FROM labels")

    assert found == [
        ("metadata.k", LONG, job_id),
        ("metadata.tag", "a", job_id),
        ("tag", "a", job_id),
        ("tag", "b", job_id),
    ]
    assert left == 0


async def test_jobs_from_before_the_index_are_found_through_it(tmp_path: Path) -> None:
    """What the migration writes for jobs that were there is what comes with a new one."""
    [migration] = migrations_directory().glob("versions/*_labels.py")
    before = re.findall(r'^down_revision = "(\d+)"', migration.read_text("utf-8"), re.MULTILINE)[0]
    old, new = Archive(tmp_path / "old.db", before), Archive(tmp_path / "new.db")
    for archive in (old, new):
        _filled(archive, 60)
    old.raw.close()
    upgrade(tmp_path / "old.db")
    old.connect(tmp_path / "old.db")
    wanted = JobFilter(tag="t1", metadata=(("long", LONG + "a"),))
    labels = [
        [tuple(row) for row in archive.raw.execute("SELECT account_id, name, value, job_id FROM labels")]
        for archive in (old, new)
    ]
    found = await _all_pages(old, wanted, limit=5, scan=20)
    for archive in (old, new):
        archive.raw.close()

    assert labels[0] == labels[1]
    assert labels[0]
    assert found == old.oracle(wanted)
