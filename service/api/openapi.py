"""The routes that tell about the API: its description as a document, and a page to read it.

Everything on the page comes from here: no CDN, nothing phones home.
"""

from __future__ import annotations

import asyncio
from functools import cache
from importlib import resources
from typing import Any, Final
from urllib.parse import quote

import msgspec
from litestar import Request, Response, get
from litestar.handlers import BaseRouteHandler
from litestar.params import FromPath

from service import __version__
from service.api.answers.responses import empty_answer, json_answer, raw_answer
from service.api.requests.body import header
from service.api.requests.prefix import PREFIX
from service.api.requests.route import LOCATION, RouteAnswer, takes
from service.errors import NotFound
from service.schemas.service_schemas import Welcome

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Remora API</title>
<link rel="stylesheet" href="{prefix}/schema/static/swagger-ui.css">
<link rel="icon" type="image/png" href="{prefix}/schema/static/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="{prefix}/schema/static/swagger-ui-bundle.js"></script>
<script src="{prefix}/schema/static/start.js"></script>
</body>
</html>
"""
#: The vendored files that the page needs, with their types (Litestar adds the charset); nothing else of the directory is served.
_FILES: Final = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "start.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
_OBJECT: Final = {"type": "object", "additionalProperties": True}
_VARY: Final = {"Vary": "Accept"}
_PAGE_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    **_VARY,
}


@get(
    "/",
    opt=takes(
        None,
        RouteAnswer(200, "Where things are", Welcome),
        RouteAnswer(302, "For browsers, the page that describes the API", None, (LOCATION,)),
    ),
)
async def root(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Where to go from here."""
    if _is_browser(request):
        return empty_answer(302, {"Location": "/schema", **_VARY})
    shown = {"service": "remora", "version": __version__, "schema": f"{_prefix(request)}/schema"}
    return json_answer(shown, headers=_VARY)


@get(
    "/schema",
    opt=takes(
        None,
        RouteAnswer(
            200,
            "The page, or the document where HTML is not accepted",
            media={"text/html": {"type": "string"}, "application/json": _OBJECT},
        ),
    ),
)
async def schema_page(request: Request[Any, Any, Any]) -> Response[bytes]:
    """This description, as a page for browsers."""
    if _is_browser(request):
        page = _PAGE.replace("{prefix}", quote(_prefix(request)))
        return Response(page.encode(), media_type="text/html", headers=_PAGE_HEADERS)
    return raw_answer(await _document(request), headers=_VARY)


@get("/schema/openapi.json", opt=takes(None, RouteAnswer(200, "The document", media={"application/json": _OBJECT})))
async def schema_document(request: Request[Any, Any, Any]) -> Response[bytes]:
    """This description."""
    return raw_answer(await _document(request))


@get(
    "/schema/static/{name:str}",
    opt=takes(None, RouteAnswer(200, "The file", media={"*/*": {"type": "string"}})),
)
async def schema_file(name: FromPath[str]) -> Response[bytes]:
    """A file of the page."""
    if name not in _FILES:
        raise NotFound("there is no such file")
    data = await asyncio.to_thread(_file, name)
    return Response(data, media_type=_FILES[name], headers={"Cache-Control": "public, max-age=86400"})


async def _document(request: Request[Any, Any, Any]) -> bytes:
    """The document as JSON, for callers that know us below a path; made when it is first asked for."""
    state = request.app.state
    async with state.describing:  # else each of those who come first would make one
        return await asyncio.to_thread(document, state.described, _prefix(request))


@cache
def document(routes: tuple[BaseRouteHandler, ...], prefix: str = "") -> bytes:
    """The description of these routes, as JSON."""
    from service.api.description import described  # noqa: PLC0415 - a start does without it

    made = described(routes, __version__)
    if prefix:
        made["servers"] = [{"url": quote(prefix)}]
    return msgspec.json.encode(made)


def _prefix(request: Request[Any, Any, Any]) -> str:
    """The path of the public URL, below which callers know us; often none."""
    return str(request.scope["state"].get(PREFIX, ""))


def _is_browser(request: Request[Any, Any, Any]) -> bool:
    return "text/html" in (header(request.scope, b"accept") or "")


@cache
def _file(name: str) -> bytes:
    return (resources.files("service.api") / "static" / "swagger-ui" / name).read_bytes()


ROUTES = (root, schema_page, schema_document, schema_file)
