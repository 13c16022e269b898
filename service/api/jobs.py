"""The routes of jobs: take, look, wait, cancel, submit again."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import Request, Response, delete, get, post
from litestar.params import FromPath

from service.accounts.keys import Scope
from service.api.auth import needs
from service.api.body import JOB_BODY_MAX_BYTES, fields_of, header, optional_body, parsed_body
from service.api.context import Context, context_of, principal_of
from service.api.query import PAGING, Query, next_cursor, page, query_of, wrong
from service.api.responses import empty_answer, json_answer, raw_answer
from service.api.waiting import applied, job_when_final, preferred_wait
from service.errors import FieldError, Gone, Invalid, NotFound
from service.ids import is_id
from service.jobs import list_queries, queries
from service.jobs.erase import Erase
from service.jobs.intake import Caller
from service.jobs.job_request import idempotency_key, parse
from service.jobs.list_queries import JobFilter
from service.jobs.row import JobRow
from service.jobs.track import Track
from service.jobs.transitions.facts import ResubmitAsked
from service.jobs.view import ERASED, ResultRow, job_view
from service.results import queries as result_queries
from service.results.links import ResultLinks
from service.states import JobStatus

_METADATA = "metadata."
_MAX_METADATA = 10  # filters at once
_FILTERS = frozenset({"status", "provider", "operation", "tag", "provider_task_id", "created_after", "created_before"})
_NOTHING: frozenset[str] = frozenset()


@post("/v1/jobs", opt=needs(Scope.JOBS_WRITE))
async def take_job(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Take a job; 202 once it is durably stored, 200 if the caller waited and it is final."""
    context, who = context_of(request), principal_of(request)
    query_of(request.scope, _NOTHING)
    key = idempotency_key(header(request.scope, b"idempotency-key"))
    asked = await parsed_body(request, parse, JOB_BODY_MAX_BYTES)
    taken = await context.intake.take(Caller(who.account_id, who.key_id), asked, key)
    headers = {"Location": f"/v1/jobs/{taken.job_id}"}
    if taken.replayed:
        headers["Idempotent-Replayed"] = "true"
    seconds = preferred_wait(request.scope)
    if seconds:
        context.bodies.give_back(request.scope)  # nobody holds the body while its job is waited for
        job = await job_when_final(context, who.account_id, taken.job_id, seconds)
        headers |= applied(seconds)
        if job is not None:  # as it is now, which is why the caller waited
            return raw_answer(await _shown(request, job), 200 if job.is_final else 202, headers)
    return raw_answer(taken.answer, 202, headers)


@get("/v1/jobs", opt=needs(Scope.JOBS_READ))
async def list_jobs(request: Request[Any, Any, Any]) -> Response[bytes]:
    """A page of the account's jobs, newest first."""
    context, who = context_of(request), principal_of(request)
    query = query_of(request.scope, _FILTERS | PAGING, repeatable=frozenset({"status"}), prefix=_METADATA)
    limit = query.limit()
    wanted, links = job_filter(query), _links(request).url
    async with context.pages.turn(who.account_id, limit) as began:
        found = await list_queries.list_jobs(context.reader, who.account_id, wanted, limit)
        results = await queries.results_of(context.reader, found.jobs)
        shown = await context.pages.encoded(
            found.jobs, lambda job: job_view(job, results.get(job.id, ()), links), began
        )
    return json_answer({"data": shown, "next_cursor": next_cursor("job", found.next_id)})


@get("/v1/jobs/{job_id:str}", opt=needs(Scope.JOBS_READ))
async def get_job(request: Request[Any, Any, Any], job_id: FromPath[str]) -> Response[bytes]:
    """The job; held back until it is final where the caller prefers to wait."""
    context, who = context_of(request), principal_of(request)
    query_of(request.scope, _NOTHING)
    seconds = preferred_wait(request.scope)
    job = await job_when_final(context, who.account_id, job_id, seconds) if is_id(job_id, "job") else None
    if job is None:
        raise _no_job()
    body = await _shown(request, job)
    etag = _etag(body)
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", **applied(seconds)}
    if _matches(header(request.scope, b"if-none-match"), etag):
        return empty_answer(304, headers)
    return raw_answer(body, 200, headers)


@delete("/v1/jobs/{job_id:str}", opt=needs(Scope.JOBS_WRITE), status_code=204)
async def erase_job(request: Request[Any, Any, Any], job_id: FromPath[str]) -> None:
    """Erase a final job's prompt, inputs and files; what cannot be removed now is removed later."""
    context, who = context_of(request), principal_of(request)
    query_of(request.scope, _NOTHING)
    if not is_id(job_id, "job"):
        raise _no_job()
    if await context.writer.run(Erase(job_id, who.account_id)) is False:
        raise _no_job()
    await context.remove_files(job_id)


@post("/v1/jobs/{job_id:str}/cancel", opt=needs(Scope.JOBS_WRITE))
async def cancel_job(request: Request[Any, Any, Any], job_id: FromPath[str]) -> Response[bytes]:
    """Cancel what is queued, what its provider cancels, or with force what nobody knows the fate of."""
    context, who = context_of(request), principal_of(request)
    force = _force(await optional_body(request))
    await context.canceller.cancel(await _owned(context, who.account_id, job_id), force=force)
    job = await _owned(context, who.account_id, job_id)
    return raw_answer(await _shown(request, job))


@post("/v1/jobs/{job_id:str}/resubmit", opt=needs(Scope.JOBS_WRITE))
async def resubmit_job(request: Request[Any, Any, Any], job_id: FromPath[str]) -> Response[bytes]:
    """A further submission of a job in submit_unknown (200), or a new job like a failed or expired one (201)."""
    context, who = context_of(request), principal_of(request)
    fields_of(await optional_body(request) or {}, _NOTHING)
    job = await _owned(context, who.account_id, job_id)
    if job.status is JobStatus.SUBMIT_UNKNOWN:
        await context.writer.run(Track(ResubmitAsked(job_id, who.account_id)))
        again = await _owned(context, who.account_id, job_id)
        return raw_answer(await _shown(request, again))
    key = idempotency_key(header(request.scope, b"idempotency-key"))
    taken = await context.intake.take_again(Caller(who.account_id, who.key_id), job, key)
    replayed = {"Idempotent-Replayed": "true"} if taken.replayed else {}
    return raw_answer(taken.answer, 201, {"Location": f"/v1/jobs/{taken.job_id}", **replayed})


@get("/v1/jobs/{job_id:str}/events", opt=needs(Scope.JOBS_READ))
async def list_job_events(request: Request[Any, Any, Any], job_id: FromPath[str]) -> Response[bytes]:
    """A page of the job's timeline, oldest first."""
    context, who = context_of(request), principal_of(request)
    query = query_of(request.scope, PAGING)
    limit, after = query.limit(), query.cursor_number("seq")
    await _owned(context, who.account_id, job_id)
    rows = await queries.timeline(context.reader, job_id, after or 0, limit + 1)
    return page(rows, limit, lambda row: row, "seq", lambda row: row["seq"])


@get("/v1/jobs/{job_id:str}/results/{index:str}", opt=needs(Scope.JOBS_READ))
async def get_result(request: Request[Any, Any, Any], job_id: FromPath[str], index: FromPath[str]) -> Response[bytes]:
    """A redirect to a short-lived link of one result."""
    context, who = context_of(request), principal_of(request)
    query_of(request.scope, _NOTHING)
    await _owned(context, who.account_id, job_id)
    result = _at(await queries.results(context.reader, job_id), index)
    now_ms = context.clock.now_ms()
    if result.error == ERASED:
        raise Gone("the result was erased", code="result_erased")
    if result.expires_at <= now_ms:
        raise Gone("the result has expired; a new job makes it anew", code="result_expired")
    link_ttl_ms = round(context.settings.link_ttl.total_seconds() * 1000)
    until = min(now_ms + link_ttl_ms, result.expires_at)
    link = await _presigned(context, job_id, result, until - now_ms) or _links(request).short(job_id, result.idx, until)
    return empty_answer(302, {"Location": link, "Cache-Control": "no-store"})


async def _presigned(context: Context, job_id: str, result: ResultRow, life_ms: int) -> str | None:
    """The link of our copy's bucket, where it lies in one."""
    if not result.stored or context.storage is None:
        return None
    held = await result_queries.held(context.reader, job_id, result.idx)
    if held is None or held.storage_key is None:
        return None
    return await context.storage.link(held.storage_key, max(1, life_ms // 1000))


def job_filter(query: Query) -> JobFilter:
    """What a list or an export of jobs is narrowed to.

    Raises:
        Malformed: A parameter is wrong.
    """
    statuses = query.many("status")
    known = [status.value for status in JobStatus]
    if any(status not in known for status in statuses) or ("status" in query.values and not statuses):
        raise wrong("status", f"must be one or some of {', '.join(known)}")
    pairs = tuple((name.removeprefix(_METADATA), query.values[name][0]) for name in query.values if _METADATA in name)
    if len(pairs) > _MAX_METADATA:
        raise wrong("metadata.<key>", f"may be given for at most {_MAX_METADATA} keys")
    return JobFilter(
        status=tuple(dict.fromkeys(statuses)),
        provider=query.one("provider"),
        operation=query.one("operation"),
        tag=query.one("tag"),
        provider_task_id=query.one("provider_task_id"),
        metadata=pairs,
        created_after=query.time("created_after"),
        created_before=query.time("created_before"),
        before_id=query.cursor_id("job"),
    )


def _force(body: object) -> bool:
    if body is None:
        return False
    force = fields_of(body, frozenset({"force"})).get("force", False)
    if not isinstance(force, bool):
        detail = "must be true or false"
        raise Invalid.of([FieldError("/force", detail)])
    return force


async def _owned(context: Context, account_id: str, job_id: str) -> JobRow:
    job = await queries.find(context.reader, account_id, job_id) if is_id(job_id, "job") else None
    if job is None:
        raise _no_job()
    return job


def _at(results: Sequence[ResultRow], index: str) -> ResultRow:
    if re.fullmatch(r"[0-9]{1,5}", index):
        for result in results:
            if result.idx == int(index):
                return result
    raise NotFound(f"the job has {len(results)} results, counted from 0")


async def _shown(request: Request[Any, Any, Any], job: JobRow) -> bytes:
    results = await queries.results(context_of(request).reader, job.id) if job.result_count else []
    return msgspec.json.encode(job_view(job, results, _links(request).url))


def _links(request: Request[Any, Any, Any]) -> ResultLinks:
    """Result links for this caller. Nothing of them is kept: who sends a strange `Host` misleads itself only."""
    return context_of(request).links.seen_by(header(request.scope, b"host"))


def _etag(body: bytes) -> str:
    return f'"{base64.urlsafe_b64encode(hashlib.sha256(body).digest()[:15]).decode()}"'


def _matches(if_none_match: str | None, etag: str) -> bool:
    if if_none_match is None:
        return False
    given = [each.strip().removeprefix("W/") for each in if_none_match.split(",")]
    return "*" in given or etag in given


def _no_job() -> NotFound:
    return NotFound("there is no such job; ids look like job_0199… and are given by POST /v1/jobs")


ROUTES = (take_job, list_jobs, get_job, erase_job, cancel_job, resubmit_job, list_job_events, get_result)
