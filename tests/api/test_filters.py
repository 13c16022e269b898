"""Filters over HTTP find what was given, byte for byte, and pages that look in vain go on."""

from __future__ import annotations

import pytest

from service.jobs.listing.list_queries import SCAN
from service.jobs.row import COLUMNS
from tests.api.conftest import Served

ODD = (
    ('a"b', 'say "no"'),
    ("back\\slash", "C:\\new"),
    ("ключ", "значение ✓ 🦈"),
    ("dots.and[0]", "$.x"),
    ("line\nbreak", "tab\there"),
    ("empty", ""),
    ("case", "Straße"),
    ("long", "é" * 64 + "end"),
    ("percent", "100%_'; --"),
)


async def _ids(served: Served, **query: str) -> list[str]:
    answer = await served.client.get("/v1/jobs", params=query)
    assert answer.status_code == 200, answer.text
    return [job["id"] for job in answer.json()["data"]]


@pytest.mark.parametrize(("name", "value"), ODD)
async def test_metadata_is_found_however_it_is_spelt(served: Served, name: str, value: str) -> None:
    """The pair finds its job, and another value, as alike as it may be, finds none."""
    job = await served.take(metadata={name: value, "other": "1"}, tags=[name[:64]])
    await served.take(metadata={"other": "1"})
    alike = value[:-1] + "Ω"

    assert await _ids(served, **{f"metadata.{name}": value}) == [job["id"]]
    assert await _ids(served, **{f"metadata.{name}": value, "metadata.other": "1", "tag": name}) == [job["id"]]
    assert await _ids(served, **{f"metadata.{name}": alike}) == []
    assert await _ids(served, **{f"metadata.{name}": value.swapcase() + " "}) == []


#: As many cancelled jobs as one page looks at and some, made of one; their ids come last.
_COPY = f"""
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {SCAN + 500})
INSERT INTO jobs ({", ".join(COLUMNS)})
SELECT printf('job_ffffffff-ffff-7fff-8fff-%012x', i), {", ".join(COLUMNS[1:])} FROM n, jobs WHERE jobs.id = :id
"""


async def test_page_that_looked_in_vain_goes_on(served: Served) -> None:
    """Empty, with a cursor: the job that fits is on the next page, which has none."""
    wanted = await served.completed()
    other = await served.take()
    await served.client.post(f"/v1/jobs/{other['id']}/cancel")
    await served.sql(_COPY, id=other["id"])
    asked = {"provider": "sandbox"}
    first = (await served.client.get("/v1/jobs", params=asked)).json()
    second = (await served.client.get("/v1/jobs", params=asked | {"cursor": first["next_cursor"]})).json()

    assert first["data"] == []
    assert [job["id"] for job in second["data"]] == [wanted["id"]]
    assert second["next_cursor"] is None
