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
from service.deliveries.figures import Figures
from service.egress import Egress
from service.events.feed import Hub
from service.ids import Ids
from service.jobs.counts import JobCounts
from service.jobs.intake import Intake
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
class Context:
    """Everything that a route may use.

    Args:
        reader: For what callers ask to see: a read that takes too long ends with `Unavailable`.
        not_ready: Why the service is not ready, a short sentence each; empty when it is. Asked by `/readyz`.
        draining: Whether the service is stopping: nobody begins to wait any more.
        bodies: The memory for request bodies.
        sent: The memory for large answers.
        pages: The turns of those who ask for long pages.
        unfinished: How many tasks are unfinished at a provider.
        remove_files: Remove the files of a job that was erased just now.
        open_metrics: The server listens on loopback only, so that `/metrics` needs no key.
    """

    settings: Settings
    clock: Clock
    randomness: Randomness
    ids: Ids
    reader: Reader
    writer: Writer
    box: SecretBox
    keys: Keys
    registry: Registry
    egress: Egress
    intake: Intake
    canceller: Canceller
    breakers: Breakers
    waiters: Waiters
    hub: Hub
    figures: Figures
    job_counts: JobCounts
    cursors: SealedCursors
    links: ResultLinks
    receiver: Receiver
    storage: Storage | None
    thumbnails: Thumbnails | None
    unfinished: Callable[[str], int]
    remove_files: Callable[[str], Awaitable[None]]
    metrics: Metrics
    not_ready: Callable[[], Awaitable[list[str]]]
    draining: Callable[[], bool]
    bodies: Bodies
    sent: AnswerBuffers
    pages: LongPages
    open_metrics: bool


def context_of(request: Request[Any, Any, Any]) -> Context:
    """The context of the application that serves this request."""
    return request.app.state.context  # type: ignore[no-any-return]


def principal_of(request: Request[Any, Any, Any]) -> Principal:
    """Who asks; the route has a scope, so that `auth.check_key` has put it there."""
    return request.scope["auth"]  # type: ignore[no-any-return]
