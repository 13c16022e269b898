"""A path in front of ours, as in REMORA_PUBLIC_URL=https://h.example/remora: every route answers below it and without it.

So it does not matter whether the proxy in front takes the path away. Owns what is changed in requests and answers for it.
It must not know the routes but by how their paths begin. Without a path this is not in the way of a request at all.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

PREFIX: Final = "prefix"  # where the scope's state keeps it


def prefix_of(public_url: str | None) -> str:
    """The path of a public URL, decoded, without a slash at its end; empty where it has none."""
    return unquote(urlsplit(public_url or "").path).rstrip("/")


class BelowPrefix:
    """An application that is reached below a path.

    Args:
        app: The application, whose paths begin at `/`.
        prefix: The path, decoded.
        roots: How the application's paths begin, as in `/v1`: only in front of those is the path taken away, so that a
            prefix that is called like a route of ours hides none.
    """

    def __init__(self, app: Any, prefix: str, roots: frozenset[str]) -> None:
        self._app = app
        self._prefix = prefix
        self._roots = roots
        self._location = quote(prefix).encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See ASGI. The scope's state keeps the prefix, also where the proxy took it away: callers know us below it.

        ASGI has `root_path` for that, which Litestar 2.25 takes out of a path wherever it stands (asgi_router.py).
        """
        path = scope["path"]
        if path.startswith(f"{self._prefix}/") or path == self._prefix:
            rest = path[len(self._prefix) :] or "/"
            if f"/{rest.split('/', 2)[1]}" in self._roots:
                scope["path"] = rest
        scope.setdefault("state", {})[PREFIX] = self._prefix

        async def placed(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [self._placed(*each) for each in message["headers"]]
            await send(message)

        await self._app(scope, receive, placed)

    def _placed(self, name: bytes, value: bytes) -> tuple[bytes, bytes]:
        ours = name.lower() == b"location" and value.startswith(b"/")
        return name, self._location + value if ours else value
