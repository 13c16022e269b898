"""The dialect of apimodels.app, asynchronous images, read independently from the vendor's SparkPix page.

Owns paths, fields, words and error bodies of that page (apimodels-sparkpix.txt, sections "Endpoints", "Response Format" and
"Error Codes", seen 2026-11-21). Where it is silent (the submit's fields, the callback's body) the vendor's sibling pages
are followed. It must not know how faults are carried out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from service.sandbox.dialect import Route
from service.sandbox.flow import Flow
from service.sandbox.http import Reply, Request, json_object, json_reply
from service.sandbox.tasks import Draft, State, Task

_GENERATIONS: Final = re.compile(r"/api/v1/images/generations/?")
_DEFAULT_MODEL: Final = "sparkpix"
_BEARER: Final = re.compile(r"Bearer +(?P<key>[^\s]+)", re.IGNORECASE)
_UNKNOWN_STATE: Final = "rendering"
#: Exact ratios in steps of 16 pixels, as "Parameters" asks of custom sizes.
_SIZES: Final = {
    "1:1": (1024, 1024),
    "16:9": (1024, 576),
    "9:16": (576, 1024),
    "4:3": (1024, 768),
    "3:4": (768, 1024),
    "3:2": (1008, 672),
    "2:3": (672, 1008),
}
_CUSTOM_SIDES: Final = range(256, 1441, 16)


class APIModels:
    """See the module."""

    def __init__(self, flow: Flow, base_url: str) -> None:
        self._flow = flow
        self._base_url = base_url

    def routes(self) -> Sequence[Route]:
        """See `Dialect`."""
        return (Route("POST", _GENERATIONS, self._submit), Route("GET", _GENERATIONS, self._query))

    def error(self, status: int, message: str) -> Reply:
        """See `Dialect`."""
        return json_reply(status, {"code": status, "msg": message})

    def accepted(self, task: Task) -> Reply:
        """See `Dialect`."""
        return self.observed(task)

    def observed(self, task: Task) -> Reply:
        """See `Dialect`."""
        return json_reply(200, _envelope(_data(task)))

    def callback(self, task: Task) -> bytes:
        """See `Dialect`."""
        return json_reply(200, _envelope(_data(task) | {"model": task.draft.model})).body

    async def _submit(self, request: Request) -> Reply:
        key = _key(request)
        if key is None:
            return self.error(401, "Unauthorized: invalid API key")
        try:
            draft = _read(json_object(request.body), request.origin(self._base_url))
        except _Invalid as error:
            return self.error(400, str(error))
        except ValueError:
            return self.error(400, "Bad Request: the body must be a JSON object in UTF-8")
        if "poor" in key:
            return self.error(402, "Payment Required: insufficient credits")
        return await self._flow.submit(self, draft)

    async def _query(self, request: Request) -> Reply:
        if _key(request) is None:
            return self.error(401, "Unauthorized: invalid API key")
        if not request.query.get("task_id"):
            return self.error(400, "Bad Request: task_id is required")
        return await self._flow.poll(self, request.query["task_id"])


class _Invalid(ValueError):
    """A field is missing or wrong; the message names it."""


def _key(request: Request) -> str | None:
    match = _BEARER.fullmatch(request.headers.get("authorization", "").strip())
    return match["key"] if match and "bad" not in match["key"] else None


def _envelope(data: dict[str, Any]) -> dict[str, Any]:
    return {"code": 200, "msg": "success", "data": data}


def _data(task: Task) -> dict[str, Any]:
    """The document shows times for a completed task only, and `failMsg` for a failed one only."""
    if task.state is State.COMPLETED:
        return {
            "taskId": task.id,
            "state": "completed",
            "resultUrls": [] if task.plan.has("completed-without-file") else [task.file_url],
            "createTime": task.created_ms,
            "completeTime": task.finished_ms,
        }
    if task.state is State.FAILED:
        return {"taskId": task.id, "state": "failed", "failMsg": task.fail_message}
    return {"taskId": task.id, "state": _UNKNOWN_STATE if task.plan.has("unknown-state-word") else task.state.value}


def _read(body: dict[str, Any], origin: str) -> Draft:
    """The submit's fields; those that no page names are ignored, as servers of this kind do."""
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise _Invalid("Bad Request: prompt is required and must be a text")
    model = body.get("model", _DEFAULT_MODEL)
    if not isinstance(model, str) or not 1 <= len(model) <= 200:
        raise _Invalid("Bad Request: model must be a text")
    width, height = _size(body)
    return Draft(prompt, model, width, height, _callback_url(body), origin)


def _size(body: dict[str, Any]) -> tuple[int, int]:
    ratio = body.get("aspect_ratio", "custom")
    if ratio == "custom":
        return _side(body, "width"), _side(body, "height")
    if not isinstance(ratio, str) or ratio not in _SIZES:
        raise _Invalid(f"Bad Request: aspect_ratio must be custom or one of {', '.join(_SIZES)}")
    return _SIZES[ratio]


def _side(body: dict[str, Any], name: str) -> int:
    side = body.get(name, 1024)
    if not isinstance(side, int) or isinstance(side, bool) or side not in _CUSTOM_SIDES:
        raise _Invalid(f"Bad Request: {name} must be a multiple of 16 from 256 to 1440")
    return side


def _callback_url(body: dict[str, Any]) -> str | None:
    """`callBackUrl` ("Parameters"), or `callback_url` as "Important Notes" has it."""
    url = body.get("callBackUrl", body.get("callback_url"))
    if url is None:
        return None
    if not isinstance(url, str) or not _is_http(url):
        raise _Invalid("Bad Request: callBackUrl must be an http or https URL")
    return url


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        return False
