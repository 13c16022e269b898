"""Result links: they need no key, because they cannot be guessed.

For now a link leads to the provider's own file, or shows the picture where the provider gave that instead of an address.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from litestar import HttpMethod, Request, Response, route
from litestar.params import FromPath

from service.api.answers import empty_answer
from service.api.context import context_of
from service.errors import EgressRefused, Gone, NotFound
from service.jobs import queries
from service.results.inline import inline_picture

#: What may stand in a URL as it is; everything else is escaped, so that no provider writes into our headers.
_URL_CHARS: Final = "!#$%&'()*+,/:;=?@[]~"
_PICTURE_HEADERS: Final = {
    "Content-Disposition": "inline",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, max-age=3600",
    "Referrer-Policy": "no-referrer",
}


@route("/r/{token:str}", http_method=[HttpMethod.GET, HttpMethod.HEAD])
async def follow_link(request: Request[Any, Any, Any], token: FromPath[str]) -> Response[bytes]:
    """Lead to the file that a link names."""
    context = context_of(request)
    linked = context.links.read(token)
    if linked is None:
        raise NotFound("this link names no result", code="unknown_link")
    now_ms = context.clock.now_ms()
    if linked.until is not None and linked.until <= now_ms:
        raise Gone("this link has ended; GET /v1/jobs/{id}/results/{n} gives a new one", code="link_expired")
    results = await queries.results(context.reader, linked.job_id)
    result = next((each for each in results if each.idx == linked.index), None)
    if result is None:
        raise NotFound("this link names no result", code="unknown_link")
    if result.expires_at <= now_ms:
        raise Gone("the result has expired", code="result_expired")
    if result.source_url[:4].lower() == "http":
        # Nobody is led to where our own requests may not go either, whatever a provider says.
        try:
            await context.egress.check(result.source_url, unresolved_ok=True)
        except EgressRefused as error:
            if error.reason != "address_forbidden":  # odd, but nobody's secret: a browser makes of it what it can
                return _served(result.source_url)
            raise NotFound("the provider gave no address that can be followed", code="not_a_picture") from error
    return _served(result.source_url)


def _served(source_url: str) -> Response[bytes]:
    if source_url[:5].lower() == "data:":
        picture = inline_picture(source_url)
        if picture is None:
            raise NotFound("the provider gave no picture that can be shown here", code="not_a_picture")
        return Response(picture.data, media_type=picture.content_type, headers=_PICTURE_HEADERS)
    if not source_url.lower().startswith(("http://", "https://")):
        raise NotFound("the provider gave no address that can be followed", code="not_a_picture")
    location = quote(source_url, safe=_URL_CHARS)
    return empty_answer(302, {"Location": location, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})


ROUTES = (follow_link,)
