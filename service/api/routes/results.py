"""Result links: they need no key, because they cannot be guessed.

A link serves our copy, or leads to its bucket; until there is one it leads to the provider's file, or shows the picture
where the provider gave that instead of an address.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from litestar import Request, Response, get
from litestar.params import FromPath
from litestar.response import Stream

from service.api.answers.responses import empty_answer
from service.api.context import Context, context_of
from service.api.requests.body import header
from service.api.requests.ranges import Span, span_of
from service.api.requests.route import LOCATION, Header, RouteAnswer, takes
from service.errors import EgressRefused, FileMissing, Gone, NotFound, StorageUnavailable, Unavailable
from service.fileurls import MAX_LINK_CHARS, escaped, is_data_url, trimmed
from service.jobs.view import ERASED, is_link
from service.results import queries, thumbnails
from service.results.data_urls import inline_picture
from service.results.formats.sniff import ENDINGS
from service.results.queries import HeldFile
from service.results.storage import CHUNK_BYTES, Storage

_NOT_IN_A_HOST: Final = frozenset("/?#@\\%\ufffd")
_FILE_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, no-cache",  # asked for again each time: a result ends, and may be erased before
    "Referrer-Policy": "no-referrer",
}
_FILE: Final = {f"{each}/*": {"type": "string", "contentMediaType": f"{each}/*"} for each in ("image", "video")}
_OF_A_FILE: Final = (Header("ETag"), Header("Accept-Ranges", "", {"type": "string", "const": "bytes"}))
_LEADING_HEADERS: Final = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


@get(
    "/r/{token:str}",
    opt=takes(
        None,
        RouteAnswer(200, "The file, whole", None, _OF_A_FILE, _FILE),
        RouteAnswer(206, "The bytes that were asked for", None, _OF_A_FILE, _FILE),
        RouteAnswer(302, "Where the file is", None, (LOCATION,)),
        RouteAnswer(304, "It is what you have"),
        RouteAnswer(416, "The file has no such bytes"),
    ),
)
async def follow_link(request: Request[Any, Any, Any], token: FromPath[str]) -> Response[Any]:
    """A result.

    Our copy, with its SHA-256 as its `ETag`, for a `Range` too; a redirect to it where copies lie in a bucket. Until it is
    there, a redirect to the provider's file.
    """
    context = context_of(request)
    held = await _held(context, token)
    if held.stored and held.storage_key is not None and context.results.storage is not None:
        answer = await _copy(context, context.results.storage, request, held, held.storage_key)
        if answer is not None:
            return answer
    return await _providers(context, request, held)


@get(
    "/r/{token:str}/thumb",
    opt=takes(
        None,
        RouteAnswer(
            200, "The small picture", media={"image/webp": {"type": "string", "contentMediaType": "image/webp"}}
        ),
        RouteAnswer(304, "It is what you have"),
    ),
)
async def show_thumbnail(request: Request[Any, Any, Any], token: FromPath[str]) -> Response[bytes]:
    """A small picture of a result.

    Of pictures that we have a copy of, at most 320 pixels wide and high.
    """
    context = context_of(request)
    held = await _held(context, token)
    missing = NotFound("there is no small picture of this result", code="no_thumbnail")
    if not held.stored or held.storage_key is None or context.results.thumbnails is None:
        raise missing
    etag = f'"{held.sha256}-thumb"'
    headers = _FILE_HEADERS | {"ETag": etag, "Content-Disposition": "inline"}
    if _matches(request, etag):
        return empty_answer(304, headers)
    try:
        picture = await context.results.thumbnails.of(held.storage_key, held.content_type or "", held.size_bytes or 0)
    except StorageUnavailable as error:
        raise _later(error) from error
    if picture is None:
        raise missing
    return Response(picture, media_type=thumbnails.TYPE, headers=headers)


async def _held(context: Context, token: str) -> HeldFile:
    linked = context.results.links.read(token)
    if linked is None:
        raise NotFound("this link names no result", code="unknown_link")
    now_ms = context.clock.now_ms()
    if linked.until is not None and linked.until <= now_ms:
        raise Gone("this link has ended; GET /v1/jobs/{id}/results/{n} gives a new one", code="link_expired")
    held = await queries.held(context.reader, linked.job_id, linked.index)
    if held is None:
        raise NotFound("this link names no result", code="unknown_link")
    if held.error == ERASED:
        raise Gone("the result was erased", code="result_erased")
    if held.expires_at <= now_ms:
        raise Gone("the result has expired", code="result_expired")
    return held


# -- our copy ------------------------------------------------------------------------------------------------------------


async def _copy(
    context: Context, storage: Storage, request: Request[Any, Any, Any], held: HeldFile, key: str
) -> Response[Any] | None:
    """Our copy, from here or by a redirect to its bucket; None: it is not where it should be."""
    etag = f'"{held.sha256}"'
    headers = _FILE_HEADERS | {"ETag": etag, "Accept-Ranges": "bytes", "Content-Disposition": _attachment(held)}
    if _matches(request, etag):
        return empty_answer(304, headers)
    size = held.size_bytes or 0
    if_range = header(request.scope, b"if-range")
    ranged = request.method == "GET" and if_range in {None, etag}  # HEAD knows no ranges (RFC 9110, section 14.2)
    asked = header(request.scope, b"range") if ranged else None
    span = span_of(asked, size)
    if span is None:
        return empty_answer(416, headers | {"Content-Range": f"bytes */{size}"})
    if request.method == "HEAD":
        return _streamed((), span, size, held, headers)
    try:
        location = await storage.link(key, _life_s(context, held))
        if location is not None:
            return empty_answer(302, {"Location": location, **_LEADING_HEADERS})
        pieces = await storage.read(key, span.start, span.end)
    except FileMissing:
        return None
    except StorageUnavailable as error:
        if is_link(held.source_url):
            return None  # the provider may still have it
        raise _later(error) from error
    return _streamed(pieces, span, size, held, headers)


def _streamed(
    pieces: AsyncIterator[bytes] | Iterable[bytes], span: Span, size: int, held: HeldFile, headers: dict[str, str]
) -> Response[Any]:
    more = {"Content-Length": str(span.end - span.start)}
    if span.partial:
        more["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{size}"
    return Stream(
        pieces, media_type=held.content_type, status_code=206 if span.partial else 200, headers={**headers, **more}
    )


def _life_s(context: Context, held: HeldFile) -> int:
    life_ms = min(context.settings.link_ttl.total_seconds() * 1000, held.expires_at - context.clock.now_ms())
    return max(1, int(life_ms // 1000))


def _attachment(held: HeldFile) -> str:
    return f'attachment; filename="{held.job_id}-{held.index}.{ENDINGS.get(held.content_type or "", "bin")}"'


def _matches(request: Request[Any, Any, Any], etag: str) -> bool:
    given = header(request.scope, b"if-none-match")
    return given is not None and (
        given.strip() == "*" or etag in (each.strip().removeprefix("W/") for each in given.split(","))
    )


def _later(error: StorageUnavailable) -> Unavailable:
    return Unavailable(f"{error}; try again a little later", code="storage_unavailable")


# -- the provider's file -------------------------------------------------------------------------------------------------


async def _providers(context: Context, request: Request[Any, Any, Any], held: HeldFile) -> Response[Any]:
    if is_data_url(held.source_url):
        picture = await asyncio.to_thread(inline_picture, held.source_url)
        if picture is None:
            raise NotFound("the provider gave no picture that can be shown here", code="not_a_picture")
        size = len(picture.data)
        headers = _FILE_HEADERS | {"Content-Disposition": "attachment", "Content-Length": str(size)}
        pieces = (picture.data[at : at + CHUNK_BYTES] for at in range(0, size, CHUNK_BYTES))
        return Stream(() if request.method == "HEAD" else pieces, media_type=picture.content_type, headers=headers)
    nowhere = NotFound("the provider gave no address that can be followed", code="not_a_picture")
    source_url = trimmed(held.source_url)
    if not is_link(source_url) or len(source_url) > MAX_LINK_CHARS:
        raise nowhere
    location = escaped(source_url)  # so that no provider writes into our headers
    try:
        # Nobody is led to where our own requests may not go either, whatever a provider says.
        await context.results.egress.check(_origin(location), unresolved_ok=True)
    except EgressRefused as error:
        raise nowhere from error
    return empty_answer(302, {"Location": location, **_LEADING_HEADERS})


def _origin(location: str) -> str:
    """The part of an address that says where it leads, read as a browser reads it: the host, percent-decoded.

    What else is in it (a name before the host, a fragment, two thousand characters) is nobody's secret, and stays.

    Raises:
        EgressRefused: Two could read it differently.
    """
    try:
        parts = urlsplit(location)
    except ValueError:
        parts = urlsplit("")
    host = unquote(parts.netloc.rpartition("@")[2])
    if parts.scheme not in {"http", "https"} or not host or any(char in _NOT_IN_A_HOST for char in host):
        raise EgressRefused("url_invalid", "is no address that can be followed")
    return f"{parts.scheme}://{host}/"


ROUTES = (follow_link, show_thumbnail)
