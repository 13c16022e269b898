"""The dialect of shark.ai, synchronous and asynchronous images, read independently from the vendor's two pages.

Owns their paths, fields, words and errors (sharkai-images.txt for everything common, sharkai-gpt-image-2.txt for the model
openai/gpt-image-2 and "Error Codes", both seen 2026-11-21). Where they are silent (the body of an HTTP error, the answer to
a cancel, 404) the documented task and its `error` object are followed. It must not know how faults are carried out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Final

from service.clock import Clock
from service.picture import ImageFormat
from service.sandbox import fields, files
from service.sandbox.dialect import Route
from service.sandbox.faults import Channel
from service.sandbox.http import Reply, Request, json_reply
from service.sandbox.intake import Intake
from service.sandbox.tasks import Draft, State, Task

_GENERATIONS: Final = "/api/v1/images/generations"
_ONE: Final = rf"{_GENERATIONS}/(?P<task_id>[^/]+)"
_GPT_IMAGE_2: Final = "openai/gpt-image-2"
_ASYNC: Final = frozenset({Channel.POLL, Channel.CANCEL, Channel.LINKS})
_SYNC: Final[frozenset[Channel]] = frozenset()
_TIMEOUT: Final = range(30, 1801)  # seconds
_LINKS_LIVE_S: Final = 600  # "signed and short-lived"; how short is not said
_FOREIGN: Final = "https://forged.example"
_UNKNOWN_STATE: Final = "finalizing"
_STATES: Final = {
    State.PENDING: "pending",
    State.PROCESSING: "running",
    State.COMPLETED: "completed",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
}
#: "Error Codes" of the model's page, and words of the same kind for codes that it does not list.
_TYPES: Final = {
    400: "invalid_request_error",
    401: "auth_error",
    402: "insufficient_credits",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    502: "provider_error",
    504: "timeout_error",
}
_SIZES: Final = {
    "auto": (1024, 1024),
    "1024x1024": (1024, 1024),
    "1536x1024": (1536, 1024),
    "1024x1536": (1024, 1536),
    "2048x2048": (2048, 2048),
}
_QUALITIES: Final = ("low", "medium", "high", "auto")
_BACKGROUNDS: Final = ("opaque", "auto")
_FORMATS: Final[Mapping[str, ImageFormat]] = {"png": "png", "jpeg": "jpeg", "webp": "webp"}
_COUNTS: Final = range(1, 5)
#: Credits a picture; the two pages' examples, of which only sharkai-images.txt asks for quality high.
_CREDIT: Final = {"high": 400}
_CREDIT_OTHERWISE: Final = 90
_USAGE: Final = {"input_tokens": 14, "output_tokens": 1542, "total_tokens": 1556}


class SharkAI:
    """See the module."""

    name = "sharkai"
    card = "sharkai"

    def __init__(self, intake: Intake, clock: Clock) -> None:
        self._intake = intake
        self._clock = clock

    def routes(self) -> Sequence[Route]:
        """See `Dialect`."""
        return (
            Route("POST", re.compile(rf"{_GENERATIONS}/?"), self._submit),
            Route("GET", re.compile(rf"{_ONE}/?"), self._poll),
            Route("POST", re.compile(rf"{_ONE}/cancel/?"), self._cancel),
        )

    def make_id(self, now_ms: int, rng: Random) -> str:
        """An id like the documented `task_abc123`."""
        return f"task_{now_ms:x}{rng.getrandbits(40):010x}"

    def error(self, status: int, message: str, kind: str = "") -> Reply:
        """See `Dialect`."""
        error = {"message": message, "type": kind or _TYPES.get(status, "server_error")}
        return json_reply(status, {"error": error})

    def accepted(self, task: Task) -> Reply:
        """See `Dialect`."""
        if not task.is_sync:
            origin = _FOREIGN if task.plan.has("foreign-links") else task.draft.origin
            url = f"{origin}{_GENERATIONS}/{task.id}"
            return json_reply(202, {**self._task(task), "polling_url": url, "cancel_url": f"{url}/cancel"})
        if task.state is State.COMPLETED:
            return json_reply(200, self._result(task))
        failed = _failure(task)
        if failed["type"] == "content_moderation":
            return self.error(400, failed["message"], failed["type"])
        return self.error(502, failed["message"])

    def observed(self, task: Task) -> Reply:
        """See `Dialect`."""
        return json_reply(200, self._task(task))

    def callback(self, task: Task) -> bytes:
        """See `Dialect`; the vendor has no callbacks, so nobody is ever sent this."""
        return self.observed(task).body

    async def _submit(self, request: Request) -> Reply:
        return await self._intake.submit(self, request, _read)

    async def _poll(self, request: Request) -> Reply:
        return await self._intake.poll(self, request, request.params["task_id"])

    async def _cancel(self, request: Request) -> Reply:
        return await self._intake.cancel(self, request, request.params["task_id"])

    def _task(self, task: Task) -> dict[str, Any]:
        odd = task.plan.has("unknown-state-word") and not task.ended
        body = {
            "id": task.id,
            "object": "image.generation.task",
            "status": _UNKNOWN_STATE if odd else _STATES[task.state],
            "created": task.created_ms // 1000,
            "timeout": task.draft.notes["timeout"],
        }
        if task.state is State.COMPLETED:
            return {**body, "result": self._result(task)}
        return {**body, "error": _failure(task)} if task.state is State.FAILED else body

    def _result(self, task: Task) -> dict[str, Any]:
        """URLs are signed anew with every answer."""
        return {
            "created": task.created_ms // 1000,
            "data": [{"url": url} for url in files.urls(task, self._clock.now_ms())],
            "usage": _USAGE,
            "credit": task.draft.notes["credit"],
        }


def _failure(task: Task) -> dict[str, str]:
    if task.plan.has("moderated"):
        return {"message": "Content blocked by safety system", "type": "content_moderation"}
    return {"message": "Image generation failed: provider timeout", "type": "generation_error"}


def _read(body: Mapping[str, Any], origin: str) -> Draft:
    """The "Common fields", and the model's own where its page is known; other fields are the model's business."""
    model, prompt = fields.text(body, "model"), fields.text(body, "prompt")
    asynchronous = fields.flag(body, "async", default=False)
    timeout = fields.whole(body, "timeout", _TIMEOUT, 300)
    if model == _GPT_IMAGE_2:
        _check_gpt_image_2(body)
    size, count, quality, kind = (body.get(name) for name in ("size", "n", "quality", "output_format"))
    count = count if isinstance(count, int) and count in _COUNTS else 1
    width, height = _SIZES.get(str(size), _SIZES["auto"])
    return Draft(
        prompt=prompt,
        model=model,
        width=width,
        height=height,
        callback_url=None,
        origin=origin,
        channels=_ASYNC if asynchronous else _SYNC,
        count=count,
        image_format=_FORMATS.get(str(kind), "png"),
        links_live_s=_LINKS_LIVE_S,
        notes={"timeout": timeout, "credit": count * _CREDIT.get(str(quality), _CREDIT_OTHERWISE)},
    )


def _check_gpt_image_2(body: Mapping[str, Any]) -> None:
    """The "Request Parameters" of the model's page."""
    fields.whole(body, "n", _COUNTS, 1)
    fields.word(body, "size", _SIZES, "auto")
    fields.word(body, "quality", _QUALITIES, "auto")
    fields.word(body, "background", _BACKGROUNDS, "auto")
    fields.word(body, "output_format", _FORMATS, "png")
    fields.check_images(body, "image", data_urls=True)
    if "mask" in body:
        fields.check_image_url(body["mask"], "mask", data_urls=True)
