"""The dialect of SharkAPI.dev's older generation, read independently from the vendor's front page.

Owns what that page shows (sharkapi-generate.txt, sections "POST /v1/generate", "How it works" and "Simple pricing", seen
2026-11-21). Where it is silent (errors, the body of a poll, the reference image's field) the vendor's current page is
followed, with the older words of its page "Job status". It must not know how faults are carried out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Final

from service.sandbox import fields, files
from service.sandbox.dialect import Route
from service.sandbox.dialects.sharkapi import word
from service.sandbox.faults import Channel
from service.sandbox.http import Reply, Request, json_reply
from service.sandbox.intake import Intake
from service.sandbox.tasks import Draft, State, Task

_GENERATE: Final = re.compile(r"/v1/generate/?")
_JOBS: Final = "/v1/jobs/"
_CHANNELS: Final = frozenset({Channel.POLL, Channel.LINKS})
_SIDES: Final = {"1k": 1024, "2k": 2048}  # pixels
_COSTS: Final = {"1k": "$0.01", "2k": "$0.02"}
_FOREIGN: Final = "https://forged.example"
_UNKNOWN_STATE: Final = "upscaling"


class SharkAPIv1:
    """See the module."""

    name = "sharkapi-v1"
    card = "sharkapi-v1"

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def routes(self) -> Sequence[Route]:
        """See `Dialect`."""
        return (
            Route("POST", _GENERATE, self._submit),
            Route("GET", re.compile(rf"{_JOBS}(?P<task_id>[^/]+)/?"), self._poll),
        )

    def make_id(self, now_ms: int, rng: Random) -> str:
        """An id like the documented `job_8f2a9d3c`, but longer, so that two runs never share one."""
        return f"job_{rng.getrandbits(64) ^ now_ms:016x}"

    def error(self, status: int, message: str, kind: str = "") -> Reply:
        """See `Dialect`."""
        return json_reply(status, {"error": message})

    def accepted(self, task: Task) -> Reply:
        """See `Dialect`."""
        body = {
            "job_id": task.id,
            "status": word(task, "complete", _UNKNOWN_STATE),
            "estimated_cost": _COSTS[task.draft.model],
            "poll_url": f"{_FOREIGN if task.plan.has('foreign-links') else ''}{_JOBS}{task.id}",
        }
        return json_reply(200, body | _outcome(task))

    def observed(self, task: Task) -> Reply:
        """See `Dialect`."""
        return json_reply(200, {"job_id": task.id, "status": word(task, "complete", _UNKNOWN_STATE)} | _outcome(task))

    def callback(self, task: Task) -> bytes:
        """See `Dialect`; the vendor has no callbacks, so nobody is ever sent this."""
        return self.observed(task).body

    async def _submit(self, request: Request) -> Reply:
        return await self._intake.submit(self, request, _read)

    async def _poll(self, request: Request) -> Reply:
        return await self._intake.poll(self, request, request.params["task_id"])


def _outcome(task: Task) -> dict[str, Any]:
    if task.state is State.COMPLETED:
        return {"image_url": next(iter(files.urls(task)), None), "cost": _COSTS[task.draft.model]}
    return {"error": task.fail_message} if task.state is State.FAILED else {}


def _read(body: Mapping[str, Any], origin: str) -> Draft:
    """Prompt and mode; the reference image has no documented name, so that nothing can be said against one."""
    prompt = fields.text(body, "prompt")
    mode = fields.word(body, "mode", _SIDES, "1k")
    return Draft(prompt, mode, _SIDES[mode], _SIDES[mode], None, origin, _CHANNELS)
