"""Reading results: behind a link, what is due to be swept, and whose a file is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from service.db.reader import Reader
from service.results.storage import owner_of, thumb_key


@dataclass(frozen=True, slots=True)
class HeldFile:
    """A result as its link needs it."""

    job_id: str
    index: int
    source_url: str
    expires_at: int
    stored: bool
    storage_key: str | None
    content_type: str | None
    size_bytes: int | None
    sha256: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Due:
    """A result whose moment came."""

    job_id: str
    index: int
    expires_at: int
    storage_key: str | None
    storage_place: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class DueInput:
    """An erased input, with the key of its file."""

    job_id: str
    storage_key: str
    storage_place: str | None


_DUE = 'job_id, idx AS "index", expires_at, storage_key, storage_place, error'


async def held(reader: Reader, job_id: str, index: int) -> HeldFile | None:
    """One result; the link that names it is the right to see it."""
    row = await reader.row(
        "SELECT job_id, idx, source_url, expires_at, stored, storage_key, content_type, size_bytes, sha256, error "
        "FROM results WHERE job_id = :job_id AND idx = :idx",
        {"job_id": job_id, "idx": index},
    )
    if row is None:
        return None
    columns = dict(row)
    return HeldFile(index=columns.pop("idx"), stored=bool(columns.pop("stored")), **columns)


async def source_url(reader: Reader, job_id: str, index: int) -> str:
    """The provider's URL, however long."""
    found = await held(reader, job_id, index)
    return "" if found is None else found.source_url


async def due_for_sweep(reader: Reader, now_ms: int, count: int) -> list[Due]:
    """Results whose end is near or here, longest first."""
    rows = await reader.rows(
        f"SELECT {_DUE} FROM results WHERE sweep_at <= :now ORDER BY sweep_at LIMIT :count",
        {"now": now_ms, "count": count},
    )
    return [Due(**row) for row in rows]


async def of_job_for_sweep(reader: Reader, job_id: str, now_ms: int) -> list[Due]:
    """Those of one job."""
    rows = await reader.rows(
        f"SELECT {_DUE} FROM results WHERE job_id = :id AND sweep_at <= :now",
        {"id": job_id, "now": now_ms},
    )
    return [Due(**row) for row in rows]


async def inputs_for_sweep(reader: Reader, now_ms: int, count: int) -> list[DueInput]:
    """Jobs whose input is erased, with the key of its file."""
    rows = await reader.rows(
        "SELECT job_id, storage_key, storage_place FROM inputs WHERE sweep_at <= :now AND storage_key IS NOT NULL LIMIT :count",
        {"now": now_ms, "count": count},
    )
    return [DueInput(**row) for row in rows]


async def inputs_of_job(reader: Reader, job_id: str) -> list[DueInput]:
    """The same of one job."""
    rows = await reader.rows(
        "SELECT job_id, storage_key, storage_place FROM inputs "
        "WHERE job_id = :id AND sweep_at IS NOT NULL AND storage_key IS NOT NULL",
        {"id": job_id},
    )
    return [DueInput(**row) for row in rows]


async def strangers(reader: Reader, keys: Iterable[str]) -> list[str]:
    """Those of the keys that no row knows: left by a crash between a file and its row."""
    wanted = list(keys)
    jobs = sorted({owner[0] for key in wanted if (owner := owner_of(key)) is not None})
    ids = {"ids": msgspec.json.encode(jobs).decode()}
    in_set = "job_id IN @set(:ids) AND storage_key IS NOT NULL"
    copies = {row["storage_key"] for row in await reader.rows(f"SELECT storage_key FROM results WHERE {in_set}", ids)}
    inputs = {row["storage_key"] for row in await reader.rows(f"SELECT storage_key FROM inputs WHERE {in_set}", ids)}
    known = copies | inputs | {thumb_key(key) for key in copies}
    return [key for key in wanted if owner_of(key) is not None and key not in known]


async def backlog(reader: Reader) -> int:
    """How many results wait to be fetched."""
    row = await reader.row("SELECT count(*) AS n FROM results WHERE due_at IS NOT NULL")
    return 0 if row is None else int(row["n"])
