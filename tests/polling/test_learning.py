"""What a job's end teaches about its kind, and that the tracker learns it."""

from __future__ import annotations

import pytest

from service.jobs.row import JobRow, duration_of
from service.states import JobStatus


def ended(status: JobStatus, resolved_by: str, **columns: int | None) -> JobRow:
    """A job that was submitted at 1,000 and ended at 61,000."""
    given = {"submitted_at": 1_000, "finished_at": 61_000} | columns
    return JobRow("job_1", "acc_1", "p", "o", status, 0, 99, resolved_by=resolved_by, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("job", "taught"),
    [
        (ended(JobStatus.COMPLETED, "callback"), (60_000, 60_000)),
        (ended(JobStatus.FAILED, "callback"), (60_000, 60_000)),
        (ended(JobStatus.COMPLETED, "poll", running_at=58_000), (57_000, 60_000)),
        (ended(JobStatus.COMPLETED, "poll"), (0, 60_000)),
        (ended(JobStatus.COMPLETED, "response"), None),
        (ended(JobStatus.EXPIRED, "sweep"), None),
        (ended(JobStatus.CANCELLED, "poll"), None),
        (ended(JobStatus.COMPLETED, "poll", submitted_at=None), None),
        (ended(JobStatus.RUNNING, "", finished_at=None), None),
    ],
)
def test_only_the_providers_own_word_teaches(job: JobRow, taught: tuple[int, int] | None) -> None:
    """A callback gives the moment, polls a stretch; our deadline, callers and instant answers teach nothing."""
    assert duration_of(job) == taught
