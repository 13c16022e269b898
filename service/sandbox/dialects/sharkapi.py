"""The dialect of SharkAPI.dev as it is now, read independently from its page "POST — Generate Image".

Owns paths, fields, words and errors of that page (sharkapi-image.txt, sections "Request", "Response" and "Errors", seen
2026-11-21). Where it is silent (the body of a poll) the vendor's page "Job status" is followed as far as stored copies show
it. It must not know how faults are carried out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any, Final
from uuid import UUID

from service.sandbox import fields, files
from service.sandbox.dialect import Route
from service.sandbox.faults import Channel
from service.sandbox.fields import Invalid
from service.sandbox.http import Reply, Request, json_reply
from service.sandbox.intake import Intake
from service.sandbox.tasks import Draft, State, Task

_IMAGE: Final = re.compile(r"/api/v1/image/?")
_JOBS: Final = "/api/v1/jobs/"
_CHANNELS: Final = frozenset({Channel.POLL, Channel.LINKS})
_PROMPT_MAX_CHARS: Final = 2000
_VARIANT: Final = "1k"
_SIDE: Final = 1024  # pixels, of that variant
_PRICE_USD: Final = 0.03
_FOREIGN: Final = "https://forged.example"
_UNKNOWN_STATE: Final = "upscaling"


class SharkAPI:
    """See the module."""

    name = "sharkapi"
    card = "sharkapi"

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def routes(self) -> Sequence[Route]:
        """See `Dialect`."""
        return (
            Route("POST", _IMAGE, self._submit),
            Route("GET", re.compile(rf"{_JOBS}(?P<task_id>[^/]+)/?"), self._poll),
        )

    def make_id(self, now_ms: int, rng: Random) -> str:
        """A UUID that looks like the documented one, which is of version 4."""
        return str(UUID(int=rng.getrandbits(128) ^ now_ms, version=4))

    def error(self, status: int, message: str, kind: str = "") -> Reply:
        """See `Dialect`; the page's JavaScript reads `error`."""
        return json_reply(status, {"error": message})

    def accepted(self, task: Task) -> Reply:
        """See `Dialect`."""
        body = {
            "job_id": task.id,
            "status": word(task, "completed", _UNKNOWN_STATE),
            "poll_url": f"{_FOREIGN if task.plan.has('foreign-links') else ''}{_JOBS}{task.id}",
            "price_usd": _PRICE_USD,
            "created_at": _iso(task.created_ms),
        }
        return json_reply(202, body | _outcome(task))

    def observed(self, task: Task) -> Reply:
        """See `Dialect`."""
        body = {
            "job_id": task.id,
            "status": word(task, "completed", _UNKNOWN_STATE),
            "queued_at": _iso(task.created_ms),
            "started_at": _iso(task.started_ms),
            "completed_at": _iso(task.finished_ms),
        }
        return json_reply(200, body | _outcome(task))

    def callback(self, task: Task) -> bytes:
        """See `Dialect`; the vendor has no callbacks, so nobody is ever sent this."""
        return self.observed(task).body

    async def _submit(self, request: Request) -> Reply:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return self.error(400, "Content-Type must be application/json")
        return await self._intake.submit(self, request, _read)

    async def _poll(self, request: Request) -> Reply:
        return await self._intake.poll(self, request, request.params["task_id"])


def word(task: Task, completed: str, unknown: str) -> str:
    """The vendor's word for where a job stands; the two generations of its API spell the completion differently."""
    if task.state is State.COMPLETED:
        return completed
    if task.state is State.FAILED:
        return "moderated" if task.plan.has("moderated") else "failed"
    if task.plan.has("unknown-state-word"):
        return unknown
    return "queued" if task.state is State.PENDING else "processing"


def _outcome(task: Task) -> dict[str, Any]:
    """What an ended job has beside its status; it costs only when it is completed."""
    if task.state is State.COMPLETED:
        return {"image_url": next(iter(files.urls(task)), None), "cost": f"${_PRICE_USD:.2f}"}
    return {"error": task.fail_message} if task.state is State.FAILED else {}


def _iso(at_ms: int | None) -> str | None:
    return None if at_ms is None else datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _read(body: Mapping[str, Any], origin: str) -> Draft:
    """The "Body parameters"; what they do not name is ignored."""
    prompt = fields.text(body, "prompt", max_chars=_PROMPT_MAX_CHARS)
    if "image" in body and "image_url" in body:
        raise Invalid("image cannot be combined with image_url: send one or the other")
    if "image" in body:
        fields.check_picture(body["image"], "image")
    if "image_url" in body:
        fields.check_image_url(body["image_url"], "image_url", data_urls=False)
    variant = body.get("variant", _VARIANT)
    if not isinstance(variant, str):
        raise Invalid("variant must be a text")
    if variant != _VARIANT:
        raise Invalid('No active model for the requested variant. Only "1k" is currently available.', 422)
    return Draft(prompt, variant, _SIDE, _SIDE, None, origin, _CHANNELS)
