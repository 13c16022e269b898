"""`Prefer: wait=N` (RFC 7240): an answer that is held back until a job is final, for at most N seconds."""

from __future__ import annotations

import asyncio
import re
from typing import Final

from litestar.types import Scope

from service.api.context import Context
from service.jobs import queries
from service.jobs.row import JobRow

MAX_WAIT_S: Final = 60  # of `Prefer: wait`
_WAIT: Final = re.compile(r'wait\s*=\s*"?([0-9]{1,9})"?', re.IGNORECASE)


def preferred_wait(scope: Scope) -> int:
    """The seconds that the caller would wait, at most a minute; 0 where it says nothing, or nothing that makes sense."""
    for name, value in scope["headers"]:
        if name != b"prefer":
            continue
        for preference in re.split(r"[,;]", value.decode("latin-1")):
            match = _WAIT.fullmatch(preference.strip())
            if match is not None:  # the first one counts, says the RFC
                return min(int(match[1]), MAX_WAIT_S)
    return 0


def applied(seconds: int) -> dict[str, str]:
    """The header that tells that the preference was honoured."""
    return {"Preference-Applied": f"wait={seconds}"} if seconds else {}


async def job_when_final(context: Context, account_id: str, job_id: str, seconds: int) -> JobRow | None:
    """The account's job: once it is final, or as it is after so many seconds or when the service begins to drain."""
    if not seconds or context.state.draining():
        return await queries.find(context.reader, account_id, job_id)
    # Registered before the state is read: a job that becomes final in between would never wake us.
    final = context.jobs.waiters.register(job_id)
    try:
        job = await queries.find(context.reader, account_id, job_id)
        if job is None or job.is_final:
            return job
        await _either(final, context, seconds)
    finally:
        context.jobs.waiters.forget(job_id, final)
    return await queries.find(context.reader, account_id, job_id)


async def _either(final: asyncio.Future[None], context: Context, seconds: int) -> None:
    enough = asyncio.ensure_future(context.clock.sleep(seconds))
    try:
        await asyncio.wait({final, enough}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        enough.cancel()
