"""What operators and their machines ask: liveness, readiness, metrics."""

from __future__ import annotations

from typing import Any

from litestar import HttpMethod, Request, Response, get, route

from service.api.answers import json_answer
from service.api.auth import authenticated
from service.api.context import context_of
from service.errors import Unavailable
from service.jobs.queries import count_by_status

_NO_STORE = {"Cache-Control": "no-store"}
_LOOK = [HttpMethod.GET, HttpMethod.HEAD]
RETRY_AFTER_S = 5


@route("/healthz", http_method=_LOOK)
async def healthz() -> Response[bytes]:
    """The process answers."""
    return json_answer({"status": "ok"}, headers=_NO_STORE)


@route("/readyz", http_method=_LOOK)
async def readyz(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The service can take work; if not, why."""
    reasons = await context_of(request).not_ready()
    if reasons:
        raise Unavailable("; ".join(reasons), code="not_ready", retry_after_s=RETRY_AFTER_S)
    return json_answer({"status": "ready"}, headers=_NO_STORE)


@get("/metrics")
async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """All metrics for Prometheus; the jobs are counted now."""
    context = context_of(request)
    if not context.open_metrics:
        await authenticated(request)
    context.metrics.set_jobs(await count_by_status(context.reader))
    body, content_type = context.metrics.render()
    return Response(body, media_type=content_type, headers=_NO_STORE)


ROUTES = (healthz, readyz, metrics)
