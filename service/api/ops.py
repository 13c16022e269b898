"""What operators and their machines ask: liveness, readiness, metrics."""

from __future__ import annotations

from typing import Any

from litestar import HttpMethod, Request, Response, get, route

from service.api.answers import json_answer
from service.api.auth import authenticated
from service.api.context import context_of
from service.clock import iso
from service.deliveries.gauges import gauges
from service.errors import Unavailable
from service.jobs.queries import count_by_status
from service.results.queries import backlog

_NO_STORE = {"Cache-Control": "no-store"}
_LOOK = [HttpMethod.GET, HttpMethod.HEAD]
RETRY_AFTER_S = 5


@route("/healthz", http_method=_LOOK)
async def healthz() -> Response[bytes]:
    """The process answers."""
    return json_answer({"status": "ok"}, headers=_NO_STORE)


@route("/readyz", http_method=_LOOK)
async def readyz(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The service can take work; if not, why. A provider that is down is told, but makes nobody unready: jobs wait for it."""
    context = context_of(request)
    reasons = await context.not_ready()
    if reasons:
        raise Unavailable("; ".join(reasons), code="not_ready", retry_after_s=RETRY_AFTER_S)
    down = {
        name: {"since": iso(each.opened_at), "error": each.last_error} for name, each in context.breakers.down().items()
    }
    return json_answer({"status": "ready", "providers_down": down}, headers=_NO_STORE)


@get("/metrics")
async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """All metrics for Prometheus; the jobs and the deliveries that wait are counted now."""
    context = context_of(request)
    if not context.open_metrics:
        await authenticated(request)
    context.metrics.set_jobs(await count_by_status(context.reader))
    context.metrics.set_captures(await backlog(context.reader))
    for name, values in (await gauges(context.reader, context.figures, context.clock.now_ms())).items():
        context.metrics.set_gauges(name, values)
    context.metrics.set_gauges("remora_event_streams", {(): context.hub.count})
    body, content_type = context.metrics.render()
    # Litestar adds the charset to every type of text, also where it is there already.
    return Response(body, media_type=content_type.removesuffix("; charset=utf-8"), headers=_NO_STORE)


ROUTES = (healthz, readyz, metrics)
