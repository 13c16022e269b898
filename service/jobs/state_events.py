"""What the followers of the tracker see of an event: everything that is needed to send it, in the transaction that wrote it."""

from __future__ import annotations

from dataclasses import dataclass

from service.jobs.row import JobRow


@dataclass(frozen=True, slots=True)
class StateEvent:
    """One event that was just written; `body` is what is signed and sent, `job` is the job as it stands."""

    id: str
    type: str
    seq: int
    at: int
    body: bytes
    job: JobRow
    results_expire_at: int | None = None  # ms UTC: the first of the results that it speaks of
