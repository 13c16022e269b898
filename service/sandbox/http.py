"""HTTP as the sandbox needs it: a whole request in, a whole answer out, or a cut connection.

Owns the edge to ASGI, plain and small, because a framework would hide what the sandbox has to do on purpose: break off.
It must not know dialects, tasks or faults.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

BODY_MAX_BYTES: Final = 16 * 2**20  # a few base64 images fit
_BODY_TIMEOUT: Final = 30.0  # seconds for the whole body
_HOST: Final = re.compile(r"[A-Za-z0-9._-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")
_TRANSPORT: Final = "sandbox.transport"

Scope = dict[str, Any]  # ASGI's own words from here
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came; `params` are the path's named parts."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    params: Mapping[str, str] = field(default_factory=dict)

    def origin(self, otherwise: str) -> str:
        """Scheme, host and port under which the caller reached us, so that our URLs work for it too."""
        host = self.headers.get("host", "")
        return f"http://{host}" if _HOST.fullmatch(host) else otherwise


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer; `cut` breaks the connection instead."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    cut: bool = False


CUT: Final = Reply(0, cut=True)
Handler = Callable[[Request], Awaitable[Reply]]


class BodyTooLarge(Exception):
    """The request's body is above `BODY_MAX_BYTES`."""


class BodyTooSlow(Exception):
    """The request's body did not come in time."""


class CallerLeft(Exception):
    """The caller went away before its request was whole."""


class CuttableProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which lays its transport into `scope["state"]`: ASGI itself cannot cut a connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, _TRANSPORT: transport}


def json_reply(status: int, value: object, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """The value as JSON in ASCII, which holds lone surrogates too."""
    return Reply(status, json.dumps(value).encode("ascii"), headers=headers)


def problem(status: int, message: str) -> Reply:
    """The family's error body, for what belongs to no dialect."""
    return json_reply(status, {"code": status, "msg": message})


def json_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object.

    Raises:
        ValueError: It is no JSON in UTF-8, no object, or nested beyond reason.
    """
    try:
        value = json.loads(body.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("too deep") from error
    if not isinstance(value, dict):
        raise ValueError("no object")  # noqa: TRY004 - to the caller it is the same fault as broken JSON
    return value


async def read(scope: Scope, receive: Receive) -> Request:
    """The whole request.

    Raises:
        BodyTooLarge: See there.
        BodyTooSlow: See there.
        CallerLeft: See there.
    """
    try:
        async with asyncio.timeout(_BODY_TIMEOUT):
            body = await _read_body(receive)
    except TimeoutError as error:
        raise BodyTooSlow from error
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    return Request(scope["method"], scope["path"], dict(pairs), headers, body)


async def _read_body(receive: Receive) -> bytes:
    """The body; one that is too large is read to its end all the same, or its sender would see a reset, not the 413."""
    body = bytearray()
    size_bytes = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise CallerLeft
        size_bytes += len(message["body"])
        if size_bytes <= BODY_MAX_BYTES:
            body += message["body"]
        if not message["more_body"]:
            break
    if size_bytes > BODY_MAX_BYTES:
        raise BodyTooLarge
    return bytes(body)


async def write(reply: Reply, scope: Scope, receive: Receive, send: Send) -> None:
    """Send the answer, or cut the connection and wait until uvicorn has noticed."""
    if reply.cut:
        scope["state"][_TRANSPORT].abort()  # no byte of an answer, unlike a close after an exception
        while (await receive())["type"] != "http.disconnect":
            continue
        return
    headers = [("content-type", reply.content_type), ("content-length", str(len(reply.body))), *reply.headers]
    await send(
        {
            "type": "http.response.start",
            "status": reply.status,
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        }
    )
    await send({"type": "http.response.body", "body": reply.body, "more_body": False})
