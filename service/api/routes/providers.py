"""The routes of providers: which cards are in force, and what their operations take."""

from __future__ import annotations

from typing import Any, Literal

from litestar import Request, Response, get
from litestar.params import FromPath

from service.api.answers.responses import json_answer
from service.api.context import Context, context_of
from service.api.requests.route import ANY_KEY, RouteAnswer, query_of, takes
from service.clock import iso
from service.errors import NotFound
from service.money import usd
from service.providers.breaker import Breaker
from service.providers.card.card import Operation
from service.providers.card.price import Price
from service.providers.registry import Provider
from service.schemas.query_model import NoQuery
from service.schemas.service_schemas import OperationView, PriceView, ProviderHealthView, ProviderList, ProviderView


@get("/v1/providers", opt=takes(ANY_KEY, RouteAnswer(200, "All of them", ProviderList)))
async def list_providers(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The provider cards in force.

    A short list, given whole.
    """
    query_of(request, NoQuery)
    context = context_of(request)
    shown = [provider_view(provider, context) for provider in context.providers.registry.all()]
    return json_answer({"data": shown, "next_cursor": None})


@get("/v1/providers/{name:str}", opt=takes(ANY_KEY, RouteAnswer(200, "The card", ProviderView)))
async def get_provider(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
    """One provider card."""
    query_of(request, NoQuery)
    context = context_of(request)
    provider = context.providers.registry.get(name)
    if provider is None:
        known = ", ".join(each.name for each in context.providers.registry.all())
        raise NotFound(f"there is no such provider; known are {known}")
    return json_answer(provider_view(provider, context))


def provider_view(provider: Provider, context: Context) -> ProviderView:
    """A provider as it is shown. `reason` says why it is not configured, and what to set."""
    card = provider.card
    given = context.settings.providers.get(provider.name)
    rate = (given.submit_rate if given else None) or card.limits.submit_rate
    return {
        "name": provider.name,
        "title": card.title,
        "configured": provider.configured,
        "reason": provider.reason,
        "default_operation": provider.default_operation,
        "verify": provider.verify,
        "health": _health(context.providers.breakers.of(provider.name), provider),
        "limits": {
            "in_flight": provider.max_in_flight,
            "submits": provider.max_submits,
            "submit_rate": None if rate is None else {"count": rate.count, "per_s": rate.per_s},
            "retention_s": provider.retention_s,
        },
        "load": {
            "tasks": context.providers.unfinished(provider.name),
            "submits": provider.submits.in_use,
            "polls": provider.polls.in_use,
        },
        "operations": {name: _operation_view(provider, name, each) for name, each in card.operations.items()},
    }


def _health(breaker: Breaker, provider: Provider) -> ProviderHealthView:
    """`down`: submissions fail in a row, jobs wait in the queue, and a try is made now and then.

    `paused_for_s`: the provider wants no more submissions for so long (429).
    """
    return {
        "status": "down" if breaker.is_open else "up",
        "since": iso(breaker.opened_at),
        "failures_in_a_row": breaker.failures,
        "last_error": breaker.last_error,
        "paused_for_s": round(provider.submits.pause_s(), 1) or None,
    }


def _operation_view(provider: Provider, name: str, operation: Operation) -> OperationView:
    timing = provider.timing(name)
    return {
        "title": operation.title,
        "learns_by": _learns_by(provider, name),
        "callback": provider.wants_callback(name),
        "poll": provider.can_poll(name),
        "typical_s": timing.typical_s,
        "overdue_after_s": timing.overdue_after_s,
        "price": None if operation.price is None else _price_view(operation.price, provider.price_ceiling(name)),
        "input_schema": operation.input,
    }


def _learns_by(provider: Provider, name: str) -> Literal["callback", "poll", "response"]:
    """How the end of a task is usually heard of."""
    if provider.wants_callback(name):
        return "callback"
    return "poll" if provider.can_poll(name) else "response"


def _price_view(price: Price, ceiling: int | None) -> PriceView:
    """`ceiling`: held where no row fits and only the completion tells the cost; without one, limited accounts are refused."""
    return {
        "currency": "USD",
        "per": price.per,
        "rows": [{"where": row.where, "amount": f"{row.usd:.6f}"} for row in price.rows],
        "failures": price.failures,
        "unknown": price.unknown,
        "ceiling": usd(ceiling),
    }


ROUTES = (list_providers, get_provider)
