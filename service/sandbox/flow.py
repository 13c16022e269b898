"""The way of a submit, of a poll and of a cancel through the sandbox, with the faults that apply on it, the same for every dialect.

Owns the order in which faults strike. It must not know how a dialect reads a request or words an answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from service.clock import Clock
from service.sandbox.callbacks import TIMEOUT_S, Caller, Reporter
from service.sandbox.dialect import Dialect
from service.sandbox.faults import Deck, Plan, marked_faults
from service.sandbox.http import CUT, Reply
from service.sandbox.record import Record
from service.sandbox.tasks import Draft, State, Task, Tasks

_GIANT_BYTES: Final = 5 * 2**20
_RETRY_AFTER: Final = (("retry-after", "1"),)  # seconds
#: Status, message and, where dialects have such, the kind of the error.
_REFUSALS: Final = {
    "429": (429, "Too many requests, slow down", ""),
    "400": (400, "Invalid parameters", ""),
    "401": (401, "Invalid API key", ""),
    "402": (402, "Insufficient credits", ""),
    "403": (403, "The API key is revoked or the account is suspended", ""),
    "422": (422, "No active model for what was requested", ""),
    "moderation": (400, "Content blocked by safety system", "content_moderation"),
    "too-large": (400, "Input exceeds model limit", "input_too_large"),
}
_UPSTREAM: Final = (502, "Upstream error, retry later")
_TIMED_OUT: Final = (504, "Request timed out")
_BAD_GATEWAY: Final = (
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><h1>502 Bad Gateway</h1></body>\r\n</html>\r\n"
)


class Flow:
    """Takes submits, answers polls and cancels; one for a server."""

    def __init__(self, clock: Clock, deck: Deck, tasks: Tasks, caller: Caller, record: Record) -> None:
        self._clock = clock
        self._deck = deck
        self._tasks = tasks
        self._caller = caller
        self._record = record
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Let no answer wait any longer."""
        self._closing.set()

    async def submit(self, dialect: Dialect, draft: Draft) -> Reply:
        """Create a task, or refuse to, and say so, or not."""
        try:
            plan = self._deck.deal(draft.channels, marked_faults(draft.prompt))
        except ValueError as error:
            return dialect.error(400, f"prompt: {error}")
        refusal = _refuse(dialect, plan)
        if refusal is not None:
            return refusal
        reply = await self._begin(dialect, self._tasks.create(draft, plan, dialect.name, dialect.make_id))
        if plan.has("slow-submit"):
            await self._pause(plan.number("slow-submit"))
        if plan.has("cut-submit") or self._closing.is_set():
            return CUT
        return _spoil(dialect, reply, plan, "submit")

    async def poll(self, dialect: Dialect, task_id: str) -> Reply:
        """Say how the task stands."""
        task = self._find(dialect, task_id)
        if task is None:
            return dialect.error(404, "Task not found")
        task = self._tasks.polled(task)
        if task.polls <= task.plan.number("not-found-lag"):
            return dialect.error(404, "Task not found")
        if task.polls <= task.plan.number("failing-polls"):
            return _fail_poll(dialect, task.polls)
        reply = dialect.observed(task)
        return _spoil(dialect, reply, task.plan, "poll") if task.polls == 1 else reply

    async def cancel(self, dialect: Dialect, task_id: str) -> Reply:
        """Cancel the task while it is pending, and say so, or not."""
        task = self._find(dialect, task_id)
        if task is None:
            return dialect.error(404, "Task not found")
        task = self._tasks.asked_to_cancel(task)
        if task.plan.text("bad-gateway") == "cancel" and task.cancels == 1:
            return dialect.error(*_UPSTREAM)
        if task.plan.has("late-cancel"):
            task = self._tasks.start(task)
        if task.state is not State.PENDING:
            return dialect.error(409, "The task has already started")
        if task.plan.has("ignored-cancel"):
            return dialect.observed(replace(task, state=State.CANCELLED))
        reply = dialect.observed(self._tasks.cancel(task))
        return CUT if task.plan.has("cut-cancel") else reply

    def _find(self, dialect: Dialect, task_id: str) -> Task | None:
        task = self._tasks.get(task_id)
        return task if task is not None and task.dialect == dialect.name else None

    async def _begin(self, dialect: Dialect, task: Task) -> Reply:
        """Start the task's life.

        The reply tells how it stood at its creation, except where the end is to come at once or is the answer.
        """
        reporter = Reporter(self._caller, dialect, self._clock)
        if task.plan.has("instant"):
            task = self._tasks.finish(task)
            self._tasks.spawn(reporter.ended(task))
            return dialect.accepted(task)
        begun = None if task.is_sync else dialect.accepted(task)
        if task.plan.has("early-callback"):
            task = self._tasks.finish(task)
            self._tasks.spawn(reporter.ended(task))
            await self._called_back(task)
        else:
            self._tasks.live(task, reporter)
        return begun or await self._end(dialect, task)

    async def _end(self, dialect: Dialect, task: Task) -> Reply:
        """The answer of a task whose submit waits for its end."""

        def current() -> Task:
            return self._tasks.get(task.id) or task

        await self._record.until(lambda: self._closing.is_set() or current().ended, timeout_s=None)
        return dialect.accepted(current()) if current().ended else CUT

    async def _called_back(self, task: Task) -> None:
        """Wait until the task's first callback was answered, if there is to be one at all."""
        if task.draft.callback_url is None or task.plan.has("lost-callback"):
            return

        def done() -> bool:
            return self._closing.is_set() or any(sent.task_id == task.id for sent in self._record.callbacks)

        try:
            await self._record.until(done, timeout_s=TIMEOUT_S + task.plan.number("late-callback"))
        except TimeoutError:
            return  # the submit's answer is due, also where the callback failed

    async def _pause(self, seconds: float) -> None:
        """Sleep, but not beyond the server's end."""
        sleep = asyncio.ensure_future(self._clock.sleep(seconds))
        closing = asyncio.ensure_future(self._closing.wait())
        await asyncio.wait((sleep, closing), return_when=asyncio.FIRST_COMPLETED)
        sleep.cancel()
        closing.cancel()


def _refuse(dialect: Dialect, plan: Plan) -> Reply | None:
    """The answer of a submit that creates nothing; None where the faults let it through."""
    if plan.has("cut-submit-lost"):
        return CUT
    if plan.has("submit-500"):
        return dialect.error(500, "Internal Server Error")
    if plan.text("bad-gateway") == "submit":
        return dialect.error(*_UPSTREAM)
    code = plan.text("code-in-200")
    if code is not None and code != "poll":
        return _within_200(dialect, code)
    why = plan.text("refused-submit")
    return None if why is None else _refusal(dialect, why)


def _refusal(dialect: Dialect, why: str) -> Reply:
    reply = dialect.error(*_REFUSALS[why])
    return replace(reply, headers=_RETRY_AFTER) if reply.status == 429 else reply


def _within_200(dialect: Dialect, code: str) -> Reply:
    reply = dialect.error(500, "Internal Server Error") if code == "500" else _refusal(dialect, code)
    return replace(reply, status=200)


def _fail_poll(dialect: Dialect, poll: int) -> Reply:
    if poll % 2:
        return dialect.error(500, "Internal Server Error")
    return _refusal(dialect, "429")


def _spoil(dialect: Dialect, reply: Reply, plan: Plan, where: str) -> Reply:
    if plan.text("gateway-timeout") == where:
        return dialect.error(*_TIMED_OUT)
    if plan.text("bad-gateway") == where:
        return dialect.error(*_UPSTREAM)
    if plan.text("code-in-200") == where:
        return _within_200(dialect, "500")
    if plan.text("html-error") == where:
        return Reply(502, _BAD_GATEWAY, "text/html")
    if plan.text("giant-answer") == where:
        padded = b'{"padding":"' + b"x" * _GIANT_BYTES + b'",' + reply.body[1:]
        return Reply(reply.status, padded, reply.content_type, reply.headers)
    return reply
