"""What decisions make of a job before anything is written."""

from __future__ import annotations

import pytest

from service.jobs.row import JobRow
from service.jobs.transitions.draft import Draft
from service.jobs.view import ResultRow
from service.states import JobStatus


@pytest.mark.parametrize(
    ("event_type", "until"), [("result.stored", 77), ("result.expiring", 77), ("result.expired", None)]
)
def test_event_about_a_result_ends_with_it_unless_it_tells_of_the_end(event_type: str, until: int | None) -> None:
    """A destination that wants nothing after the expiry gets no `result.stored` then, but `result.expired` all the same."""
    job = JobRow("job_1", "acc_1", "p", "o", JobStatus.COMPLETED, 1, 9)
    draft = Draft(job, 5, lambda job_id, index: f"https://r.example/{job_id}/{index}")
    draft.announce_result(event_type, ResultRow(0, "https://cdn.example/0.png", 77), [])

    assert draft.told_expires_at == until
