"""The history of jobs as rows of a file: which columns there are, and how a row is written. Pure.

CSV is RFC 4180's, made so that a spreadsheet does not take what callers wrote for formulas. JSON Lines has the same names.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from service.clock import iso
from service.db.transaction import Row
from service.money import usd
from service.schemas.job_schemas import ExportedJobView

#: The columns, in the order of a CSV file; `mode` says by what the end was heard.
COLUMNS: Final = tuple(ExportedJobView.__annotations__)
#: A cell that begins so is a formula to a spreadsheet.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")


def row_of(job: Row) -> dict[str, Any]:
    """What the file says of a job; `tags` and `metadata` are JSON as it is stored."""
    moderation = job["moderation"]
    return {
        "id": job["id"],
        "created_at": iso(job["created_at"]),
        "submitted_at": iso(job["submitted_at"]),
        "finished_at": iso(job["finished_at"]),
        "provider": job["provider"],
        "operation": job["operation"],
        "model": job["model"],
        "status": job["status"],
        "error_code": job["error_code"],
        "mode": job["resolved_by"],
        "key_id": job["key_id"],
        "tags": job["tags"],
        "metadata": job["job_metadata"],
        "provider_task_id": job["provider_task_id"] if job["task_confirmed"] else None,
        "estimated": usd(job["cost_estimated"]),
        "charged": usd(job["cost_charged"]),
        "currency": "USD",
        "basis": job["cost_basis"],
        "polls": job["polls"],
        "callbacks": job["callbacks"],
        "results": job["result_count"],
        "moderation": None if moderation is None else msgspec.json.decode(moderation)["verdict"],
        "retry_of": job["retry_of"],
    }


def csv_head() -> bytes:
    """The line with the names."""
    return _csv([COLUMNS])


def csv_rows(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Rows as CSV."""
    return _csv([_cell(row[name]) for name in COLUMNS] for row in rows)


def _csv(lines: Iterable[Iterable[object]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(lines)
    return text.getvalue().encode(errors="replace")


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def jsonl_head() -> bytes:
    """Nothing: every line names its fields."""
    return b""


def jsonl_rows(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Rows as JSON Lines."""
    return b"".join(msgspec.json.encode(_opened(row)) + b"\n" for row in rows)


def _opened(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "tags": msgspec.Raw(row["tags"].encode()), "metadata": msgspec.Raw(row["metadata"].encode())}


#: By format: its type, how a file begins, and how rows are written.
FORMATS: Final[Mapping[str, tuple[str, Callable[[], bytes], Callable[[Iterable[Mapping[str, Any]]], bytes]]]] = {
    "csv": ("text/csv; charset=utf-8; header=present", csv_head, csv_rows),
    "jsonl": ("application/jsonl; charset=utf-8", jsonl_head, jsonl_rows),
}
