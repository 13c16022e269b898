"""The export of jobs: every job once, in columns that fit their names, harmless to spreadsheets, and whole or seen to be cut."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import socket

import httpx
import pytest

from service.jobs.listing.export import COLUMNS
from tests.api.conftest import Served, serve

NAMES = (
    "id,created_at,submitted_at,finished_at,provider,operation,model,status,error_code,mode,key_id,tags,metadata,"
    "provider_task_id,estimated,charged,currency,basis,polls,callbacks,results,moderation,retry_of"
)


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


async def copies(served: Served, count: int, **columns: object) -> None:
    """Further jobs like the first, with ids that grow."""
    rows = await served.rows("SELECT * FROM jobs ORDER BY id LIMIT 1")
    first = rows[0] | columns
    names = [name for name in first if name != "id"]
    marks = ", ".join(f":{name}" for name in names)
    await served.sql(
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count) "
        f"INSERT INTO jobs (id, {', '.join(names)}) SELECT substr(:first, 1, 28) || printf('%012x', i), {marks} FROM n",
        first=first.pop("id"),
        count=count,
        **first,
    )


async def test_csv_has_every_column_of_a_job(served: Served) -> None:
    """The same as the job shows, under the names that were promised."""
    job = await served.completed(tags=["shop"], metadata={"order": "4711"})
    failed = await served.take()
    await served.client.post(f"/v1/jobs/{failed['id']}/cancel")
    answer = await served.client.get("/v1/jobs/export")
    first, second = read(answer.text)

    assert answer.headers["content-type"] == "text/csv; charset=utf-8; header=present"
    assert answer.headers["content-disposition"].startswith('attachment; filename="remora-jobs-')
    assert answer.text.partition("\r\n")[0] == NAMES
    assert (first["id"], first["status"]) == (job["id"], "completed")
    assert (first["mode"], first["finished_at"], first["results"]) == (job["resolved_by"], job["finished_at"], "1")
    assert (json.loads(first["tags"]), json.loads(first["metadata"])) == (["shop"], {"order": "4711"})
    assert (second["status"], second["mode"], second["model"]) == ("cancelled", "api", "sparkpix")
    assert second["estimated"] == (failed["cost"]["estimated"] or "")


async def test_jsonl_has_the_same_with_values_in_form(served: Served) -> None:
    """A line for each job."""
    job = await served.completed(tags=["shop"], metadata={"order": "4711"})
    await served.take()
    answer = await served.client.get("/v1/jobs/export", params={"format": "jsonl"})
    rows = [json.loads(line) for line in answer.text.splitlines()]

    assert [tuple(row) for row in rows] == [COLUMNS, COLUMNS]
    assert rows[0] | {"key_id": ""} == rows[0] | {"id": job["id"], "tags": ["shop"], "results": 1, "key_id": ""}
    assert rows[0]["metadata"] == {"order": "4711"}
    assert rows[1]["finished_at"] is None


async def test_spreadsheets_find_no_formula(served: Served) -> None:
    """What callers and providers wrote is text; commas, quotes and line breaks stay in their cell."""
    await served.take(tags=["=1+1"], metadata={"=cmd|' /C calc'!A0": 'a "quoted",\r\nline'})
    await served.sql("UPDATE jobs SET provider_task_id = '=HYPERLINK(\"http://x\")', model = '@SUM(A1)'")
    [row] = read((await served.client.get("/v1/jobs/export")).text)

    assert row["provider_task_id"] == '\'=HYPERLINK("http://x")'
    assert row["model"] == "'@SUM(A1)"
    assert json.loads(row["metadata"]) == {"=cmd|' /C calc'!A0": 'a "quoted",\r\nline'}


async def test_every_job_is_there_once_over_all_pages(served: Served) -> None:
    """Oldest first, and going on behind a row gives the rest."""
    await served.take()
    await copies(served, 1_234)
    everything = read((await served.client.get("/v1/jobs/export")).text)
    ids = [row["id"] for row in everything]
    rest = read((await served.client.get("/v1/jobs/export", params={"after": ids[699], "limit": "100"})).text)

    assert len(ids) == len(set(ids)) == 1_235
    assert ids == sorted(ids)
    assert [row["id"] for row in rest] == ids[700:800]


async def test_export_is_narrowed_as_asked(served: Served) -> None:
    """State, provider, tag and time."""
    done, stuck = await served.completed(tags=["shop"]), await served.take()

    async def ids(**asked: str) -> list[str]:
        return [row["id"] for row in read((await served.client.get("/v1/jobs/export", params=asked)).text)]

    assert await ids(status="completed,failed") == [done["id"]]
    assert await ids(provider="apimodels") == [stuck["id"]]
    assert await ids(tag="shop") == [done["id"]]
    assert await ids(created_after=done["created_at"]) == [stuck["id"]]
    assert await ids(created_before=stuck["created_at"]) == [done["id"]]
    assert await ids(created_after="2999-01-01T00:00:00Z") == []


async def test_export_is_whole_after_the_clock_was_stepped_back(served: Served) -> None:
    """Jobs that were taken tomorrow, as it looks, are there too."""
    job = await served.take()
    await served.sql("UPDATE jobs SET created_at = created_at + 86400000, expires_at = expires_at + 86400000")

    assert [row["id"] for row in read((await served.client.get("/v1/jobs/export")).text)] == [job["id"]]


async def test_nothing_crosses_accounts(served: Served) -> None:
    """Another account's export has its own jobs only; the scope is asked for."""
    await served.take()
    async with await served.account() as other, await served.account("account") as poor:
        own, refused = await other.get("/v1/jobs/export"), await poor.get("/v1/jobs/export")

    assert own.text == NAMES + "\r\n"
    assert refused.status_code == 403


@pytest.mark.parametrize("asked", ["format=xlsx", "limit=0", "limit=x", "after=1", "status=odd", "cursor=x", "format="])
async def test_odd_parameters_are_told(asked: str, served: Served) -> None:
    """400 before anything is written."""
    answer = await served.client.get(f"/v1/jobs/export?{asked}")

    assert answer.status_code == 400
    assert asked.partition("=")[0] in answer.json()["detail"]


async def _stuck(served: Served) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """An export whose client reads nothing of it, begun."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    sock.setblocking(False)
    url = httpx.URL(served.service.url)
    await asyncio.get_running_loop().sock_connect(sock, (url.host, url.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=1_024)
    key = served.client.headers["authorization"]
    writer.write(f"GET /v1/jobs/export HTTP/1.1\r\nHost: x\r\nAuthorization: {key}\r\n\r\n".encode())
    await reader.readuntil(b"\r\n")
    return reader, writer


async def test_export_is_seen_to_be_cut_when_the_service_stops(tmp_path: object) -> None:
    """A slow client holds up nobody; what it got has no end, so that it takes it for no whole file."""
    async with serve(tmp_path) as served:  # type: ignore[arg-type]
        await served.take()
        await copies(served, 4_000, job_metadata=json.dumps({"a": "x" * 4_000}))
        reader, writer = await _stuck(served)
        served.service._listener.begin_drain()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await asyncio.wait_for(_to_the_end(reader), 60)
        writer.close()


async def _to_the_end(reader: asyncio.StreamReader) -> None:
    """Read the chunks up to the last one."""
    await reader.readuntil(b"\r\n\r\n")
    while size := int(await reader.readuntil(b"\r\n"), 16):
        await reader.readexactly(size + 2)


async def test_few_exports_run_at_once(served: Served) -> None:
    """The third of an account is asked to come back, and no other account; when one ends there is room again."""
    await served.take()
    await copies(served, 4_000, job_metadata=json.dumps({"a": "x" * 4_000}))
    running = [await _stuck(served) for _ in range(2)]
    third = await served.client.get("/v1/jobs/export")
    async with await served.account() as other:
        others = await other.get("/v1/jobs/export")
    running[0][1].transport.abort()
    for _ in range(200):
        again = await served.client.get("/v1/jobs/export?limit=1")
        if again.status_code == 200:
            break
    for _, writer in running:
        writer.transport.abort()

    assert (third.status_code, third.headers["retry-after"]) == (429, "10")
    assert others.status_code == 200
    assert again.status_code == 200
