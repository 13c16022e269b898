"""The sandbox's own paths, which no provider has: its welcome, its faults, its tasks and its log.

Owns `/` and `/_sandbox/`. It must not know dialects.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from service.sandbox import keys
from service.sandbox.dialect import Route
from service.sandbox.faults import Deck, describe, parse_faults
from service.sandbox.http import Reply, Request, json_object, json_reply, problem
from service.sandbox.record import Record
from service.sandbox.tasks import Task, Tasks

_WELCOME: Final = """Remora's sandbox: the providers in a box. It draws pictures and misbehaves on request.

{addresses}

Paths, fields and answers are the providers' own, as their documents have them. Keys: {keys}.

GET  /_sandbox/tasks, /_sandbox/log         what it knows, what it has seen and sent
POST /_sandbox/faults {{"faults": "…"}}       the faults of the whole server, as word[:argument][=probability or count]
A prompt asks for its own: "a cat [fault:slow-submit]".

"""


class Control:
    """See the module."""

    def __init__(self, deck: Deck, tasks: Tasks, record: Record, base_urls: Mapping[str, str]) -> None:
        self._deck = deck
        self._tasks = tasks
        self._record = record
        self._base_urls = base_urls

    def routes(self) -> Sequence[Route]:
        """The paths, first match wins."""
        return (
            Route("GET", re.compile("/"), self._welcome),
            Route("GET", re.compile("/_sandbox/faults"), self._show_faults),
            Route("POST", re.compile("/_sandbox/faults"), self._set_faults),
            Route("GET", re.compile("/_sandbox/tasks"), self._show_tasks),
            Route("GET", re.compile("/_sandbox/log"), self._show_log),
        )

    async def _welcome(self, request: Request) -> Reply:
        addresses = "\n".join(f"{card:12} {url}" for card, url in self._base_urls.items())
        text = _WELCOME.format(addresses=addresses, keys=keys.HELP) + describe() + "\n"
        return Reply(200, text.encode(), "text/plain; charset=utf-8")

    async def _show_faults(self, request: Request) -> Reply:
        return json_reply(200, {"faults": ",".join(str(fault) for fault in self._deck.faults)})

    async def _set_faults(self, request: Request) -> Reply:
        try:
            text = json_object(request.body).get("faults")
        except ValueError:
            text = None
        if not isinstance(text, str):
            return problem(400, 'write a JSON object such as {"faults": "lost-callback,double-callback=0.5"}')
        try:
            self._deck.replace(parse_faults(text))
        except ValueError as error:
            return problem(400, f"faults: {error}")
        return await self._show_faults(request)

    async def _show_tasks(self, request: Request) -> Reply:
        return json_reply(200, {"tasks": [_shown(task) for task in self._tasks.all()]})

    async def _show_log(self, request: Request) -> Reply:
        return json_reply(
            200,
            {
                "requests": [asdict(seen) for seen in self._record.requests],
                "callbacks": [asdict(sent) for sent in self._record.callbacks],
            },
        )


def _shown(task: Task) -> dict[str, Any]:
    return {
        "id": task.id,
        "dialect": task.dialect,
        "state": task.state.value,
        "prompt": task.draft.prompt,
        "model": task.draft.model,
        "callback_url": task.draft.callback_url,
        "faults": [str(fault) for fault in task.plan.faults.values()],
        "polls": task.polls,
        "cancels": task.cancels,
        "created_ms": task.created_ms,
        "finished_ms": task.finished_ms,
    }
