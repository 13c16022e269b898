"""The sandbox's ASGI application: notes every request, finds who answers it, sends the answer.

Owns routing and the answers to what nobody knows. It must not know what the routes do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from service.clock import Clock
from service.sandbox.dialect import Route
from service.sandbox.http import (
    BODY_MAX_BYTES,
    BodyTooLarge,
    BodyTooSlow,
    CallerLeft,
    Receive,
    Reply,
    Request,
    Scope,
    Send,
    problem,
    read,
    write,
)
from service.sandbox.record import Record, SeenRequest

CONTROL: Final = "/_sandbox/"


@dataclass(frozen=True, slots=True)
class Speaker:
    """Somebody's paths; the first that fits answers.

    Args:
        routes: The paths.
        card: Which provider they belong to; empty for the sandbox's own.
    """

    routes: Sequence[Route]
    card: str = ""


class App:
    """Plain ASGI, because a cut connection and a broken answer are part of the job; one for a port."""

    def __init__(self, speakers: Sequence[Speaker], clock: Clock, record: Record) -> None:
        self._speakers = speakers
        self._clock = clock
        self._record = record

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        try:
            request = await read(scope, receive)
            reply = await self._answer(request)
        except BodyTooLarge:
            reply = problem(413, f"The body is larger than {BODY_MAX_BYTES} bytes")
        except BodyTooSlow:
            reply = problem(408, "The body did not come in time")
        except CallerLeft:
            return
        await write(reply, scope, receive, send)

    async def _answer(self, request: Request) -> Reply:
        allowed: list[str] = []
        method = "GET" if request.method == "HEAD" else request.method
        matches = [
            (speaker.card, route, match)
            for speaker in self._speakers
            for route in speaker.routes
            if (match := route.path.fullmatch(request.path)) is not None
        ]
        if not request.path.startswith(CONTROL):  # the log is what a provider would have seen
            self._note(request, matches[0][0] if matches else "")
        for _, route, match in matches:
            if route.method == method:
                return await route.handle(replace(request, params=match.groupdict()))
            allowed.append(route.method)
        if allowed:
            refusal = problem(405, f"{request.method} is not possible here")
            return replace(refusal, headers=(("allow", ", ".join(allowed)),))
        return problem(404, "No such path; GET / tells what this sandbox can do")

    def _note(self, request: Request, card: str) -> None:
        body = request.body.decode("utf-8", "replace")
        at_ms = self._clock.now_ms()
        self._record.seen(SeenRequest(at_ms, request.method, request.path, request.query, request.headers, body, card))
