"""What operators and their machines ask: liveness, readiness, metrics."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get

from service.api.answers.responses import json_answer
from service.api.auth import authenticated
from service.api.context import Context, context_of
from service.api.requests.hosts import is_asked_here
from service.api.requests.route import RouteAnswer, takes
from service.clock import iso
from service.deliveries.statistics.gauges import gauges
from service.errors import Unavailable
from service.results.queries import backlog
from service.schemas.service_schemas import DownProviderView, HealthView, ReadinessView

_NO_STORE = {"Cache-Control": "no-store"}
RETRY_AFTER_S = 5  # told by a `/readyz` that is not ready
CLOCK_OFFSET_S = 1.0  # that is told


@get("/healthz", opt=takes(None, RouteAnswer(200, "It does", HealthView)))
async def healthz() -> Response[bytes]:
    """The process answers."""
    return json_answer({"status": "ok"}, headers=_NO_STORE)


@get(
    "/readyz",
    opt=takes(
        None,
        RouteAnswer(200, "It can; a provider that is down makes nobody unready, since its jobs wait", ReadinessView),
    ),
)
async def readyz(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The service can take work; if not, why."""
    context = context_of(request)
    reasons = await context.state.not_ready()
    if reasons:
        raise Unavailable("; ".join(reasons), code="not_ready", retry_after_s=RETRY_AFTER_S)
    down: dict[str, DownProviderView] = {
        name: {"since": iso(each.opened_at), "error": each.last_error}
        for name, each in context.providers.breakers.down().items()
    }
    shown: ReadinessView = {"status": "ready", "providers_down": down, "providers_paused": _paused(context)}
    if abs(offset_s := _clock_offset_s(context)) >= CLOCK_OFFSET_S:
        shown["clock_offset_s"] = round(offset_s, 1)
    return json_answer(shown, headers=_NO_STORE)


def _clock_offset_s(context: Context) -> float:
    """How far the wall clock is ahead of the time for due work."""
    return (context.clock.wall_ms() - context.clock.now_ms()) / 1000


def _paused(context: Context) -> dict[str, float]:
    """Seconds for which providers that refused for the moment get no submissions, by name."""
    pauses = {provider.name: provider.submits.pause_s() for provider in context.providers.registry.all()}
    return {name: round(pause_s, 1) for name, pause_s in pauses.items() if pause_s > 0}


@get(
    "/metrics",
    opt=takes(None, RouteAnswer(200, "The metrics", media={"text/plain": {"type": "string"}})),
)
async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Metrics for Prometheus.

    Needs a key unless the service listens on loopback only. The deliveries that wait are counted now.
    """
    context = context_of(request)
    if not (context.state.open_metrics and is_asked_here(request.scope, context.settings.public_url)):
        await authenticated(request)
    context.state.metrics.set_jobs(await context.jobs.counts.now())
    context.state.metrics.set_captures(await backlog(context.reader))
    for name, values in (await gauges(context.reader, context.figures, context.clock.now_ms())).items():
        context.state.metrics.set_gauges(name, values)
    context.state.metrics.set_gauges("remora_clock_offset_seconds", {(): _clock_offset_s(context)})
    context.state.metrics.set_gauges("remora_event_streams", {(): context.events.hub.count})
    context.state.metrics.set_gauges(
        "remora_provider_down", {(name,): 1.0 for name in context.providers.breakers.down()}
    )
    paused: dict[tuple[str, ...], float] = {(name,): pause_s for name, pause_s in _paused(context).items()}
    context.state.metrics.set_gauges("remora_provider_paused_seconds", paused)
    for name, values in _load(context).items():
        context.state.metrics.set_gauges(name, values)
    body, content_type = context.state.metrics.render()
    # Litestar adds the charset to every type of text, also where it is there already.
    return Response(body, media_type=content_type.removesuffix("; charset=utf-8"), headers=_NO_STORE)


def _load(context: Context) -> dict[str, dict[tuple[str, ...], float]]:
    """What providers that were asked for anything have of us now."""
    providers = [each for each in context.providers.registry.all() if each.configured]
    return {
        "remora_provider_tasks": {(each.name,): context.providers.unfinished(each.name) for each in providers},
        "remora_provider_submits": {(each.name,): each.submits.in_use for each in providers},
        "remora_provider_polls": {(each.name,): each.polls.in_use for each in providers},
    }


ROUTES = (healthz, readyz, metrics)
