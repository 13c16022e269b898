"""Where usage is kept: the SQL that counts jobs into `usage_daily`, and that reads it back.

Counting follows `events.pos`: an event that ends a job says that the job is to be counted (again). `usage_recounts` names
further jobs: those whose cost was booked later, and those whose event lost its position before it was counted (a trigger
sees to that, so that retention and erasing need not know of counting). Nothing is counted where a job ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import msgspec

from service.db.reader import Reader
from service.db.transaction import Params, Row, Tx, json_set
from service.db.writer import Command, Writer
from service.states import FINAL, FINAL_EVENT_TYPES
from service.usage.counting import Count, Counted, CountedNames, Ended, Place, UsageQuery, changes, counted, tags_of
from service.usage.histogram import Histogram

_FINAL_TYPES: Final = ", ".join(f"'{each}'" for each in FINAL_EVENT_TYPES)
_JOB = """
j.id AS job_id, j.account_id, j.provider, j.operation, coalesce(j.model, '') AS model, coalesce(j.key_id, '') AS key_id,
j.tags, j.status, j.created_at, j.finished_at, j.cost_charged,
c.day AS before_day, c.status AS before_status, c.charged AS before_charged, c.duration_ms AS before_ms
"""
_JOBS = "jobs j LEFT JOIN usage_counted c ON c.job_id = j.id"
_KEY: Final = (
    "account_id",
    *Place._fields[:-1],
)  # a row has all states: rare ones have no rows of their own to be read
_EXISTING = f"""
SELECT {", ".join("u." + name for name in (*_KEY, "counts"))}
FROM @tuples(:places, {", ".join(f"{name} {'bigint' if name == 'day' else 'text'}" for name in _KEY)}) p @then_join usage_daily u
ON {" AND ".join(f"u.{name} = p.{name}" for name in _KEY)}
"""
_SET = f"""
INSERT INTO usage_daily ({", ".join(_KEY)}, counts)
@rows({", ".join(":" + name for name in _KEY)}, :counts)
ON CONFLICT ({", ".join(_KEY)}) DO UPDATE SET counts = excluded.counts
"""
_SET_COUNTED = """
INSERT INTO usage_counted (job_id, day, status, charged, duration_ms)
@rows(:job_id, :day, :status, :charged, :duration_ms)
ON CONFLICT (job_id) DO UPDATE SET day = excluded.day, status = excluded.status, charged = excluded.charged,
    duration_ms = excluded.duration_ms
"""


@dataclass(frozen=True, slots=True)
class Uncounted:
    """What is to be counted next; `until` is `since` where no event came."""

    since: int
    until: int
    recounts: tuple[int, ...]
    jobs: tuple[Ended, ...]

    @property
    def is_nothing(self) -> bool:
        """Whether everything is counted."""
        return self.since == self.until and not self.recounts


@dataclass(frozen=True, slots=True)
class CountIn(Command[None]):
    """Count jobs; what they change was worked out before, outside of the writer."""

    what: Uncounted
    changes: Mapping[tuple[str, Place], Count] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ForgetCounted(Command[None]):
    """Forget as what jobs were counted that are not kept any more, some at a time; what they counted stays."""

    count: int


async def uncounted(reader: Reader, limit: int) -> Uncounted:
    """What has to be counted next: so many events, and so many of the other jobs.

    The reads need no common moment: a job is counted as it is when it is read, and what happens to it later has an
    event after `until`, or a number that is not among `recounts`.
    """
    since = await _progress(reader)
    events = await reader.rows(
        f"SELECT pos, job_id, type IN ({_FINAL_TYPES}) AS ends FROM events WHERE pos > :since ORDER BY pos LIMIT :limit",
        {"since": since, "limit": limit},
    )
    recounts = await reader.rows("SELECT n, job_id FROM usage_recounts ORDER BY n LIMIT :limit", {"limit": limit})
    wanted = [row["job_id"] for row in events if row["ends"]] + [row["job_id"] for row in recounts]
    jobs = await _ended(reader, wanted) if wanted else ()
    until = events[-1]["pos"] if events else since
    return Uncounted(since, until, tuple(row["n"] for row in recounts), jobs)


async def _progress(reader: Reader) -> int:
    row = await reader.row("SELECT pos FROM usage_progress")
    return 0 if row is None else int(row["pos"])


async def _ended(reader: Reader, job_ids: Sequence[str]) -> tuple[Ended, ...]:
    rows = await reader.rows(
        f"SELECT {_JOB} FROM {_JOBS} WHERE j.id IN @set(:ids) ORDER BY j.finished_at, j.id",
        {"ids": json_set(job_ids)},
    )
    return tuple(map(_job, rows))


def _job(row: Row) -> Ended:
    before = None
    if row["before_day"] is not None:
        before = Counted(row["before_day"], row["before_status"], row["before_charged"], row["before_ms"])
    return Ended(
        job_id=row["job_id"],
        account_id=row["account_id"],
        provider=row["provider"],
        operation=row["operation"],
        model=row["model"],
        key_id=row["key_id"],
        tags=tags_of(row["tags"]),
        now=counted(row["status"], row["created_at"], row["finished_at"], row["cost_charged"]),
        before=before,
    )


async def names(reader: Reader, jobs: Sequence[Ended]) -> CountedNames:
    """The names that are kept apart already, for the accounts and days of these jobs."""
    days = {(job.account_id, each.day) for job in jobs for each in (job.now, job.before) if each is not None}
    if not days:
        return CountedNames()
    rows = await reader.rows(
        "SELECT DISTINCT u.account_id, u.day, u.tag, u.model, u.key_id FROM @tuples(:days, account_id text, day bigint) d "
        "@then_join usage_daily u ON u.account_id = d.account_id AND u.day = d.day",
        {"days": json_set(sorted(days))},
    )
    kinds = (("model", "model"), ("key", "key_id"), ("tag", "tag"))
    return CountedNames((row["account_id"], row["day"], kind, row[column]) for row in rows for kind, column in kinds)


async def handle(tx: Tx, commands: Sequence[CountIn]) -> list[Exception | None]:
    """The writer's handler for `CountIn`; jobs that another process has counted are not counted again."""
    for command in commands:
        what = command.what
        tx.write(
            "UPDATE usage_progress SET pos = :until WHERE pos = :since",
            [{"since": what.since, "until": what.until}],
            expect=1,
        )
        await _add(tx, command.changes)
        tx.write(
            _SET_COUNTED,
            [{"job_id": job.job_id, **asdict(job.now)} for job in what.jobs if job.now is not None],
        )
        tx.write("DELETE FROM usage_recounts WHERE n = :n", [{"n": n} for n in what.recounts])
    return [None for _ in commands]


async def _add(tx: Tx, added: Mapping[tuple[str, Place], Count]) -> None:
    if not added:
        return
    by_row: dict[tuple[Any, ...], dict[str, Count]] = {}
    for (account_id, place), count in added.items():
        by_row.setdefault((account_id, *place[:-1]), {})[place.status] = count
    found = await tx.rows(_EXISTING, {"places": json_set(by_row)})
    existing = {tuple(row[name] for name in _KEY): _counts(row["counts"]) for row in found}
    rows: list[Params] = []
    for key, counts in by_row.items():
        total = dict(existing.get(key, ()))
        for status, count in counts.items():
            total[status] = total.get(status, Count()).plus(count)
        rows.append(dict(zip(_KEY, key, strict=True)) | {"counts": _packed(total)})
    tx.write(_SET, rows)


def _packed(counts: Mapping[str, Count]) -> bytes:
    return msgspec.msgpack.encode(
        {status: (jobs, charged, durations.packed()) for status, (jobs, charged, durations) in counts.items()}
    )


_UNTIMED: Final = Histogram()
_decoder: Final = msgspec.msgpack.Decoder(dict[str, tuple[int, int, bytes]])


def _counts(stored: bytes) -> list[tuple[str, Count]]:
    return [
        (status, Count(jobs, charged, Histogram.unpacked(durations)))
        for status, (jobs, charged, durations) in _decoder.decode(stored).items()
    ]


async def handle_forget(tx: Tx, commands: Sequence[ForgetCounted]) -> list[Exception | None]:
    """The writer's handler for `ForgetCounted`: ids sort by time, and so does what retention takes."""
    tx.write(
        "DELETE FROM usage_counted WHERE job_id IN (SELECT job_id FROM usage_counted "
        "WHERE job_id < (SELECT min(id) FROM jobs) ORDER BY job_id LIMIT :count)",
        [{"count": command.count} for command in commands],
    )
    return [None for _ in commands]


def register(writer: Writer) -> None:
    """Name the handlers of this module's commands."""
    writer.handle(CountIn, handle)
    writer.handle(ForgetCounted, handle_forget)


def recount(tx: Tx, jobs: Sequence[tuple[str, str]]) -> None:
    """Have jobs counted anew although no event in the feed says so; each as its account and its id."""
    tx.write(
        "INSERT INTO usage_recounts (account_id, job_id) @rows(:account_id, :job_id)",
        [{"account_id": account_id, "job_id": job_id} for account_id, job_id in jobs],
    )


async def usage(reader: Reader, account_id: str, wanted: UsageQuery) -> list[tuple[Place, Count]]:
    """All that was counted of what is asked, and what is not counted yet: exact at once.

    One statement, and so one moment, reads both, or jobs that are counted in between would be missed or doubled.
    """
    where, params = _conditions(wanted)
    rows = await reader.rows(
        f"""
        SELECT day, tag, provider, operation, model, key_id, counts, NULL AS job_id, NULL AS account_id, NULL AS tags,
            NULL AS status, NULL AS created_at, NULL AS finished_at, NULL AS cost_charged, NULL AS before_day,
            NULL AS before_status, NULL AS before_charged, NULL AS before_ms
        FROM usage_daily WHERE account_id = :account AND day IN @numbers(:days){where}
        UNION ALL
        SELECT NULL, NULL, j.provider, j.operation, coalesce(j.model, ''), coalesce(j.key_id, ''), NULL, j.id, j.account_id,
            j.tags, j.status, j.created_at, j.finished_at, j.cost_charged, c.day, c.status, c.charged, c.duration_ms
        FROM {_JOBS} WHERE j.account_id = :account AND j.id IN (
            SELECT job_id FROM events WHERE account_id = :account AND pos > (SELECT pos FROM usage_progress)
                AND type IN ({_FINAL_TYPES})
            UNION SELECT job_id FROM usage_recounts WHERE account_id = :account
        )
        """,
        params | {"account": account_id, "days": json_set(range(wanted.first, wanted.last + 1))},
    )
    timed = {status.value: wanted.times(status.value) for status in FINAL}
    found: list[tuple[Place, Count]] = []
    tail: list[Ended] = []
    for row in rows:
        if row["job_id"] is not None:
            tail.append(_job(row))
            continue
        values: Any = row  # which is a sequence, too
        place = tuple(values)[: len(_KEY) - 1]
        found += [
            # Durations that nobody asks for are not unpacked: that is the larger part of the work.
            (
                Place._make((*place, status)),
                Count(jobs, charged, Histogram.unpacked(times) if timed[status] else _UNTIMED),
            )
            for status, (jobs, charged, times) in _decoder.decode(row["counts"]).items()
            if not wanted.status or status in wanted.status
        ]
    if tail:
        fresh = changes(tail, await names(reader, tail))
        found += [(place, count) for (_, place), count in fresh.items() if wanted.fits(place)]
    return found


def _conditions(wanted: UsageQuery) -> tuple[str, dict[str, Any]]:
    where = ["tag = :tag" if wanted.tag is not None or not wanted.by_tag else "tag > ''"]
    params: dict[str, Any] = {"tag": wanted.tag or ""} if where[0].endswith(":tag") else {}
    for name in ("provider", "operation", "model", "key_id"):
        if (value := getattr(wanted, name)) is not None:
            where.append(f"{name} = :{name}")
            params[name] = value
    return "".join(f" AND {each}" for each in where), params
