"""No input yields a 500: what no client library would send, written to the socket by hand."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.api.answers.cursors import cursor_id
from service.errors import Malformed
from service.schemas.job_schemas import JobListQuery
from tests.api.conftest import ADMIN_KEY, Served
from tests.garbage import uncollected

JOB = "/v1/jobs/job_01990000-0000-7000-8000-000000000000"
BODY = b'{"provider":"apimodels","input":{"model":"sparkpix","prompt":"x"}}'
LISTS = ("/v1/jobs", "/v1/keys", "/v1/accounts", "/v1/deliveries", "/v1/subscriptions", f"{JOB}/events")


async def _raw(served: Served, request: bytes) -> tuple[int, bytes]:
    """Send bytes, read the whole answer; 0 when the connection is closed without one."""
    where = urlsplit(served.service.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        writer.write(request)
        await writer.drain()
        async with asyncio.timeout(20):
            answer = await reader.read()
    finally:
        writer.close()
    status = re.match(rb"HTTP/1\.1 (\d+)", answer)
    return (int(status[1]) if status else 0), answer


def _request(target: bytes, method: bytes = b"GET", body: bytes = b"", headers: bytes = b"") -> bytes:
    head = b"%b %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer %b\r\n" % (
        method,
        target,
        ADMIN_KEY.encode(),
    )
    length = b"Content-Length: %d\r\nContent-Type: application/json\r\n" % len(body) if body else b""
    return head + length + headers + b"\r\n" + body


@pytest_asyncio.fixture
async def loud(served: Served) -> AsyncIterator[Served]:
    """A service in which a 500 would be told by the metrics, whoever asked for it."""
    yield served
    metrics = (await served.stranger.get("/metrics")).text
    assert not re.findall(r'remora_http_requests_total\{.*status="5\d\d".*', metrics)


LARGE = b'{"state":"success","pad":"%b"}' % (b"x" * 40_000)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (_request(b"/healthz"), 200),
        (_request(b"/v1/jobs?limit=200"), 200),
        (_request(b"/nothing"), 404),
        (_request(JOB.encode()), 404),
        (_request(b"/healthz", b"DELETE"), 405),
        (_request(b"/v1/jobs", b"POST", BODY[:-1]), 400),
        (_request(b"/v1/jobs", b"POST", b"{}"), 422),
        (_request(b"/v1/jobs").replace(ADMIN_KEY.encode(), b"rmk_nobody"), 401),
        (_request(b"/v1/accounts", b"POST", LARGE * 40), 413),
        (_request(b"/callbacks/nobody", b"POST", b"{}"), 404),
        (_request(b"/callbacks/nobody", b"POST", LARGE), 404),
        (b"GET /\x00 HTTP/1.1\r\n\r\n", 400),
    ],
    ids=lambda given: str(given) if isinstance(given, int) else given[:40].decode().split("\r")[0].replace("\0", "NUL"),
)
async def test_exchange_leaves_nothing_for_the_collector(served: Served, request_: bytes, status: int) -> None:
    """What is refused neither: an error that a request keeps would keep the connection and its buffers."""
    await _raw(served, request_)
    with uncollected("service", "uvicorn", "litestar") as garbage:
        for _ in range(5):
            assert (await _raw(served, request_))[0] == status

        assert garbage() == []


BAD_QUERIES = [
    b"limit=0",
    b"limit=201",
    b"limit=-1",
    b"limit=" + b"9" * 5000,
    b"limit=9223372036854775808",
    b"limit=1e2",
    b"limit=%D9%A1",  # an Arabic one, which int() would take
    b"limit=",
    b"limit=1&limit=2",
    b"cursor=x",
    b"cursor=" + b"A" * 2000,
    b"cursor=am9iOng",  # job:x
    b"cursor=c2VxOjk5OTk5OTk5OTk5OTk5OTk5OTk5",  # seq: and a number too long
    b"cursor=%FF",
    b"cursor=%00",
    b"nothing=1",
    b"state=x",
    b"%FF=1",
    b"a" * 9000,
    b"&".join(b"status=queued" for _ in range(100)),
    b"limit=%",
    b"\xff\xfe",
    b"limit[]=1",
]


@pytest.mark.parametrize("path", LISTS)
async def test_bad_query_is_malformed(loud: Served, path: str) -> None:
    """400 and the parameter's name, for every list (404 only where the object in the path is looked up first)."""
    for query in BAD_QUERIES:
        status, answer = await _raw(loud, _request(path.encode() + b"?" + query))

        assert status == 400, (query[:60], answer[-300:])


@pytest.mark.parametrize(
    "query",
    [
        b"status=done",
        b"status=",
        b"status=queued,done",
        b"created_after=yesterday",
        b"created_after=2026-11-21",
        b"created_after=2026-11-21T10:00:00",
        b"created_after=99999-01-01T00:00:00Z",
        b"created_after=0001-01-01T00:00:00Z",
        b"created_before=" + b"9" * 400,
        b"metadata.=x",
        b"&".join(b"metadata.k%d=x" % n for n in range(11)),
        b"tag=" + b"x" * 1025,
        b"tag=%00",
        b"provider_task_id=",
    ],
)
async def test_bad_filter_is_malformed(loud: Served, query: bytes) -> None:
    """What would find nothing, or break the search, is told instead."""
    status, _ = await _raw(loud, _request(b"/v1/jobs?" + query))

    assert status == 400


@pytest.mark.parametrize(
    "target",
    [
        b"/v1/jobs/%00",
        b"/v1/jobs/%FF%FE",
        b"/v1/jobs/%",
        b"/v1/jobs/%zz",
        b"/v1/jobs/\xff\xfe",
        b"/v1/jobs/" + b"x" * 20_000,
        b"/v1/jobs/../../etc/passwd",
        b"/v1/jobs/job_01990000-0000-7000-8000-000000000000%00",
        b"/v1/jobs/job_01990000-0000-7000-8000-000000000000/results/" + b"9" * 1000,
        b"/v1/jobs/job_01990000-0000-7000-8000-000000000000/results/%D9%A1",
        b"/v1/providers/%00",
        b"/v1/keys/" + b"9" * 5000,
        b"/v1/subscriptions/%FF",
        b"/v1/deliveries/%00",
        b"/r/%00",
        b"/r/%F0%9F%90%B1",
        b"/schema/static/%FF",
        b"/\x7f",
        b"/callbacks/..",
        b"/%2e%2e/",
        b"/v1/jobs;x=1",
        b"http://elsewhere/v1/jobs/x",
        b"*",
        b"",
    ],
)
async def test_strange_path_finds_nothing(loud: Served, target: bytes) -> None:
    """404, or 400 where it is not HTTP at all; by GET and by POST."""
    for method in (b"GET", b"POST", b"DELETE"):
        status, answer = await _raw(loud, _request(target, method))

        assert status in {0, 400, 404, 405}, (method, target[:60], answer[-300:])


async def test_doubled_slash_is_the_root_and_nothing_else(loud: Served) -> None:
    """It leads to the description as `/` does, and takes nothing."""
    told, _ = await _raw(loud, _request(b"//", b"GET"))
    posted, _ = await _raw(loud, _request(b"//", b"POST"))

    assert (told, posted) == (200, 405)


@pytest.mark.parametrize(
    "headers",
    [
        b"Prefer: wait=" + b"9" * 5000 + b"\r\n",
        b"Prefer: wait=\xff\r\nPrefer: \xff=1\r\n",
        b"Prefer: wait=-1, ,;;=, wait\r\n",
        b"If-None-Match: " + b'"x",' * 5000 + b"\r\n",
        b"If-None-Match: \xff\xfe\r\n",
        b"Accept: \xff\r\nAccept-Encoding: \xff\r\n",
        b"Request-Id: \xff\xfe\r\n",
        b"Cookie: \xff=\xff; a\r\n",
        b"X-Forwarded-For: \xff\r\nForwarded: for=\xff\r\nX-Forwarded-Proto: \xff\r\n",
        b"Idempotency-Key: \xff\r\n",
        b"Content-Type: \xff\r\n",
        b"Expect: 100-continue\r\n",
        b"Upgrade: websocket\r\nConnection: Upgrade\r\n",
    ],
)
async def test_strange_header_harms_nobody(loud: Served, headers: bytes) -> None:
    """Looked over or refused, never an error of ours."""
    for target in (JOB.encode(), b"/healthz", b"/schema", b"/v1/jobs"):
        status, answer = await _raw(loud, _request(target, headers=headers))

        assert status in {0, 200, 400, 404}, (target, answer[-300:])


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        (b"", BODY[:-1], {400}),
        (b"", b"\xff" * 10, {400}),
        (b"", b"[" * 100_000, {400}),
        (b"", b'{"provider":"\\ud800","input":{}}', {400}),
        (b"", b'{"provider":"apimodels","provider":"sandbox","input":{}}', {400}),
        (b"", b"null", {422}),
        (b"", b"[]", {422}),
        (b"", b'{"provider":{"a":1},"operation":[],"input":7,"tags":{},"metadata":[],"expires_in_s":1.5}', {422}),
        (b"", b'{"provider":"apimodels","input":{"prompt":' + b"[" * 30 + b"]" * 30 + b"}}", {422}),
        (b"", b'{"provider":"apimodels","input":{"prompt":"x","seed":18446744073709551615}}', {422}),
        (b"", b'{"provider":"apimodels","callback_url":"http://[::1","input":{"model":"sparkpix","prompt":"x"}}', {422}),
        (b"", b'{"provider":"apimodels","callback_url":"http://\xc3\xa9\xf0\x9f\x90\xb1/","input":{"model":"sparkpix","prompt":"x"}}', {202, 422}),
        (b"Content-Encoding: gzip\r\n", BODY, {415}),
        (b"Content-Encoding: \xff\r\n", BODY, {415}),
        (b'Idempotency-Key: ""\r\n', BODY, {400}),
        (b"Idempotency-Key: a\r\nIdempotency-Key: b\r\n", BODY, {400}),
        (b"Idempotency-Key: " + b"x" * 256 + b"\r\n", BODY, {400}),
    ],
)  # fmt: skip
async def test_bad_body_is_refused(loud: Served, headers: bytes, body: bytes, expected: set[int]) -> None:
    """Each fault has its status; what is refused is not stored."""
    status, answer = await _raw(loud, _request(b"/v1/jobs", b"POST", body, headers))

    assert status in expected, answer[-300:]
    assert await loud.count() == (1 if status == 202 else 0)


async def test_every_body_route_refuses_what_is_no_json(loud: Served) -> None:
    """Routes that take a body, also an optional one, take JSON only; and none takes too much of it."""
    subscription = "/v1/subscriptions/sub_01990000-0000-7000-8000-000000000000"
    for path in ("/v1/jobs", f"{JOB}/cancel", f"{JOB}/resubmit", "/v1/keys", "/v1/accounts", "/v1/subscriptions",
                 "/v1/account/rotate-secret", f"{subscription}/rotate-secret", f"{subscription}/test"):  # fmt: skip
        text = await loud.client.post(path, content=b"a=1", headers={"Content-Type": "text/plain"})
        garbage = await loud.client.post(path, content=b"{", headers={"Content-Type": "application/json"})
        huge = await loud.client.post(
            path, content=b" " * (17 * 1024 * 1024), headers={"Content-Type": "application/json"}
        )

        assert (text.status_code, garbage.status_code, huge.status_code) == (415, 400, 413), path


async def test_caller_who_leaves_in_the_middle_harms_nobody(loud: Served) -> None:
    """A body that never comes to its end stores nothing."""
    where = urlsplit(loud.service.url)
    for cut in (b"", BODY[:10]):
        _, writer = await asyncio.open_connection(where.hostname, where.port)
        writer.write(_request(b"/v1/jobs", b"POST", BODY)[: -len(BODY)] + cut)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    assert (await loud.client.get("/v1/jobs")).json()["data"] == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.binary(max_size=60))
def test_any_query_string_is_read_or_refused(raw: bytes) -> None:
    """No bytes bring another error out of the query."""
    told = ""
    try:
        cursor_id(JobListQuery.parse(raw).cursor, "job")
    except Malformed as error:
        told = error.detail

    assert told.isprintable()
