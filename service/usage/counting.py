"""What an account used: jobs counted by the day they ended (UTC), by provider, operation, model, key, status and tag.

Owns what a job counts as and how counts are put together; pure. A job counts once: whatever happens to it later, what it
counted as is taken off and what it counts as now is added, so that counting it twice changes nothing. It must not know
where counts are kept (`store` does).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec

from service.states import FINAL
from service.usage.histogram import Histogram

DAY_MS: Final = 86_400_000  # milliseconds
MAX_MODEL: Final = 100  # characters of a model's name
OTHER: Final = "other"  # stands for all names beyond the first ones of a day
#: How many different names of a kind are kept apart for an account's day. Callers choose them, so they must be bounded.
MAX_NAMES: Final[Mapping[str, int]] = {"model": 50, "key": 100, "tag": 100}
_FINAL_WORDS: Final = frozenset(status.value for status in FINAL)


def model_of(given: Mapping[str, Any]) -> str | None:
    """The model that an input names."""
    model = given.get("model")
    return cut_model(model) if isinstance(model, str) and model else None


def cut_model(model: str) -> str:
    """A model's name as it is counted."""
    return model[:MAX_MODEL]


class Place(NamedTuple):
    """What is counted together; `tag` is empty for the count of all jobs, whatever their tags."""

    day: int  # since 1970, UTC
    tag: str
    provider: str
    operation: str
    model: str
    key_id: str
    status: str


class Count(NamedTuple):
    """How many, for how much (micro-USD), and how long they took from acceptance to their end."""

    jobs: int = 0
    charged: int = 0
    durations: Histogram = Histogram()

    def plus(self, other: Count) -> Count:
        """Both together."""
        return Count(self.jobs + other.jobs, self.charged + other.charged, self.durations.plus(other.durations))

    def minus(self, other: Count) -> Count:
        """This one without the other."""
        return Count(self.jobs - other.jobs, self.charged - other.charged, self.durations.minus(other.durations))


@dataclass(frozen=True, slots=True)
class Counted:
    """As what a job is counted."""

    day: int
    status: str
    charged: int
    duration_ms: int

    @property
    def count(self) -> Count:
        """What it adds."""
        return Count(1, self.charged, Histogram.of(self.duration_ms))


@dataclass(frozen=True, slots=True)
class Ended:
    """A job to be counted: what it is now, and what it was counted as before."""

    job_id: str
    account_id: str
    provider: str
    operation: str
    model: str
    key_id: str
    tags: tuple[str, ...]
    now: Counted | None  # None: it has not ended
    before: Counted | None


def counted(status: str, created_at: int, finished_at: int | None, charged: int | None) -> Counted | None:
    """As what a job counts that is in this state; None while it has not ended."""
    if status not in _FINAL_WORDS or finished_at is None:
        return None
    return Counted(finished_at // DAY_MS, status, charged or 0, max(0, finished_at - created_at))


class CountedNames:
    """The names that are kept apart, by account and day; a name that has its place keeps it for good.

    Args:
        known: Those that have one, by account, day and kind.
    """

    def __init__(self, known: Iterable[tuple[str, int, str, str]] = ()) -> None:
        self._known: dict[tuple[str, int, str], set[str]] = {}
        for account_id, day, kind, name in known:
            self._known.setdefault((account_id, day, kind), set()).add(name)

    def place(self, account_id: str, day: int, kind: str, name: str) -> str:
        """The name itself, or the one that stands for all further ones."""
        known = self._known.setdefault((account_id, day, kind), set())
        if name in known or name in {"", OTHER}:
            return name
        if len(known - {"", OTHER}) >= MAX_NAMES[kind]:
            return OTHER
        known.add(name)
        return name


def changes(jobs: Iterable[Ended], names: CountedNames) -> dict[tuple[str, Place], Count]:
    """What counting these jobs adds and takes off, by account and place."""
    found: dict[tuple[str, Place], Count] = {}
    for job in jobs:
        if job.before is not None:
            for place in _places(job, job.before, names):
                found[job.account_id, place] = found.get((job.account_id, place), Count()).minus(job.before.count)
        if job.now is not None:
            for place in _places(job, job.now, names):
                found[job.account_id, place] = found.get((job.account_id, place), Count()).plus(job.now.count)
    return {where: count for where, count in found.items() if count != Count()}


def _places(job: Ended, as_what: Counted, names: CountedNames) -> Iterable[Place]:
    """Where a job counts: among all, and once for each of its tags."""
    day = as_what.day
    model = names.place(job.account_id, day, "model", job.model)
    key_id = names.place(job.account_id, day, "key", job.key_id)
    tags = {names.place(job.account_id, day, "tag", tag): None for tag in job.tags}  # in order, each once
    return [Place(day, tag, job.provider, job.operation, model, key_id, as_what.status) for tag in ("", *tags)]


def tags_of(text: str) -> tuple[str, ...]:
    """The tags of a job as they are stored."""
    return tuple(dict.fromkeys(msgspec.json.decode(text, type=list[str])))


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """What is asked: days from `first` to `last`, narrowed to what is not None, grouped by some of `DIMENSIONS`."""

    first: int
    last: int
    group_by: tuple[str, ...]
    provider: str | None = None
    operation: str | None = None
    model: str | None = None
    key_id: str | None = None
    tag: str | None = None
    status: tuple[str, ...] = ()

    @property
    def by_tag(self) -> bool:
        """Whether jobs are counted once for each of their tags."""
        return self.tag is not None or "tag" in self.group_by

    def times(self, status: str) -> bool:
        """Whether the durations of jobs in this state are asked for."""
        return status == "completed" or bool(self.status) or "status" in self.group_by

    def fits(self, place: Place) -> bool:
        """Whether this is asked for."""
        exact = ("provider", "operation", "model", "key_id")
        return (
            self.first <= place.day <= self.last
            and all(getattr(self, name) in {None, getattr(place, name)} for name in exact)
            and (not self.status or place.status in self.status)
            and (place.tag == self.tag if self.tag is not None else bool(place.tag) == self.by_tag)
        )


#: What can be grouped by, with the field of a `Place` that it is.
DIMENSIONS: Final[Mapping[str, str]] = {
    "day": "day",
    "provider": "provider",
    "operation": "operation",
    "model": "model",
    "status": "status",
    "key": "key_id",
    "tag": "tag",
}


@dataclass(slots=True)
class UsageRow:
    """One row of the answer. `durations` are those of the completed jobs, or of all of them where the state is asked for."""

    group: tuple[str | int, ...]
    jobs: dict[str, int] = field(default_factory=dict)  # by state
    charged: int = 0
    durations: Histogram = field(default_factory=Histogram)


def grouped(counts: Iterable[tuple[Place, Count]], wanted: UsageQuery) -> list[UsageRow]:
    """The rows of the answer, the newest day first; rows in which nothing is left are left out."""
    fields = [Place._fields.index(DIMENSIONS[name]) for name in wanted.group_by]
    rows: dict[tuple[str | int, ...], UsageRow] = {}
    for place, count in counts:
        group = tuple([place[at] for at in fields])  # a list first: half the time of a generator
        row = rows.get(group)
        if row is None:
            row = rows[group] = UsageRow(group)
        row.jobs[place.status] = row.jobs.get(place.status, 0) + count.jobs
        row.charged += count.charged
        if wanted.times(place.status):
            row.durations = row.durations.plus(count.durations)
    found = [row for row in rows.values() if row.charged or any(row.jobs.values())]
    day = wanted.group_by.index("day") if "day" in wanted.group_by else None
    found.sort(key=lambda row: [-part if at == day else part for at, part in enumerate(row.group)])  # type: ignore[operator]
    return found
