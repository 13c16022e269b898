"""The dialect of apimodels.app, asynchronous images, read independently from the vendor's SparkPix page.

Owns paths, fields, words and error bodies of that page (apimodels-sparkpix.txt, sections "Endpoints", "Response Format" and
"Error Codes", seen 2026-11-21). Where it is silent (the submit's fields, the callback's body) the vendor's sibling pages
are followed. It must not know how faults are carried out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Final

from service.picture import SIZES
from service.sandbox import fields, files, keys
from service.sandbox.dialect import Route
from service.sandbox.faults import Channel
from service.sandbox.fields import Invalid
from service.sandbox.http import Reply, Request, json_reply
from service.sandbox.intake import Intake
from service.sandbox.tasks import Draft, State, Task

_GENERATIONS: Final = re.compile(r"/api/v1/images/generations/?")
_DEFAULT_MODEL: Final = "sparkpix"
_CHANNELS: Final = frozenset({Channel.CALLBACK, Channel.POLL, Channel.CODES})
_UNKNOWN_STATE: Final = "rendering"
_LETTERS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_NOISE_CHARS: Final = 15
_CUSTOM_SIDES: Final = range(256, 1441, 16)
_TITLES: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    404: "Not Found",
}


class APIModels:
    """See the module."""

    name = "apimodels"
    card = "apimodels"

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def routes(self) -> Sequence[Route]:
        """See `Dialect`."""
        return (Route("POST", _GENERATIONS, self._submit), Route("GET", _GENERATIONS, self._query))

    def make_id(self, now_ms: int, rng: Random) -> str:
        """See `Dialect`."""
        return make_id(now_ms, rng)

    def error(self, status: int, message: str, kind: str = "") -> Reply:
        """See `Dialect`."""
        return error(status, message)

    def accepted(self, task: Task) -> Reply:
        """See `Dialect`."""
        return self.observed(task)

    def observed(self, task: Task) -> Reply:
        """See `Dialect`."""
        return json_reply(200, _envelope(_data(task)))

    def callback(self, task: Task) -> bytes:
        """See `Dialect`."""
        return callback(task)

    async def _submit(self, request: Request) -> Reply:
        return await self._intake.submit(self, request, _read)

    async def _query(self, request: Request) -> Reply:
        if not request.query.get("task_id") and keys.refusal(request, costs=False) is None:
            return self.error(400, "task_id is required")
        return await self._intake.poll(self, request, request.query.get("task_id", ""))


def make_id(now_ms: int, rng: Random) -> str:
    """An id like the documented `clxxx…`."""
    return f"cl{_base36(now_ms)}{''.join(rng.choices(_LETTERS, k=_NOISE_CHARS))}"


def error(status: int, message: str) -> Reply:
    """The vendor's refusal, which begins as "Error Codes" does."""
    said = f"{_TITLES[status]}: {message}" if status in _TITLES else message
    return json_reply(status, {"code": status, "msg": said})


def callback(task: Task) -> bytes:
    """The query's envelope plus `data.model`."""
    return json_reply(200, _envelope(_data(task) | {"model": task.draft.model})).body


def size(body: Mapping[str, Any], default: str) -> tuple[int, int]:
    """Width and height: one of the ratios; or those of the body where they are free; or for anything else a square."""
    ratio = fields.word(body, "aspect_ratio", (default, *SIZES), default)
    if ratio != "custom":
        return SIZES.get(ratio, SIZES["1:1"])
    return fields.whole(body, "width", _CUSTOM_SIDES, 1024), fields.whole(body, "height", _CUSTOM_SIDES, 1024)


def callback_url(body: Mapping[str, Any]) -> str | None:
    """`callBackUrl` ("Parameters"), or `callback_url` as "Important Notes" has it."""
    return fields.url(body, "callBackUrl", "callback_url")


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _LETTERS[digit] + digits
    return digits


def _envelope(data: dict[str, Any]) -> dict[str, Any]:
    return {"code": 200, "msg": "success", "data": data}


def _data(task: Task) -> dict[str, Any]:
    """The document shows times for a completed task only, and `failMsg` for a failed one only."""
    if task.state is State.COMPLETED:
        return {
            "taskId": task.id,
            "state": "completed",
            "resultUrls": files.urls(task),
            "createTime": task.created_ms,
            "completeTime": task.finished_ms,
        }
    if task.state is State.FAILED:
        return {"taskId": task.id, "state": "failed", "failMsg": task.fail_message}
    return {"taskId": task.id, "state": _UNKNOWN_STATE if task.plan.has("unknown-state-word") else task.state.value}


def _read(body: Mapping[str, Any], origin: str) -> Draft:
    """The submit's fields; those that no page names are ignored, as servers of this kind do."""
    prompt = fields.text(body, "prompt")
    model = body.get("model", _DEFAULT_MODEL)
    if not isinstance(model, str) or not 1 <= len(model) <= 200:
        raise Invalid("model must be a text")
    width, height = size(body, "custom")
    return Draft(prompt, model, width, height, callback_url(body), origin, _CHANNELS)
