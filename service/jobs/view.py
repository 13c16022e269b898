"""How a job looks from outside: the JSON of contract 3, for answers and for events."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import msgspec

from service.clock import iso
from service.db.transaction import Row
from service.jobs.row import JobRow
from service.money import usd
from service.schemas.job_schemas import JobView, ResultView

ERASED = "erased"  # the error of a result that was erased
SHOWN_STRING_BYTES = 2_048  # longer ones (base64 images) are shown as their digest

#: Makes the lasting link of a result from the job's id and the result's index.
Links = Callable[[str, int], str]


@dataclass(frozen=True, slots=True)
class Keeping:
    """When a new result is to be fetched for our copy and swept, and who has it; see `db.tables.Result`."""

    due_at: int
    sweep_at: int
    lane: str
    link_dies_at: int | None = None
    lease_owner: str | None = None
    lease_until: int | None = None
    lease_epoch: int = 0

    def columns(self) -> dict[str, Any]:
        """By name; written out, since this is made for every result."""
        return {
            "due_at": self.due_at,
            "sweep_at": self.sweep_at,
            "lane": self.lane,
            "link_dies_at": self.link_dies_at,
            "lease_owner": self.lease_owner,
            "lease_until": self.lease_until,
            "lease_epoch": self.lease_epoch,
        }


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One file that a job produced; `source_url` is the provider's, empty where it gave none."""

    idx: int
    source_url: str
    expires_at: int
    content_type: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    stored: bool = False
    width: int | None = None
    height: int | None = None
    error: str | None = None
    keeping: Keeping | None = None  # of a new one; None: no copy is made

    @classmethod
    def of(cls, row: Row) -> ResultRow:
        """From a row that has these columns, among others."""
        return cls(
            idx=row["idx"],
            source_url=row["source_url"],
            expires_at=row["expires_at"],
            content_type=row["content_type"],
            size_bytes=row["size_bytes"],
            sha256=row["sha256"],
            stored=bool(row["stored"]),
            width=row["width"],
            height=row["height"],
            error=row["error"],
        )


#: What a `ResultRow` is read from, in the order of its fields.
RESULT_COLUMNS = ", ".join(field.name for field in fields(ResultRow) if field.name != "keeping")


def job_view(job: JobRow, results: Sequence[ResultRow], links: Links, *, in_event: bool = False) -> JobView:
    """The job as JSON; in an event a result carries `index`, `url` and `expires_at` only, and `error` where it is lost already."""
    view: JobView = {
        "id": job.id,
        "provider": job.provider,
        "operation": job.operation,
        "status": job.status.value,
        "provider_task_id": job.provider_task_id if job.task_confirmed else None,
        "provider_status": job.provider_status,
        "resolved_by": job.resolved_by,
        "input": msgspec.Raw(job.input.encode()),
        "metadata": msgspec.Raw(job.job_metadata.encode()),
        "tags": msgspec.Raw(job.tags.encode()),
        "results": [result_view(job.id, result, links, in_event=in_event) for result in results],
        "error": None if job.error_code is None else {"code": job.error_code, "message": job.error_message},
        "cost": {
            "currency": "USD",
            "estimated": usd(job.cost_estimated),
            "charged": usd(job.cost_charged),
            "basis": job.cost_basis,
        },
        "polls": job.polls,
        "callbacks": job.callbacks,
        "created_at": iso(job.created_at),
        "submitted_at": iso(job.submitted_at),
        "finished_at": iso(job.finished_at),
        "expires_at": iso(job.expires_at),
        "overdue": job.overdue,
    }
    if job.retry_of:
        view["retry_of"] = job.retry_of
    if job.moderation:
        view["moderation"] = msgspec.Raw(job.moderation.encode())
    if job.erased_at is not None:
        view["erased"] = True
    return view


def result_view(job_id: str, result: ResultRow, links: Links, *, in_event: bool = False) -> ResultView:
    """One result as JSON."""
    url = links(job_id, result.idx)
    if in_event:
        view: ResultView = {"index": result.idx, "url": url, "expires_at": iso(result.expires_at)}
        if result.error is not None:
            view["error"] = result.error
        return view
    return {
        "index": result.idx,
        "url": url,
        "source_url": result.source_url if is_link(result.source_url) else None,
        "content_type": result.content_type,
        "size_bytes": result.size_bytes,
        "sha256": result.sha256,
        "width": result.width,
        "height": result.height,
        "stored": result.stored,
        "error": result.error,
        "expires_at": iso(result.expires_at),
    }


def is_link(url: str) -> bool:
    """Whether a result has an address: a picture in a `data:` URL has none, nor what is left of that once it has a copy."""
    return url[:8].lower().startswith(("http://", "https://"))


def event_body(event_type: str, at: int, seq: int, job: JobView, **more: Any) -> bytes:
    """The bytes that are signed and sent, made once."""
    return msgspec.json.encode({"type": event_type, "timestamp": iso(at), "data": {"seq": seq, "job": job, **more}})


def shown(value: Any) -> Any:
    """The value with every string over 2 KiB replaced by its digest and size."""
    if isinstance(value, str):
        if len(value) <= SHOWN_STRING_BYTES // 4:  # no text of that length can be larger in UTF-8
            return value
        raw = value.encode()
        return (
            value if len(raw) <= SHOWN_STRING_BYTES else f"sha256:{hashlib.sha256(raw).hexdigest()} ({len(raw)} bytes)"
        )
    if isinstance(value, dict):
        return {name: shown(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shown(inner) for inner in value]
    return value
