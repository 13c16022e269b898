"""Where providers call back. A raw ASGI route, since this is the hot path: an ordinary handler costs five times as much.

The token in the path is the message: whatever the body is, it is stored and answered 200, and never read here.
"""

from __future__ import annotations

from typing import Final

from litestar import asgi
from litestar.enums import ScopeType
from litestar.exceptions import MethodNotAllowedException
from litestar.types import Receive, Scope, Send

from service.api.context import Context
from service.errors import NotFound

KEPT_BYTES: Final = 256 * 1024  # of a body; the rest is read and dropped
DRAINED_BYTES: Final = 8 * 1024 * 1024  # how much is read at most, so that a provider can finish sending
_STORED: Final = b'{"ok":true}'
_STORED_HEADERS: Final = (
    (b"content-type", b"application/json"),
    (b"content-length", str(len(_STORED)).encode()),
)


# A mount, since Litestar 2.25 finds no ASGI route that has a path parameter: it looks the parameters up by the method
# where it stored them under "asgi", a KeyError (litestar/_asgi/routing_trie/traversal.py, parse_path_to_route).
@asgi("/callbacks", is_mount=True, copy_scope=False)
async def receive_callback(scope: Scope, receive: Receive, send: Send) -> None:
    """Store a callback and answer 200, whatever it says; a token that nobody has is 404."""
    if scope["type"] != ScopeType.HTTP or scope["method"] != "POST":
        raise MethodNotAllowedException(headers={"allow": "POST"})
    context: Context = scope["litestar_app"].state.context
    body = await _kept_part(receive)
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    token = scope["path"].strip("/").partition("/")[0]
    if not await context.receiver.receive(token, body, headers.get("content-type"), headers):
        raise NotFound("this callback address is not known here", code="unknown_token")
    await send({"type": "http.response.start", "status": 200, "headers": list(_STORED_HEADERS)})
    await send({"type": "http.response.body", "body": _STORED, "more_body": False})


async def _kept_part(receive: Receive) -> bytes:
    """The beginning of the body; of one that is cut off by its sender, what came."""
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        return message.get("body", b"")[:KEPT_BYTES]
    kept = bytearray()
    seen = 0
    while message["type"] == "http.request":
        chunk = message.get("body", b"")
        kept += chunk[: KEPT_BYTES - len(kept)]
        seen += len(chunk)
        if not message.get("more_body", False) or seen > DRAINED_BYTES:
            break
        message = await receive()
    return bytes(kept)


ROUTES = (receive_callback,)
