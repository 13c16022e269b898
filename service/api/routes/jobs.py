"""The routes of jobs: take, look, wait, cancel, submit again."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec
from litestar import Request, Response, delete, get, post
from litestar.params import FromPath

from service.api.answers.cursors import cursor_id, cursor_number, next_cursor, page
from service.api.answers.responses import empty_answer, json_answer, raw_answer
from service.api.context import Context, context_of, principal_of
from service.api.requests.body import JOB_BODY_MAX_BYTES, header
from service.api.requests.route import (
    APPLIED,
    IDEMPOTENCY_KEY,
    LOCATION,
    PREFER,
    REPLAYED,
    Header,
    RouteAnswer,
    body_of,
    query_of,
    takes,
)
from service.api.waiting import applied, job_when_final, preferred_wait
from service.errors import Gone, NotFound
from service.ids import is_id
from service.jobs import queries
from service.jobs.erase import Erase
from service.jobs.idempotency_store import idempotency_key
from service.jobs.intake import Caller
from service.jobs.listing import list_queries
from service.jobs.listing.list_queries import JobFilter
from service.jobs.row import JobRow
from service.jobs.track import Track
from service.jobs.transitions.facts import ResubmitAsked
from service.jobs.view import ERASED, ResultRow, job_view
from service.results import queries as result_queries
from service.results.links import ResultLinks
from service.schemas.job_schemas import (
    CancelRequest,
    ExportQuery,
    JobListQuery,
    JobPage,
    JobRequest,
    JobView,
    TimelinePage,
)
from service.schemas.query_model import NoQuery, PageQuery
from service.schemas.request_model import NoFields
from service.schemas.words import Scope
from service.states import JobStatus

_EXAMPLE: Final = {
    "provider": "apimodels",
    "operation": "generate",
    "input": {"model": "sparkpix", "prompt": "A cute cat wearing a space helmet", "aspect_ratio": "16:9"},
    "callback_url": "https://backend.example/hooks/images",
    "callback_events": ["job.completed", "job.failed"],
    "metadata": {"order": "4711"},
    "tags": ["shop"],
    "expires_in_s": 604_800,
}


@post(
    "/v1/jobs",
    opt=takes(
        Scope.JOBS_WRITE,
        RouteAnswer(200, "The job is final", JobView, (LOCATION, APPLIED)),
        RouteAnswer(202, "The job is stored", JobView, (LOCATION, REPLAYED, APPLIED)),
        body=JobRequest,
        headers=(IDEMPOTENCY_KEY, PREFER),
        example=_EXAMPLE,
    ),
)
async def take_job(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Take a job.

    Answers 202 once the job is durably stored, and stores nothing when it is refused. With `Prefer: wait=N` the answer is
    held back for at most N seconds and is 200 with the final job if it became final in time. 402 `insufficient_balance` where
    it does not fit the account's limit, with what is `needed`, `available` and `missing`. 422 `price_unknown` where the account
    has a limit and nobody knows what the job will cost, with pointers to the fields that decide it.
    """
    context, who = context_of(request), principal_of(request)
    query_of(request, NoQuery)
    key = idempotency_key(header(request.scope, b"idempotency-key"))
    asked = await body_of(request, JobRequest, JOB_BODY_MAX_BYTES)
    taken = await context.jobs.intake.take(Caller(who.account_id, who.key_id), asked, key)
    headers = {"Location": f"/v1/jobs/{taken.job_id}"}
    if taken.replayed:
        headers["Idempotent-Replayed"] = "true"
    seconds = preferred_wait(request.scope)
    if seconds:
        context.memory.bodies.give_back(request.scope)  # nobody holds the body while its job is waited for
        job = await job_when_final(context, who.account_id, taken.job_id, seconds)
        headers |= applied(seconds)
        if job is not None:  # as it is now, which is why the caller waited
            return raw_answer(await _shown(request, job), 200 if job.is_final else 202, headers)
    return raw_answer(taken.answer, 202, headers)


@get("/v1/jobs", opt=takes(Scope.JOBS_READ, RouteAnswer(200, "A page of jobs", JobPage), query=JobListQuery))
async def list_jobs(request: Request[Any, Any, Any]) -> Response[bytes]:
    """List jobs, newest first.

    A job's own metadata can be asked for with `metadata.<key>=<value>`. Tags and metadata are found by an index. Of other
    filters that rarely match a page looks at 20,000 jobs, and may have fewer than `limit`, or none, although more follow:
    only without a `next_cursor` there are no more. After the clock was set back by more than an hour `created_before` may
    leave out jobs that were taken before that.
    """
    context, who = context_of(request), principal_of(request)
    query = query_of(request, JobListQuery)
    wanted, links = job_filter(query), _links(request).url
    async with context.memory.pages.turn(who.account_id, query.limit) as began:
        found = await list_queries.list_jobs(context.reader, who.account_id, wanted, query.limit)
        results = await queries.results_of(context.reader, found.jobs)
        shown = await context.memory.pages.encoded(
            found.jobs, lambda job: job_view(job, results.get(job.id, ()), links), began
        )
    return json_answer({"data": shown, "next_cursor": next_cursor("job", found.next_id)})


@get(
    "/v1/jobs/{job_id:str}",
    opt=takes(
        Scope.JOBS_READ,
        RouteAnswer(200, "The job", JobView, (Header("ETag"), APPLIED)),
        RouteAnswer(304, "The job is as `If-None-Match` has it"),
        headers=(PREFER, Header("If-None-Match")),
    ),
)
async def get_job(request: Request[Any, Any, Any], job_id: FromPath[str]) -> Response[bytes]:
    """Look at a job, or wait for its end."""
    context, who = context_of(request), principal_of(request)
    query_of(request, NoQuery)
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


@delete("/v1/jobs/{job_id:str}", opt=takes(Scope.JOBS_WRITE, RouteAnswer(204, "It is erased")), status_code=204)
async def erase_job(request: Request[Any, Any, Any], job_id: FromPath[str]) -> None:
    """Erase a job.

    The prompt, the inputs and the files of a final job go, in every copy of them: also its events leave the feed, and
    cannot be sent again. The job, its timeline and its money stay. Erasing twice is erasing once. 409 `not_final` for a
    job that has not ended. What cannot be removed now is removed later.
    """
    context, who = context_of(request), principal_of(request)
    query_of(request, NoQuery)
    if not is_id(job_id, "job"):
        raise _no_job()
    if await context.writer.run(Erase(job_id, who.account_id)) is False:
        raise _no_job()
    await context.jobs.remove_files(job_id)


@post(
    "/v1/jobs/{job_id:str}/cancel",
    opt=takes(Scope.JOBS_WRITE, RouteAnswer(200, "The job, cancelled", JobView), body=CancelRequest),
)
async def cancel_job(request: Request[Any, Any, Any], job_id: FromPath[str]) -> Response[bytes]:
    """Cancel a job.

    What is still queued is cancelled at once, as is what its provider cancels. A job in `submit_unknown` needs
    `{"force": true}`, since the provider may be working on it and charge for it. 409 `not_cancellable` where it is too late.
    """
    context, who = context_of(request), principal_of(request)
    asked = await body_of(request, CancelRequest)
    await context.jobs.canceller.cancel(await _owned(context, who.account_id, job_id), force=asked.force)
    job = await _owned(context, who.account_id, job_id)
    return raw_answer(await _shown(request, job))


@post(
    "/v1/jobs/{job_id:str}/resubmit",
    opt=takes(
        Scope.JOBS_WRITE,
        RouteAnswer(200, "The same job, queued again", JobView),
        RouteAnswer(201, "A new job", JobView, (LOCATION, REPLAYED)),
        headers=(IDEMPOTENCY_KEY,),
    ),
)
async def resubmit_job(request: Request[Any, Any, Any], job_id: FromPath[str]) -> Response[bytes]:
    """Submit a job again.

    An operator's decision: a job in `submit_unknown` gets a further submission, which the provider may charge for again; a
    failed or expired one becomes a new job with `retry_of`, or 409 `input_erased` where its input is not kept any more.
    """
    context, who = context_of(request), principal_of(request)
    await body_of(request, NoFields)
    job = await _owned(context, who.account_id, job_id)
    if job.status is JobStatus.SUBMIT_UNKNOWN:
        await context.writer.run(Track(ResubmitAsked(job_id, who.account_id)))
        again = await _owned(context, who.account_id, job_id)
        return raw_answer(await _shown(request, again))
    key = idempotency_key(header(request.scope, b"idempotency-key"))
    taken = await context.jobs.intake.take_again(Caller(who.account_id, who.key_id), job, key)
    replayed = {"Idempotent-Replayed": "true"} if taken.replayed else {}
    return raw_answer(taken.answer, 201, {"Location": f"/v1/jobs/{taken.job_id}", **replayed})


@get(
    "/v1/jobs/{job_id:str}/events",
    opt=takes(Scope.JOBS_READ, RouteAnswer(200, "A page of the timeline", TimelinePage), query=PageQuery),
)
async def list_job_events(request: Request[Any, Any, Any], job_id: FromPath[str]) -> Response[bytes]:
    """The job's timeline, oldest first."""
    context, who = context_of(request), principal_of(request)
    query = query_of(request, PageQuery)
    after = cursor_number(query.cursor, "seq") or 0
    await _owned(context, who.account_id, job_id)
    rows = await queries.timeline(context.reader, job_id, after, query.limit + 1)
    return page(rows, query.limit, lambda row: row, "seq", lambda row: row["seq"])


@get(
    "/v1/jobs/{job_id:str}/results/{index:str}",
    opt=takes(Scope.JOBS_READ, RouteAnswer(302, "The link", None, (LOCATION,))),
)
async def get_result(request: Request[Any, Any, Any], job_id: FromPath[str], index: FromPath[str]) -> Response[bytes]:
    """A short-lived link to one result."""
    context, who = context_of(request), principal_of(request)
    query_of(request, NoQuery)
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
    if not result.stored or context.results.storage is None:
        return None
    held = await result_queries.held(context.reader, job_id, result.idx)
    if held is None or held.storage_key is None:
        return None
    return await context.results.storage.link(held.storage_key, max(1, life_ms // 1000))


def job_filter(query: JobListQuery | ExportQuery) -> JobFilter:
    """What a list or an export of jobs is narrowed to.

    Raises:
        Malformed: The cursor is none of this list.
    """
    wanted = JobFilter(
        status=query.status or (),
        provider=query.provider,
        operation=query.operation,
        tag=query.tag,
        created_after=query.created_after,
        created_before=query.created_before,
    )
    if isinstance(query, ExportQuery):
        return wanted
    return replace(
        wanted,
        provider_task_id=query.provider_task_id,
        metadata=tuple(query.metadata.items()),
        before_id=cursor_id(query.cursor, "job"),
    )


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
    return context_of(request).results.links.seen_by(header(request.scope, b"host"))


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
