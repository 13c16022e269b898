"""The sandbox's callbacks: one POST when a task ends, tried again until it is taken, or wrong as it was wished.

Owns the retry rules (as apimodels.app's video page describes them: a 10 s timeout, 3 retries after 1, 2 and 4 s, then in
the background for 30 min until 2xx) and the callback faults. It must not know how a dialect words a body.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Final

import aiohttp

from service.clock import Clock
from service.sandbox.dialect import Dialect
from service.sandbox.record import Record, SentCallback
from service.sandbox.tasks import State, Task

TIMEOUT_S: Final = 10.0  # never scaled: the receiver under test is as fast as it is
_RETRIES_S: Final = (1.0, 2.0, 4.0)  # waits, at speed 1
_BACKGROUND_EVERY_S: Final = 60.0  # at speed 1; the page names no interval
_BACKGROUND_TRIES: Final = 30  # 30 minutes of them
_HUGE_BYTES: Final = 1_000_000


class Caller:
    """Sends callbacks and tries again; one for a server, made inside its loop."""

    def __init__(self, clock: Clock, speed: float, record: Record) -> None:
        self._clock = clock
        self._speed = speed
        self._record = record
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            headers={"Content-Type": "application/json", "User-Agent": "remora-sandbox"},
        )

    async def close(self) -> None:
        """Give the connections back."""
        await self._session.close()

    async def call(self, task: Task, body: bytes, kind: str, *, insist: bool = True) -> None:
        """Send the body to the task's callback URL until it is answered 2xx or the tries are used up.

        Args:
            task: Whose callback it is.
            body: What is sent.
            kind: Whether it is the true one, for the log.
            insist: Try again where it was not taken.
        """
        waits = (*_RETRIES_S, *(_BACKGROUND_EVERY_S,) * _BACKGROUND_TRIES) if insist else ()
        for attempt, wait_s in enumerate((*waits, None), start=1):
            status, error = await self._post(task.draft.callback_url or "", body)
            self._record.sent(
                SentCallback(self._clock.now_ms(), task.id, task.draft.callback_url or "", kind, attempt, status, error)
            )
            if (status is not None and 200 <= status < 300) or wait_s is None:
                return
            await self._clock.sleep(wait_s / self._speed)

    async def _post(self, url: str, body: bytes) -> tuple[int | None, str | None]:
        try:
            async with self._session.post(url, data=body, allow_redirects=False) as answer:
                return answer.status, None
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: a URL that only looked like one
            return None, type(error).__name__


class Reporter:
    """Tells a task's callback URL of its end, in the dialect's words, with the task's faults."""

    def __init__(self, caller: Caller, dialect: Dialect, clock: Clock) -> None:
        self._caller = caller
        self._dialect = dialect
        self._clock = clock

    async def at_work(self, task: Task) -> None:
        """Send what nobody should believe, where it was wished for."""
        if task.draft.callback_url is None or not task.plan.has("forged-callback"):
            return
        claimed = replace(task, state=State.COMPLETED, finished_ms=self._clock.now_ms())
        false_file = replace(claimed, draft=replace(task.draft, origin="https://forged.example"))
        foreign = replace(claimed, id=task.id[:2] + task.id[:1:-1])
        await self._caller.call(task, self._dialect.callback(false_file), "forged", insist=False)
        await self._caller.call(task, self._dialect.callback(foreign), "forged", insist=False)

    async def ended(self, task: Task) -> None:
        """Send the callback, as often and as well as the task's faults allow."""
        if task.draft.callback_url is None or task.plan.has("lost-callback"):
            return
        if task.plan.has("late-callback"):
            await self._clock.sleep(task.plan.number("late-callback"))
        garbled = task.plan.text("garbled-callback")
        body, kind = self._dialect.callback(task), "true"
        if garbled is not None:
            body, kind = _garble(body, garbled), "garbled"
        if task.plan.has("double-callback"):
            await asyncio.gather(*(self._caller.call(task, body, word) for word in (kind, "doubled")))
        else:
            await self._caller.call(task, body, kind)
        if task.plan.has("conflicting-callback"):
            other = replace(task, state=State.FAILED, fail_message="The model could not generate an image")
            await self._caller.call(task, self._dialect.callback(other), "conflicting")


def _garble(body: bytes, how: str) -> bytes:
    if how == "utf8":
        return body.replace(b"success", b"succ\xff\xfess")
    if how == "huge":
        return json.dumps({**json.loads(body), "padding": "x" * _HUGE_BYTES}).encode("ascii")
    return body[: len(body) // 2]
