"""What providers send: stored once for every distinct body, and handed to the tracker as a fact or a hint in the same transaction.

The token in the path names the submission, whatever the body says; a body that cannot be read is still a message.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from service.callbacks import store
from service.clock import Clock
from service.db.transaction import Row, Tx
from service.db.writer import Command, Writer
from service.jobs.tokens import CallbackTokens
from service.jobs.track import Tracker
from service.jobs.transitions.facts import CallbackHeard
from service.providers.documents.reading import CALLBACK_BYTES
from service.providers.mapping import Observation
from service.providers.registry import Registry
from service.providers.signatures import Judged
from service.telemetry import SparingLog

MAX_BODY_BYTES = CALLBACK_BYTES  # what is kept of a body


@dataclass(frozen=True, slots=True)
class ReceiveCallback(Command[bool]):
    """Store a callback and what follows from it; answers False for an unknown token."""

    token_hash: bytes
    body: bytes
    at_ms: int
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    url: str = ""


class Observer(Protocol):
    """Who counts callbacks (telemetry)."""

    def callback(self, provider: str, outcome: str) -> None:
        """A callback came: `known`, `unreadable` or `unknown_token`."""


class Inbox:
    """The use case behind `POST /callbacks/{token}`."""

    def __init__(
        self,
        writer: Writer,
        tokens: CallbackTokens,
        registry: Registry,
        tracker: Tracker,
        *,
        clock: Clock,
        observer: Observer | None = None,
    ) -> None:
        self._writer = writer
        self._tokens = tokens
        self._registry = registry
        self._tracker = tracker
        self._clock = clock
        self._observer = observer
        self._lines = SparingLog(__name__, clock, per_s=1)  # strangers could send any number
        writer.handle(ReceiveCallback, self.handle)

    async def receive(
        self, token: str, body: bytes, content_type: str | None, headers: Mapping[str, str], url: str = ""
    ) -> bool:
        """Store a callback; True once it is durable, False for an unknown token.

        Args:
            token: The first part of the path behind `/callbacks/`.
            body: At most 256 KiB of it are kept.
            content_type: As it was sent.
            headers: Of the request, names in lower case; a signature may be among them.
            url: The path and query that were asked for; some signatures cover them.

        Raises:
            StoreUnavailable, Unavailable: It could not be stored; the provider should send it again.
        """
        at_ms, cut = self._clock.now_ms(), body[:MAX_BODY_BYTES]
        hashed = await self._tokens.find(token)
        known = hashed is not None and await self._writer.run(
            ReceiveCallback(hashed, cut, at_ms, content_type, headers, url)
        )
        if not known and self._observer is not None:
            self._observer.callback("", "unknown_token")
        return known

    async def expects(self, token: str) -> bool:
        """Whether a submission has this token.

        Raises:
            Unavailable: The store could not be asked.
        """
        return await self._tokens.find(token) is not None

    async def handle(self, tx: Tx, commands: Sequence[ReceiveCallback]) -> list[bool | Exception]:
        """The writer's handler for `ReceiveCallback`."""
        submissions = await store.submissions(tx, [command.token_hash for command in commands])
        heard: list[tuple[ReceiveCallback, Row, Observation]] = []
        answers: list[bool | Exception] = []
        for command in commands:
            submission = submissions.get(command.token_hash)
            answers.append(submission is not None)
            if submission is not None:
                heard.append((command, submission, self._read(command, submission)))
        store.keep(tx, [_kept(command, submission, tx.now_ms) for command, submission, _ in heard])
        taken = await self._taken_ids(tx, heard)
        if heard:
            await self._tracker.apply(tx, [self._fact(*each, taken) for each in heard])
        return answers

    def _read(self, command: ReceiveCallback, submission: Row) -> Observation:
        provider = self._registry.get(submission["provider"])
        if provider is None or provider.operation(submission["operation"]) is None:
            return Observation(seen=None)
        said = provider.read_callback(submission["operation"], command.body, command.headers)
        if self._observer is not None:
            self._observer.callback(provider.name, "known" if said.seen is not None else "unreadable")
        return said

    def _fact(
        self, command: ReceiveCallback, submission: Row, said: Observation, taken: set[tuple[str, str]]
    ) -> CallbackHeard:
        operation = submission["operation"]
        provider = self._registry.get(submission["provider"])
        if provider is not None and provider.operation(operation) is None:
            provider = None  # the card was changed: nobody can read or verify this any more
        judged = None
        if provider is not None:
            judged = provider.verify_callback(operation, command.body, command.headers, url=command.url)
        if judged is not None and judged.valid is False and len(command.body) == MAX_BODY_BYTES:
            judged = Judged(None, False, "it was cut, and no signature fits a part")
        evidence = judged is not None and judged.evidence
        forged = judged is not None and judged.valid is False
        if judged is not None and forged:
            self._lines.say(
                "warning",
                "callback_refused",
                provider=submission["provider"],
                job=submission["job_id"],
                code="signature_invalid",
                reason=judged.reason,
            )
        adoptable = not forged and (submission["provider"], said.task_id or "") not in taken
        return CallbackHeard(
            submission["job_id"],
            submission["id"],
            said,
            evidence,
            command.at_ms,
            adoptable,
            None if judged is None else judged.valid,
        )

    async def _taken_ids(self, tx: Tx, heard: Sequence[tuple[Any, Row, Observation]]) -> set[tuple[str, str]]:
        """Task ids that other submissions have; asked only where an id might be adopted."""
        asked = [
            {"provider": submission["provider"], "task_id": said.task_id, "id": submission["id"]}
            for _, submission, said in heard
            if said.task_id and submission["provider_task_id"] is None
        ]
        return await store.taken_ids(tx, asked) if asked else set()


def _kept(command: ReceiveCallback, submission: Row, now_ms: int) -> dict[str, Any]:
    return {
        "submission_id": submission["id"],
        "received_at": now_ms,
        "body": command.body if submission["erased_at"] is None else b"",  # it may repeat what was erased
        "body_hash": hashlib.sha256(command.body).digest(),
        "content_type": command.content_type[:100] if command.content_type else None,
    }
