"""What the routes need, as one frozen value: the composition root makes it and puts it into `app.state.context`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from litestar import Request

from service.accounts.keys import Keys, Principal
from service.api.answers.pages import LongPages
from service.api.answers.sealed_cursor import SealedCursors
from service.api.listening.buffers import AnswerBuffers, Bodies
from service.clock import Clock, Randomness
from service.db.reader import Reader
from service.db.sealing import SecretBox
from service.db.writer import Writer
from service.deliveries.replays.replay import Replays
from service.deliveries.statistics.figures import Figures
from service.deliveries.subscribing.subscribe import Subscribe
from service.egress import Egress
from service.events.feed import Hub
from service.ids import Ids
from service.jobs.intake import Intake
from service.jobs.listing.counts import JobCounts
from service.jobs.waiters import Waiters
from service.providers.breaker import Breakers
from service.providers.registry import Registry
from service.results.links import ResultLinks
from service.results.storage import Storage
from service.results.thumbnails import Thumbnails
from service.settings import Settings
from service.telemetry import Metrics
from service.workers.cancel import Canceller


class Receiver(Protocol):
    """Who takes callbacks."""

    async def receive(
        self, token: str, body: bytes, content_type: str | None, headers: Mapping[str, str], url: str = ""
    ) -> bool:
        """Store a callback; True once it is durable, False for an unknown token."""

    async def expects(self, token: str) -> bool:
        """Whether the token is known."""


@dataclass(frozen=True, slots=True)
class JobAccess:
    """What is done with jobs. `remove_files` removes those of a job that was erased just now."""

    intake: Intake
    canceller: Canceller
    waiters: Waiters
    counts: JobCounts
    remove_files: Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ProviderAccess:
    """Who can be asked for what, and how they fare. `unfinished`: how many tasks a provider has not finished."""

    registry: Registry
    breakers: Breakers
    unfinished: Callable[[str], int]


@dataclass(frozen=True, slots=True)
class AccountAccess:
    """Who asks, and what a new account or key is made of."""

    keys: Keys
    box: SecretBox
    ids: Ids


@dataclass(frozen=True, slots=True)
class EventAccess:
    """The log of events, live and in pages."""

    hub: Hub
    cursors: SealedCursors


@dataclass(frozen=True, slots=True)
class ResultAccess:
    """Where results are; `storage` and `thumbnails` are None where no copies are kept."""

    links: ResultLinks
    egress: Egress
    storage: Storage | None
    thumbnails: Thumbnails | None


@dataclass(frozen=True, slots=True)
class RequestMemory:
    """What requests share: memory for bodies and for large answers, and turns for long pages."""

    bodies: Bodies
    answers: AnswerBuffers
    pages: LongPages


@dataclass(frozen=True, slots=True)
class ServiceState:
    """How the process fares.

    Args:
        metrics: All of them.
        not_ready: Why the service is not ready, a short sentence each; empty when it is. Asked by `/readyz`.
        draining: Whether the service is stopping: nobody begins to wait any more.
        open_metrics: The server listens on loopback only, so that `/metrics` needs no key.
    """

    metrics: Metrics
    not_ready: Callable[[], Awaitable[list[str]]]
    draining: Callable[[], bool]
    open_metrics: bool


@dataclass(frozen=True, slots=True)
class Context:
    """Everything that a route may use. `reader` is for what callers ask to see: a read that takes too long ends with `Unavailable`."""

    settings: Settings
    clock: Clock
    randomness: Randomness
    reader: Reader
    writer: Writer
    jobs: JobAccess
    providers: ProviderAccess
    accounts: AccountAccess
    subscriptions: Subscribe
    replays: Replays
    figures: Figures
    events: EventAccess
    results: ResultAccess
    receiver: Receiver
    memory: RequestMemory
    state: ServiceState


def context_of(request: Request[Any, Any, Any]) -> Context:
    """The context of the application that serves this request."""
    return request.app.state.context  # type: ignore[no-any-return]


def principal_of(request: Request[Any, Any, Any]) -> Principal:
    """Who asks; the route has a scope, so that `auth.check_key` has put it there."""
    return request.scope["auth"]  # type: ignore[no-any-return]
