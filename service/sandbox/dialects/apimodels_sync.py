"""The dialect of apimodels.app's two synchronous endpoints, SparkPix Image and SparkPix Image Edit, read independently.

Owns their paths, fields and answers (apimodels-sparkpix.txt, sections "Parameters" and "Notes", seen 2026-11-21). The
answer is the result; it names no task, and there is nothing to poll, but the callback that the same page offers comes all
the same, in the words of the asynchronous endpoint. It must not know how faults are carried out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from random import Random
from typing import Any, Final

from service.sandbox import fields, files
from service.sandbox.dialect import Route
from service.sandbox.dialects import apimodels
from service.sandbox.faults import Channel
from service.sandbox.fields import Invalid
from service.sandbox.http import Reply, Request, json_reply
from service.sandbox.intake import Intake, Read
from service.sandbox.tasks import Draft, State, Task

_IMAGE: Final = re.compile(r"/api/v1/images/generations-sync/?")
_EDIT: Final = re.compile(r"/api/v1/images/edit/?")
_CHANNELS: Final = frozenset({Channel.CALLBACK, Channel.CODES})
_DURATION_S: Final = (0.3, 0.95)  # at speed 1: "sync, <1s"
#: In thousandths of a dollar as "Models" has the prices; the page does not say what a credit is.
_CREDITS: Final = {"sparkpix": 10, "sparkpix-edit": 13}
#: "format: huggingface.co/<owner>/<model>[/<file.safetensors>]"
_LORA: Final = re.compile(r"(https://)?huggingface\.co/[\w.-]+/[\w.-]+(/[\w./-]+\.safetensors)?", re.ASCII)


class APIModelsSync:
    """See the module."""

    name = "apimodels-sync"
    card = "apimodels"

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def routes(self) -> Sequence[Route]:
        """See `Dialect`."""
        return (
            Route("POST", _IMAGE, partial(self._submit, _read_image)),
            Route("POST", _EDIT, partial(self._submit, _read_edit)),
        )

    def make_id(self, now_ms: int, rng: Random) -> str:
        """See `Dialect`; only the callback tells it."""
        return apimodels.make_id(now_ms, rng)

    def error(self, status: int, message: str, kind: str = "") -> Reply:
        """See `Dialect`."""
        return apimodels.error(status, message)

    def accepted(self, task: Task) -> Reply:
        """See `Dialect`."""
        if task.state is State.FAILED:
            return self.error(400 if task.plan.has("moderated") else 500, task.fail_message or "")
        data = {
            "url": next(iter(files.urls(task)), None),
            "model": task.draft.model,
            "credits": _CREDITS[task.draft.model],
            "duration": ((task.finished_ms or task.created_ms) - task.created_ms) / 1000,
        }
        return json_reply(200, {"code": 200, "data": data})

    def observed(self, task: Task) -> Reply:
        """See `Dialect`; these endpoints have no poll."""
        return self.error(404, "Task not found")

    def callback(self, task: Task) -> bytes:
        """See `Dialect`."""
        return apimodels.callback(task)

    async def _submit(self, read: Read, request: Request) -> Reply:
        return await self._intake.submit(self, request, read)


def _read_image(body: Mapping[str, Any], origin: str) -> Draft:
    """The fields of "SparkPix Image params"; the document's defaults, and what it does not name is ignored."""
    fields.text(body, "prompt")
    if body.get("aspect_ratio", "custom") != "custom":
        for side in ("width", "height"):
            if side in body:
                raise Invalid(f'{side} is possible only when aspect_ratio is "custom"')
    fields.flag(body, "prompt_upsampling", default=False)
    fields.check_number(body, "lora_scale", -1, 3)
    weights = body.get("lora_weights")
    if weights is not None and (not isinstance(weights, str) or not _LORA.fullmatch(weights)):
        raise Invalid("lora_weights must look like huggingface.co/<owner>/<model>[/<file.safetensors>]")
    return _draft(body, origin, "sparkpix", "custom")


def _read_edit(body: Mapping[str, Any], origin: str) -> Draft:
    """The fields of "SparkPix Image Edit params"."""
    fields.text(body, "prompt")
    fields.check_images(body, "images", data_urls=False)
    fields.flag(body, "turbo", default=True)
    return _draft(body, origin, "sparkpix-edit", "match_input_image")


def _draft(body: Mapping[str, Any], origin: str, model: str, ratio: str) -> Draft:
    fields.check_integer(body, "seed")
    width, height = apimodels.size(body, ratio)
    return Draft(
        prompt=body["prompt"],
        model=model,
        width=width,
        height=height,
        callback_url=apimodels.callback_url(body),
        origin=origin,
        channels=_CHANNELS,
        duration_s=_DURATION_S,
    )
