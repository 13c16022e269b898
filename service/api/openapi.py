"""The description of the API: OpenAPI 3.1, written by hand beside the routes, and a page to read it.

By hand, because bodies and parameters are checked by our own strict code, of which Litestar could not tell anything; a
test holds routes and description together. Everything on the page comes from here: no CDN, nothing phones home.
"""

from __future__ import annotations

import asyncio
from functools import cache
from importlib import resources
from typing import Any, Final
from urllib.parse import quote

import msgspec
import yaml
from litestar import Request, Response, get
from litestar.params import FromPath

from service import __version__
from service.api.body import header
from service.api.prefix import PREFIX
from service.api.responses import empty_answer, json_answer, raw_answer
from service.errors import NotFound

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
_VARY: Final = {"Vary": "Accept"}
_PAGE_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    **_VARY,
}


@get("/")
async def root(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The way to the description, for a visitor who has only the address; the dashboard will be here."""
    if _is_browser(request):
        return empty_answer(302, {"Location": "/schema", **_VARY})
    shown = {"service": "remora", "version": __version__, "schema": f"{_prefix(request)}/schema"}
    return json_answer(shown, headers=_VARY)


@get("/schema")
async def schema(request: Request[Any, Any, Any]) -> Response[bytes]:
    """A page for a browser, the document for everybody else."""
    if _is_browser(request):
        page = _PAGE.replace("{prefix}", quote(_prefix(request)))
        return Response(page.encode(), media_type="text/html", headers=_PAGE_HEADERS)
    return raw_answer(await asyncio.to_thread(document, _prefix(request)), headers=_VARY)


@get("/schema/openapi.json")
async def schema_document(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The document."""
    return raw_answer(await asyncio.to_thread(document, _prefix(request)))


@get("/schema/static/{name:str}")
async def schema_file(name: FromPath[str]) -> Response[bytes]:
    """One of the page's own files."""
    if name not in _FILES:
        raise NotFound("there is no such file")
    data = await asyncio.to_thread(_file, name)
    return Response(data, media_type=_FILES[name], headers={"Cache-Control": "public, max-age=86400"})


def _prefix(request: Request[Any, Any, Any]) -> str:
    """The path of the public URL, below which callers know us; often none."""
    return str(request.scope["state"].get(PREFIX, ""))


def _is_browser(request: Request[Any, Any, Any]) -> bool:
    return "text/html" in (header(request.scope, b"accept") or "")


@cache
def document(prefix: str = "") -> bytes:
    """The document as JSON, for callers that know us below a path; read when it is first asked for, since parsing it takes longer than a start should."""
    text = (resources.files("service.api") / "openapi.yaml").read_text("utf-8")
    described: dict[str, Any] = yaml.load(text, Loader=yaml.CSafeLoader)
    described["info"]["version"] = __version__
    if prefix:
        described["servers"] = [{"url": quote(prefix)}]
    return msgspec.json.encode(described)


@cache
def _file(name: str) -> bytes:
    return (resources.files("service.api") / "static" / "swagger-ui" / name).read_bytes()


ROUTES = (root, schema, schema_document, schema_file)
