"""Lists and exports of jobs, narrowed to what a caller asks for. Nothing crosses accounts: every query names one.

A list walks one index, newest first: that of a label (a tag or a pair of metadata), of a provider's task, of states, or of
all the account's jobs. What the index does not decide is held against each job on the way, and no page looks at more than
`SCAN` of them: it may have few entries, or none, and yet tell where the next one begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from service.db.reader import Reader
from service.db.transaction import Params, Row, json_set
from service.ids import earliest
from service.jobs.row import COLUMNS, JobRow, from_row

SCAN: Final = 20_000  # jobs that one page looks at: some twenty milliseconds
LABEL_CHARS: Final = 64  # of a value that the index holds; tags are no longer than that
#: An id is no older than its job, and younger only where the clock was set back since: ids so much younger than
#: `created_before` are looked at, too.
CLOCK_STEP_MS: Final = 3_600_000

TAG: Final = "tag"
METADATA: Final = "metadata."  # and the key, as the filter is called
_LAST: Final = "~"  # no id sorts behind it
_EXPORTED: Final = (
    "id, created_at, submitted_at, finished_at, provider, operation, model, status, error_code, resolved_by, key_id, tags, "
    "job_metadata, provider_task_id, task_confirmed, cost_estimated, cost_charged, cost_basis, polls, callbacks, result_count, "
    "moderation, retry_of"
)
_SELECTED: Final = ", ".join(f"jobs.{name}" for name in COLUMNS)
_HAS_LABEL: Final = """EXISTS (SELECT 1 FROM labels has WHERE has.account_id = :account AND has.name = :name{place}
    AND has.value = :value{place} AND has.job_id = {id})"""
# A label holds the beginning of a long value only.
_HAS_PAIR: Final = "@has_pair(jobs.job_metadata, :key{place}, :whole{place})"
_COUNT: Final = """
SELECT (SELECT count(*) FROM (SELECT 1 FROM labels WHERE account_id = :account AND name = asked.name
    AND value = substr(asked.value, 1, 64) LIMIT :scan)) AS n
FROM @tuples(:labels, name text, value text) asked ORDER BY asked.place
"""


@dataclass(frozen=True, slots=True)
class JobFilter:
    """What a list of jobs is narrowed to; None means everything. `before_id` is the cursor: only older jobs."""

    status: tuple[str, ...] = ()
    provider: str | None = None
    operation: str | None = None
    tag: str | None = None
    provider_task_id: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    created_after: int | None = None
    created_before: int | None = None
    before_id: str | None = None

    @property
    def labels(self) -> list[tuple[str, str]]:
        """The labels that a job must have, as the index names them."""
        tags = [] if self.tag is None else [(TAG, self.tag)]
        return tags + [(f"{METADATA}{name}", value) for name, value in self.metadata]


@dataclass(frozen=True, slots=True)
class ListedJobs:
    """Jobs, newest first, and the id behind which the next page begins; None at the end."""

    jobs: list[JobRow]
    next_id: str | None


@dataclass(frozen=True, slots=True)
class _Walk:
    """A way through jobs in the order of their ids; its range is `:low` to `:high`.

    Args:
        index: The table with its index.
        where: What the index decides.
        decides: The names of the conditions that this makes needless.
        id: The id in the index.
        join: How the job itself is reached, where that is another table.
    """

    index: str
    where: str
    decides: tuple[str, ...] = ()
    id: str = "jobs.id"
    join: str = ""

    def ids(self) -> str:
        """The ids alone, which are in the index."""
        return f"SELECT {self.id} AS id FROM {self.index} WHERE {self.where} AND {self._range}"

    def jobs(self, rest: str) -> str:
        """The jobs that fit the other conditions, too."""
        return f"SELECT {_SELECTED} FROM {self.index}{self.join} WHERE {self.where} AND {self._range}{rest}"

    @property
    def _range(self) -> str:
        return f"{self.id} >= :low AND {self.id} < :high"


_ALL: Final = _Walk("jobs @by_index(ix_jobs_for_list)", "jobs.account_id = :account")
_BY_TASK: Final = _Walk(
    "jobs @by_index(ix_jobs_for_task)", "jobs.provider_task_id = :task AND jobs.account_id = :account"
)


def _by_label(place: int) -> _Walk:
    return _Walk(
        "labels",
        f"labels.account_id = :account AND labels.name = :name{place} AND labels.value = :value{place}",
        (f"label{place}",),
        "labels.job_id",
        " @then_join jobs ON jobs.id = labels.job_id",  # the index first, always
    )


def _by_status(place: int) -> _Walk:
    where = f"jobs.account_id = :account AND jobs.status = :status{place}"
    return _Walk("jobs @by_index(ix_jobs_for_list_by_status)", where, ("status",))


@dataclass(frozen=True, slots=True)
class ListPlan:
    """The statements of one page and their parameters; pure, so that a test can ask the engine what it makes of them."""

    walks: tuple[_Walk, ...]  # one, or one for each state
    rest: tuple[str, ...]  # the conditions that are held against each job
    params: Params

    def edge(self) -> str:
        """The last id that the page looks at; none where it comes to the end."""
        return f"{' UNION ALL '.join(walk.ids() for walk in self.walks)} {self._order} LIMIT 1 OFFSET :scan - 1"

    def page(self) -> str:
        """The jobs."""
        rest = "".join(f" AND {condition}" for condition in self.rest)
        return f"{' UNION ALL '.join(walk.jobs(rest) for walk in self.walks)} {self._order} LIMIT :limit"

    @property
    def _order(self) -> str:
        return f"ORDER BY {'id' if len(self.walks) > 1 else self.walks[0].id} DESC"


def plan_of(account_id: str, wanted: JobFilter, label: int = 0) -> ListPlan:
    """How a page is read.

    Args:
        account_id: Whose jobs.
        wanted: The filters.
        label: Which of the labels is walked, where there are some.
    """
    walks: tuple[_Walk, ...] = (_ALL,)
    if wanted.provider_task_id is not None:
        walks = (_BY_TASK,)
    elif wanted.labels:
        walks = (_by_label(label),)
    elif wanted.status:
        walks = tuple(_by_status(place) for place in range(len(wanted.status)))
    conditions, params = _conditions(wanted, walks[0].id)
    low = "" if wanted.created_after is None else earliest("job", wanted.created_after)
    high = wanted.before_id or _LAST
    if wanted.created_before is not None:
        high = min(high, earliest("job", wanted.created_before + CLOCK_STEP_MS))
    params |= {"account": account_id, "low": low, "high": high}
    rest = tuple(condition for name, condition in conditions.items() if name not in walks[0].decides)
    return ListPlan(walks, rest, params)


async def list_jobs(reader: Reader, account_id: str, wanted: JobFilter, limit: int, scan: int = SCAN) -> ListedJobs:
    """The account's jobs that pass, newest first; so many are looked at, at most."""
    plan = plan_of(account_id, wanted, await _rarest(reader, account_id, wanted.labels, scan))
    edge: str | None = None
    if plan.rest:
        row = await reader.row(plan.edge(), {**plan.params, "scan": scan})
        edge = None if row is None else str(row["id"])
    bounds = {"limit": limit + 1} | ({} if edge is None else {"low": edge})
    rows = await reader.rows(plan.page(), {**plan.params, **bounds})
    jobs = [from_row(row) for row in rows[:limit]]
    return ListedJobs(jobs, jobs[-1].id if len(rows) > limit else edge)


async def _rarest(reader: Reader, account_id: str, labels: Sequence[tuple[str, str]], scan: int) -> int:
    """Which of the labels the fewest jobs have, as far as one page would look."""
    if len(labels) < 2:
        return 0
    counts = await reader.rows(_COUNT, {"account": account_id, "labels": json_set(labels), "scan": scan})
    return min(range(len(labels)), key=lambda place: int(counts[place]["n"]))


def _conditions(wanted: JobFilter, job_id: str) -> tuple[dict[str, str], dict[str, Any]]:
    """The conditions by name, and their parameters."""
    plain = (
        ("provider", "jobs.provider = :provider", wanted.provider),
        ("operation", "jobs.operation = :operation", wanted.operation),
        ("task", "jobs.provider_task_id = :task AND jobs.task_confirmed = TRUE", wanted.provider_task_id),
        ("after", "jobs.created_at > :after", wanted.created_after),
        ("before", "jobs.created_at < :before", wanted.created_before),
    )
    conditions = {name: condition for name, condition, value in plain if value is not None}
    params: dict[str, Any] = {name: value for name, _, value in plain if value is not None}
    if wanted.status:
        places = range(len(wanted.status))
        conditions["status"] = f"jobs.status IN ({', '.join(f':status{place}' for place in places)})"
        params |= {f"status{place}": wanted.status[place] for place in places}
    for place, (name, value) in enumerate(wanted.labels):
        conditions[f"label{place}"] = _HAS_LABEL.format(place=place, id=job_id)
        params |= {f"name{place}": name, f"value{place}": value[:LABEL_CHARS]}
        if len(value) >= LABEL_CHARS and name != TAG:
            conditions[f"whole{place}"] = _HAS_PAIR.format(place=place)
            params |= {f"key{place}": name.removeprefix(METADATA), f"whole{place}": value}
    return conditions, params


@dataclass(frozen=True, slots=True)
class ExportPage:
    """Some rows of an export; `last` is where the next page begins, None at the end."""

    rows: list[Row]
    last: str | None


async def newest_id(reader: Reader, account_id: str) -> str:
    """The id of the account's newest job; empty where it has none."""
    row = await reader.row(
        "SELECT id FROM jobs WHERE account_id = :account ORDER BY id DESC LIMIT 1", {"account": account_id}
    )
    return "" if row is None else str(row["id"])


async def export_page(
    reader: Reader, account_id: str, wanted: JobFilter, part: tuple[str, str], limit: int
) -> ExportPage:
    """The account's jobs behind an id, up to another one, oldest first; so many are looked at, and those that do not fit are left out.

    Looking and not finding is bounded too: no read lasts, however little of a long history is asked for.
    """
    after, until = part
    params = {"account": account_id, "behind": after, "until": until, "limit": limit}
    rows = await reader.rows(*export_query(wanted, params))
    return ExportPage([row for row in rows if row["fits"]], rows[-1]["id"] if len(rows) == limit else None)


def export_query(wanted: JobFilter, params: Params) -> tuple[str, Params]:
    """The query of a page of an export and its parameters: through a label's jobs where there is one, else through all."""
    walk = _by_label(0) if wanted.labels else _ALL
    conditions, given = _conditions(wanted, walk.id)
    fits = " AND ".join(condition for name, condition in conditions.items() if name not in walk.decides) or "TRUE"
    sql = (
        f"SELECT {_EXPORTED}, {fits} AS fits FROM {walk.index}{walk.join} "
        f"WHERE {walk.where} AND {walk.id} > :behind AND {walk.id} <= :until ORDER BY {walk.id} LIMIT :limit"
    )
    return sql, {**params, **given}
