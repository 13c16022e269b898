"""The sandbox's files: the pictures, where they are, and URLs that die.

Owns `/files/`, and the signature of URLs for dialects whose document calls them signed and short-lived. It must not know
dialects.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlencode

from service.clock import Clock
from service.picture import draw
from service.sandbox.dialect import Route
from service.sandbox.http import Reply, Request, problem
from service.sandbox.tasks import State, Task, Tasks

_PATH: Final = re.compile(r"/files/(?P<task_id>[A-Za-z0-9_-]+?)(-(?P<place>[1-9]))?\.(?P<format>jpeg|png|webp)")
_KEY: Final = b"no secret: these pictures are nobody's"
_DENIED: Final = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>\n'


def urls(task: Task, now_ms: int = 0) -> list[str]:
    """Where the pictures of a completed task are; signed URLs begin to age now."""
    return [f"{task.draft.origin}{path}{_signed(task, path, now_ms)}" for path in _paths(task)]


def _paths(task: Task) -> list[str]:
    if task.plan.has("completed-without-file"):
        return []
    places = ("", *(f"-{place}" for place in range(1, task.draft.count)))
    return [f"/files/{task.id}{place}.{task.draft.image_format}" for place in places]


def _signed(task: Task, path: str, now_ms: int) -> str:
    if task.draft.links_live_s is None:
        return ""
    expires_s = now_ms // 1000 + task.draft.links_live_s
    return "?" + urlencode({"expires": expires_s, "signature": _signature(path, str(expires_s))})


def _signature(path: str, expires_s: str) -> str:
    return hmac.new(_KEY, f"{path} {expires_s}".encode(), hashlib.sha256).hexdigest()


class Files:
    """Serves the pictures, each drawn when it is asked for: most are asked for once or never."""

    def __init__(self, tasks: Tasks, clock: Clock) -> None:
        self._tasks = tasks
        self._clock = clock

    def routes(self) -> Sequence[Route]:
        """The one path."""
        return (Route("GET", _PATH, self._serve),)

    async def _serve(self, request: Request) -> Reply:
        task = self._tasks.get(request.params["task_id"])
        if task is None or task.state is not State.COMPLETED or request.path not in _paths(task):
            return problem(404, "There is no such file")
        if task.draft.links_live_s is not None and not self._may_see(request):
            return Reply(403, _DENIED, "application/xml")
        draft, place = task.draft, request.params["place"]
        prompt = f"{draft.prompt} ({int(place) + 1})" if place else draft.prompt
        picture = await asyncio.to_thread(draw, prompt, draft.width, draft.height, image_format=draft.image_format)
        return Reply(200, picture, f"image/{draft.image_format}")

    def _may_see(self, request: Request) -> bool:
        expires_s, signature = request.query.get("expires", ""), request.query.get("signature", "")
        if not re.fullmatch(r"[0-9]{1,12}", expires_s) or self._clock.now_ms() >= int(expires_s) * 1000:
            return False
        return hmac.compare_digest(signature.encode("utf-8", "replace"), _signature(request.path, expires_s).encode())
