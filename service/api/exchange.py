"""What every exchange has in common, successful or not: its id, its headers, its line in the log, its metrics.

It stands outside Litestar's routing, since what no route takes is an exchange too. It must not know what routes do.
"""

from __future__ import annotations

import logging
import re
from typing import Any, Final
from urllib.parse import quote

import structlog
from litestar import Litestar
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin
from litestar.types import HTTPScope, Message, Scope

from service.api.context import Context
from service.api.listening.connection import UNSENT_BYTES
from service.api.requests.body import header
from service.api.requests.refusal_log import RefusalLog
from service.api.routes.callbacks import serve_callback

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_UNMATCHED: Final = "(none)"
_CALLBACKS: Final = "/callbacks/"
_CALLBACK: Final = "/callbacks/{token}"  # named here, since what is served before any routing has no template
#: Paths that hold a secret are logged as their template.
_SECRET_PATHS: Final = (_CALLBACKS, "/r/")
MAX_LOGGED_PATH: Final = 200  # characters
_PATH_CHARS: Final = "/:@!$&'()*+,;="  # as RFC 3986 has them in a path; a blank would end it in a line of the log
_NOSNIFF: Final = (b"x-content-type-options", b"nosniff")

_log = structlog.get_logger(__name__)
_stdlib_log = logging.getLogger(__name__)  # only asked for its level, which it remembers


def request_id(scope: Scope | Any) -> str:
    """The id of this exchange: the caller's `Request-Id`, or one of ours."""
    return scope["state"]["request_id"]  # type: ignore[no-any-return]


class Api(Litestar):
    """The application, with its exchanges watched from outside; made by `server.create_api`."""

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        """Litestar would import pydantic's first version, too, for models that no route of ours takes: 50 ms of every start."""
        return [*plugins, MsgspecDIPlugin()]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        context: Context = self.state.context
        started = context.clock.monotonic()
        known_as = _id_of(scope, context)
        scope.setdefault("state", {})["request_id"] = known_as
        path = scope["path"]  # a mount cuts its own prefix off, and with it what tells that a path is secret
        ours = (_NOSNIFF, (b"request-id", known_as.encode()))
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *ours]
            elif len(message.get("body", b"")) > UNSENT_BYTES:  # type: ignore[arg-type]  # it is bytes, if it is there
                await context.memory.answers.send(scope, send, message)
                return
            await send(message)

        try:
            if not (path.startswith(_CALLBACKS) and await serve_callback(context, scope, receive, watched)):
                await super().__call__(scope, receive, watched)
        finally:
            context.memory.bodies.give_back(scope)
            seconds = context.clock.monotonic() - started
            _note(self, context, scope, path, status=status, seconds=seconds, known_as=known_as)


def _id_of(scope: Scope, context: Context) -> str:
    given = header(scope, b"request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return context.randomness.bytes(8).hex()


def _note(
    app: Api, context: Context, scope: HTTPScope, path: str, *, status: int, seconds: float, known_as: str
) -> None:
    method = scope["method"] if scope["method"] in _METHODS else "other"
    route = _CALLBACK if path.startswith(_CALLBACKS) else scope.get("path_template") or _UNMATCHED
    context.state.metrics.request_served(method, route, status, seconds)
    fine = 0 < status < 400
    if fine and not _stdlib_log.isEnabledFor(logging.DEBUG):
        return
    # What went well is only told to those who ask for it: a line costs as much as the whole exchange (docs/operations.md
    # names the metrics that count them all).
    fields: dict[str, Any] = {
        "method": method,
        "path": _shown(path, route),
        "route": route,
        "status": status,
        "ms": round(seconds * 1000, 1),
        "request_id": known_as,
    }
    if status == 500:
        _log.error("exchange", **fields)
    elif fine or (status == 404 and route == _UNMATCHED):  # what nobody offers is asked for by scanners all day
        _log.debug("exchange", **fields)
    else:
        refusals: RefusalLog = app.state.refusals
        refusals.tell(scope, fields)


def _shown(path: str, route: str) -> str:
    plain = f"/{path.lstrip('/')}"
    if plain.startswith(_SECRET_PATHS):
        return route if route != _UNMATCHED else f"/{plain.split('/')[1]}/…"
    return quote(path[:MAX_LOGGED_PATH], safe=_PATH_CHARS, errors="replace")
