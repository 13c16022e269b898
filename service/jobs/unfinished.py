"""The tasks that each provider still works on, counted in this process for the limit of tasks at once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final

from service.jobs.row import JobRow
from service.states import JobStatus

_RESERVED: Final = 1  # it has a slot
_BEGUN: Final = 2  # its request is out, or its task runs
_AT_THE_PROVIDER: Final = frozenset({JobStatus.SUBMITTING, JobStatus.RUNNING})


class UnfinishedTasks:
    """How many tasks each provider works on; those that are about to be submitted count from the moment they have a slot.

    An overdue task no longer counts, since one that the provider lost would take a place until its deadline, and neither
    does one in `submit_unknown`, of which nobody knows whether it exists. A job that is overdue because it waited has a task
    that is not: then it has an `overdue_at` still.
    """

    def __init__(self) -> None:
        self._why: defaultdict[str, dict[str, int]] = defaultdict(dict)  # by provider and job: why it counts
        self._by_account: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def load(self, jobs: Iterable[tuple[str, str, str]]) -> None:
        """After a start: provider, account and id of the jobs that count."""
        for provider, account_id, job_id in jobs:
            self._add(provider, account_id, job_id, _BEGUN)

    def count(self, provider: str) -> int:
        """How many there are."""
        return len(self._why[provider])

    def by_account(self, provider: str) -> Counter[str]:
        """How many of them are whose."""
        return self._by_account[provider]

    def reserve(self, job: JobRow) -> None:
        """The job is about to be submitted."""
        self._add(job.provider, job.account_id, job.id, _RESERVED)

    def release(self, job: JobRow) -> None:
        """Its submission was answered, or did not come about."""
        self._drop(job, _RESERVED)

    def follow(self, job: JobRow) -> None:
        """The job as it is now, committed."""
        if job.status in _AT_THE_PROVIDER and (not job.overdue or job.overdue_at is not None):
            self._add(job.provider, job.account_id, job.id, _BEGUN)
        else:
            self._drop(job, _BEGUN)

    def _add(self, provider: str, account_id: str, job_id: str, why: int) -> None:
        jobs = self._why[provider]
        if job_id not in jobs:
            self._by_account[provider][account_id] += 1
        jobs[job_id] = jobs.get(job_id, 0) | why

    def _drop(self, job: JobRow, why: int) -> None:
        jobs = self._why[job.provider]
        if job.id not in jobs:
            return
        jobs[job.id] &= ~why
        if not jobs[job.id]:
            del jobs[job.id]
            counts = self._by_account[job.provider]
            counts[job.account_id] -= 1
            if not counts[job.account_id]:
                del counts[job.account_id]
