"""A job on its way through one transaction: the row, what was noted on its timeline, and what else has to be written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from service.jobs.row import JobRow, mutable_values
from service.jobs.view import Links, ResultRow, event_body, job_view, result_view
from service.states import FINAL, JobStatus, ResolvedBy, Source, may_move


class MoveForbidden(AssertionError):
    """A decision asked for a move that the table does not have: a mistake in the code, never in the input."""


@dataclass(frozen=True, slots=True)
class Noted:
    """One new row of a job's timeline; with a body it is an event that is sent.

    Args:
        repeats: It takes the place of the last row of its type.
    """

    seq: int
    type: str
    source: str
    detail: str | None
    body: bytes | None
    repeats: bool = False


@dataclass(slots=True)
class Draft:
    """What the decisions of one transaction make of a job. `links` makes result links for event bodies."""

    job: JobRow
    now_ms: int
    links: Links
    before: tuple[Any, ...] = field(init=False)  # the columns that can change, as they were loaded
    was: JobStatus = field(init=False)
    was_seq: int = field(init=False)
    heard_at: int | None = None  # when the callback came that this is about
    notes: list[Noted] = field(default_factory=list)
    results: list[ResultRow] = field(default_factory=list)
    told_expires_at: int | None = None  # of the one result that an event of this transaction is about
    submissions: list[dict[str, Any]] = field(default_factory=list)  # outcomes to write
    new_submission: dict[str, Any] | None = None
    adopted: bool = False  # a callback brought the task id
    cause: str | None = None  # in a word, why the job is in `submit_unknown` from now on
    reason: str | None = None  # the same in a sentence

    def __post_init__(self) -> None:
        """Keep what the row was."""
        self.before = mutable_values(self.job)
        self.was = self.job.status
        self.was_seq = self.job.seq
        self.heard_at = self.job.hint_at

    def note(
        self, event_type: str, source: Source, detail: Mapping[str, Any] | None = None, *, repeats: bool = False
    ) -> None:
        """Add a row to the timeline that nobody is sent; one that repeats takes the place of the last one of its type."""
        self._note(event_type, source, detail, body=None, repeats=repeats)

    def announce(self, event_type: str, source: Source, detail: Mapping[str, Any] | None = None) -> None:
        """Add an event, with the job as it stands now in its body; what is erased is told to nobody any more."""
        if self.job.erased_at is not None:
            self.note(event_type, source, detail)
            return
        view = job_view(self.job, self.results, self.links, in_event=True)
        body = event_body(event_type, self.now_ms, self.job.seq + 1, view)
        self._note(event_type, source, detail, body=body)

    def announce_result(self, event_type: str, result: ResultRow, results: Sequence[ResultRow]) -> None:
        """Add an event about one of the results that the job has had since it was completed."""
        view = job_view(self.job, results, self.links, in_event=True)
        told = result_view(self.job.id, result, self.links)
        del told["source_url"]
        body = event_body(event_type, self.now_ms, self.job.seq + 1, view, result=told)
        if event_type != "result.expired":  # which is about nothing that could still be fetched
            self.told_expires_at = result.expires_at
        self._note(event_type, Source.SWEEP, {"index": result.idx}, body=body)

    def erase(self) -> None:
        """Let go of the prompt and the inputs; the input's own columns are written by the eraser."""
        self.job.erased_at = self.now_ms
        self.job.input = "{}"
        self.job.input_full = None
        self.job.waiting = None
        self.note("job.erased", Source.API)

    def _note(
        self,
        event_type: str,
        source: Source,
        detail: Mapping[str, Any] | None,
        *,
        body: bytes | None,
        repeats: bool = False,
    ) -> None:
        self.job.seq += 1
        text = msgspec.json.encode(detail).decode() if detail else None
        self.notes.append(Noted(self.job.seq, event_type, source.value, text, body, repeats))

    def move(self, status: JobStatus) -> None:
        """Change the state along the table."""
        if not may_move(self.job.status, status):
            msg = f"{self.job.id}: {self.job.status} to {status}"
            raise MoveForbidden(msg)
        self.job.status = status
        if status in FINAL:
            self.job.finished_at = self.now_ms
            self.wake_at(None)

    def finish(
        self, status: JobStatus, source: Source, resolved_by: ResolvedBy, detail: Mapping[str, Any] | None = None
    ) -> None:
        """Bring the job to a final state and announce it."""
        self.job.resolved_by = resolved_by.value
        self.job.overdue_at = None
        self.job.hint_at = None
        self.job.waiting = None
        self.move(status)
        self.announce(f"job.{status.value}", source, detail)

    def wake_at(self, due_at: int | None) -> None:
        """Say when the job next needs somebody, and let go of the lease."""
        self.job.due_at = due_at
        self.job.lease_owner = None
        self.job.lease_until = None
