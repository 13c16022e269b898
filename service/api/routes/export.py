"""The export of jobs: the whole history of an account as a file, streamed.

It holds one page and no more: a page is read, written, and only when the client has taken it the next one is read. A file that
cannot be finished is cut off without its end, so that no client takes a part for the whole.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import structlog
from litestar import Request, get
from litestar.types import ASGIApp, Receive, Send
from litestar.types import Scope as Exchange

from service.api.auth import authenticated
from service.api.context import Context, context_of, principal_of
from service.api.listening.connection import abort_connection
from service.api.requests.route import Header, RouteAnswer, query_of, takes
from service.api.routes.jobs import job_filter
from service.clock import iso
from service.errors import TooManyRequests, Unauthenticated, Unavailable
from service.ids import earliest
from service.jobs.listing import list_queries
from service.jobs.listing.export import FORMATS, row_of
from service.jobs.listing.list_queries import JobFilter
from service.schemas.job_schemas import ExportedJobView, ExportQuery
from service.schemas.words import Scope

PAGE: Final = 500  # jobs that are read at a time
SLICE: Final = 100  # jobs that are written at a time, so that nobody else waits for long
WRITE_S: Final = 30.0  # for a client to take what was written
AT_ONCE: Final = 8  # exports of the process
OF_ACCOUNT: Final = 2  # of these, so that one account's slow readers leave room for others
RETRY_AFTER_S: Final = 10  # told to those who found too many exports under way
_RUNNING: Final = "exports"  # in the application's state

_log = structlog.get_logger(__name__)


@get(
    "/v1/jobs/export",
    opt=takes(
        Scope.JOBS_READ,
        RouteAnswer(
            200,
            "A row for each job",
            ExportedJobView,
            (Header("Content-Disposition"),),
            media={"text/csv": {"type": "string"}},
            media_type="application/jsonl",
        ),
        query=ExportQuery,
    ),
)
async def export_jobs(request: Request[Any, Any, Any]) -> ASGIApp:
    """The history of jobs as a file.

    Streamed, oldest first, up to the moment of the request. A file that cannot be finished (the service stops, the key is
    revoked) is cut off without its end, which an HTTP client reports; `after` goes on behind the last row of it. In CSV a text
    that a spreadsheet would take for a formula has a `'` put before it.
    """
    context, who = context_of(request), principal_of(request)
    query = query_of(request, ExportQuery)
    wanted = job_filter(query)
    after = query.after or earliest("job", wanted.created_after or 0)  # ids are made no earlier than their jobs
    return Export(request, context, who.account_id, query.format, wanted, after, query.limit)


@dataclass(slots=True)
class Export:
    """The answer, as an ASGI application for one exchange."""

    request: Request[Any, Any, Any]
    context: Context
    account_id: str
    form: str
    wanted: JobFilter
    after: str
    left: int  # rows that may still be written

    async def __call__(self, scope: Exchange, receive: Receive, send: Send) -> None:
        """See ASGI.

        Raises:
            TooManyRequests: Others are being written; nothing was begun.
        """
        if self.request.method == "HEAD":
            await self._send(send, b"", headers=self._headers(FORMATS[self.form][0]), more=False)
            return
        running: Counter[str] = self.request.app.state.setdefault(_RUNNING, Counter())
        if running[self.account_id] >= OF_ACCOUNT or running.total() >= AT_ONCE:
            raise TooManyRequests("other exports are being written; try again soon", retry_after_s=RETRY_AFTER_S)
        running[self.account_id] += 1
        gone = asyncio.create_task(_until_gone(receive), name="export-reader")
        try:
            if not await self._write(send, gone):
                abort_connection(scope)
        except (TimeoutError, Unavailable):  # the store was not read in time
            abort_connection(scope)  # closing would wait for a client that takes nothing
        except Exception:  # the head is out, so that no problem can be told; the cut tells that the file is none
            _log.exception("export_broke")
            abort_connection(scope)
        finally:
            running[self.account_id] -= 1
            running += Counter()  # forgets accounts that have none
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)

    async def _write(self, send: Send, gone: asyncio.Task[None]) -> bool:
        """Write everything; False: it cannot be finished."""
        content_type, head, rows_of = FORMATS[self.form]
        # What is taken while we write would keep a busy account's export from ever ending. By its id, which grows also
        # where the clock was stepped back.
        until = await list_queries.newest_id(self.context.reader, self.account_id)
        await self._send(send, head(), headers=self._headers(content_type))
        at: str | None = self.after
        while at is not None and self.left:
            if gone.done() or self.context.state.draining() or not await self._allowed():
                return False
            page = await list_queries.export_page(self.context.reader, self.account_id, self.wanted, (at, until), PAGE)
            rows = page.rows[: self.left]
            for begin in range(0, len(rows), SLICE):
                await self._send(send, rows_of(map(row_of, rows[begin : begin + SLICE])))
                await asyncio.sleep(0)  # sending waits only for a client that is slow
            self.left -= len(rows)
            at = page.last
        await self._send(send, b"", more=False)
        return True

    def _headers(self, content_type: str) -> list[tuple[bytes, bytes]]:
        today = str(iso(self.context.clock.now_ms()))[:10]
        name = f"remora-jobs-{today}.{self.form}"
        return [
            (b"content-type", content_type.encode()),
            (b"content-disposition", f'attachment; filename="{name}"'.encode()),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),  # nginx would otherwise collect it, and take a cut for an end
        ]

    async def _send(
        self, send: Send, text: bytes, *, headers: list[tuple[bytes, bytes]] | None = None, more: bool = True
    ) -> None:
        async with asyncio.timeout(WRITE_S):
            if headers is not None:
                await send({"type": "http.response.start", "status": 200, "headers": headers})
            if text or not more:
                await send({"type": "http.response.body", "body": text, "more_body": more})

    async def _allowed(self) -> bool:
        """Whether the key that began the export still may."""
        try:
            return (await authenticated(self.request)).may(Scope.JOBS_READ)
        except Unauthenticated:
            return False


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass  # a body that comes with a GET


ROUTES = (export_jobs,)
