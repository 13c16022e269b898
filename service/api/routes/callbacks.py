"""Where providers call back. A raw ASGI route, since this is the hot path: an ordinary handler costs five times as much.

The token in the path is the message: whatever the body is, it is stored and answered 200, and never read here.
"""

from __future__ import annotations

from typing import Final

from litestar import asgi
from litestar.enums import ScopeType
from litestar.exceptions import MethodNotAllowedException, NotFoundException
from litestar.types import HTTPScope, Receive, Scope, Send

from service.api.context import Context
from service.api.listening.buffers import FREE_BYTES
from service.api.requests.prefix import PREFIX
from service.api.requests.route import RouteAnswer, RouteShape
from service.errors import NotFound, RemoraError
from service.schemas.service_schemas import StoredCallback

KEPT_BYTES: Final = 256 * 1024  # of a body; the rest is read and dropped
DRAINED_BYTES: Final = 8 * 1024 * 1024  # how much is read at most, so that a provider can finish sending
_ERROR: Final = "callback_error"  # where the scope's state keeps what went wrong
_ALLOWED: Final = "OPTIONS, POST"
_STORED: Final = b'{"ok":true}'
_STORED_HEADERS: Final = (
    (b"content-type", b"application/json"),
    (b"content-length", str(len(_STORED)).encode()),
)


async def serve_callback(context: Context, scope: HTTPScope, receive: Receive, send: Send) -> bool:
    """Take a callback before any routing; True once it is stored and answered.

    Whatever does not go well is left to the route below, which finds the error in the scope and says what is wrong:
    Litestar's routing costs more than a tenth of the whole way of a callback.
    """
    if scope["method"] != "POST":
        return False
    try:
        body = await _kept_part(context, scope, receive)
        if await _stored(context, scope, body):
            await send({"type": "http.response.start", "status": 200, "headers": list(_STORED_HEADERS)})
            await send({"type": "http.response.body", "body": _STORED, "more_body": False})
            return True
        scope["state"][_ERROR] = _unknown()
    except RemoraError as error:
        scope["state"][_ERROR] = error
    return False


def _unknown() -> NotFound:
    return NotFound("this callback address is not known here", code="unknown_token")


def _token(scope: Scope) -> str:
    return scope["path"].removeprefix("/callbacks").strip("/").partition("/")[0]


async def _stored(context: Context, scope: Scope, body: bytes) -> bool:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    query = scope["query_string"]
    asked = scope["state"].get(PREFIX, "") + scope["path"]  # as the provider asked for it, whatever a proxy took away
    url = f"{asked}?{query.decode('latin-1')}" if query else asked
    return await context.receiver.receive(_token(scope), body, headers.get("content-type"), headers, url)


#: What `receive_callback` is described as, at both of its paths; a mount has no shape of its own.
SHAPE: Final = RouteShape((RouteAnswer(200, "Stored", StoredCallback),))


# A mount, since Litestar 2.25 finds no ASGI route that has a path parameter: it looks the parameters up by the method
# where it stored them under "asgi", a KeyError (litestar/_asgi/routing_trie/traversal.py, parse_path_to_route).
@asgi("/callbacks", is_mount=True, copy_scope=False)
async def receive_callback(scope: Scope, receive: Receive, send: Send) -> None:
    """Say what is wrong with what `serve_callback` did not take."""
    if scope["raw_path"].partition(b"/callbacks")[2][:1] not in {b"", b"/"}:
        raise NotFoundException  # the mount takes `/callbacksome`, too
    if scope["type"] != ScopeType.HTTP or scope["method"] not in {"POST", "OPTIONS"}:
        raise MethodNotAllowedException(headers={"allow": _ALLOWED})
    if scope["method"] == "OPTIONS":
        await send({"type": "http.response.start", "status": 204, "headers": [(b"allow", _ALLOWED.encode())]})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    error = scope["state"].pop(_ERROR, None) or _unknown()
    try:
        raise error
    finally:
        del error  # else the error, its traceback and this frame refer to each other, and keep the connection


async def _kept_part(context: Context, scope: Scope, receive: Receive) -> bytes:
    """The beginning of the body; of one that is cut off by its sender, what came.

    Raises:
        NotFound: It is large, and nobody has the token.
        Unavailable: It is large, and others take up all the memory for such ones.
    """
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        return message.get("body", b"")[:KEPT_BYTES]
    kept, seen, held = bytearray(), 0, FREE_BYTES
    while message["type"] == "http.request":
        chunk = message.get("body", b"")
        kept += chunk[: KEPT_BYTES - len(kept)]
        seen += len(chunk)
        if len(kept) > held:
            if held == FREE_BYTES and not await context.receiver.expects(_token(scope)):
                raise _unknown()
            context.memory.bodies.hold(scope, "", len(kept) - held)
            held = len(kept)
        if not message.get("more_body", False) or seen > DRAINED_BYTES:
            break
        message = await receive()
    return bytes(kept)


ROUTES = (receive_callback,)
