"""Code inside this process may do anything: a job survives it, and the log says where it was, without what it said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from structlog.testing import capture_logs

from service.clock import VirtualClock
from service.egress import Answer, Call
from service.errors import AdapterFailed
from service.jobs.transitions.facts import SubmitAnswered
from service.providers.adapters import Adapters
from service.providers.client import (
    CancelOutcome,
    CancelVerdict,
    PollOutcome,
    PollVerdict,
    SubmitOutcome,
    Verdict,
)
from service.providers.mapping import Money, Observation, Seen
from service.providers.registry import Provider, read_card
from service.providers.signatures import Judged
from service.settings import ProviderSettings
from service.states import ErrorCode, JobStatus
from tests.accounts.till import Till
from tests.providers.scripted import ScriptedEgress, answer

PROMPT = "a s3cret prompt"
INSIDE = """\
card: 1
name: inside
adapter: drawing
operations:
  generate: {input: {type: object}}
"""
OUTSIDE = """\
card: 1
name: outside
adapter: mine
base_url: https://outside.example
operations:
  generate:
    input: {type: object}
    submit: {path: /jobs}
    poll: {path: "/jobs/{id}", observe: {task_id: id, state: status, states: {done: completed}, urls: url}}
    cancel: {path: "/jobs/{id}"}
    callback: {slot: {field: hook}}
"""
DONE = Observation(Seen.COMPLETED, task_id="t", urls=("https://a.example/1",))
TAKEN = answer(200, b'{"id":"t1"}')


class Odd(BaseException):
    """What nobody thought of."""


ERRORS: list[BaseException] = [
    *(kind(PROMPT) for kind in (ValueError, KeyError, RecursionError, MemoryError, TimeoutError, AdapterFailed)),
    *(kind(PROMPT) for kind in (SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, Odd)),
]


class Inside:
    """A provider inside the process that does the same whatever it is asked."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work

    async def submit(self, operation: str, given: Mapping[str, object], callback_url: str | None) -> SubmitOutcome:
        return await self._does()  # type: ignore[no-any-return] # that is the question

    async def poll(self, operation: str, task_id: str, poll_url: str | None) -> PollOutcome:
        return await self._does()  # type: ignore[no-any-return] # that is the question

    async def cancel(self, operation: str, task_id: str, cancel_url: str | None) -> CancelOutcome:
        return await self._does()  # type: ignore[no-any-return] # that is the question

    def read_callback(self, operation: str, body: bytes, headers: Mapping[str, str]) -> Observation:
        return self._work()  # type: ignore[no-any-return] # that is the question

    async def _does(self) -> Any:
        found = self._work()
        return await found if asyncio.iscoroutine(found) else found


def raising(error: BaseException) -> Callable[..., NoReturn]:
    def work(*_: object) -> NoReturn:
        raise error

    return work


def inside(work: Callable[[], Any], clock: VirtualClock | None = None) -> Provider:
    card = read_card(INSIDE, "inside.yaml")
    dialects = {"drawing": lambda _: Inside(work)}
    return Provider(card, ProviderSettings(), ScriptedEgress(), clock or VirtualClock(), dialects=dialects)


def outside(egress: Any, **functions: Callable[..., object]) -> Provider:
    adapters = Adapters({"mine": lambda: SimpleNamespace(**(functions or {"build": lambda ask: ask.call}))})
    card = read_card(OUTSIDE, "outside.yaml", adapters)
    return Provider(card, ProviderSettings(), egress, VirtualClock(), adapters=adapters)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_failure_inside_the_process_is_internal(error: BaseException) -> None:
    """Whatever is raised; the log names provider, operation, error and place, and never quotes it."""
    with capture_logs() as logs:
        outcome = await inside(raising(error)).submit("generate", {"prompt": PROMPT}, None)

    assert (outcome.verdict, outcome.error_code) == (Verdict.REJECTED, ErrorCode.INTERNAL)
    [line] = logs
    assert (line["provider"], line["operation"], line["step"]) == ("inside", "generate", "submit")
    assert line["error"].startswith(f"{type(error).__name__} at test_guard.py:")
    assert PROMPT not in f"{line} {outcome.message}"


async def test_job_of_a_provider_inside_the_process_fails_with_it(tmp_path: Path) -> None:
    """At once, as `internal`, and its money is free again."""
    till = Till(tmp_path)
    await till.open()
    job = await till.take(await till.account(), 10_000)
    submission = await till.submit(job)
    outcome = await inside(raising(SystemExit())).submit("generate", {}, None)
    await till.tell(SubmitAnswered(job, submission, till.job(job).lease_epoch, outcome))
    stored, moves, breaches = till.job(job), till.moves(job), till.breaches()
    await till.close()

    assert (stored.status, stored.error_code) == (JobStatus.FAILED, "internal")
    assert (moves, breaches) == ([("hold", 10_000), ("release", 10_000)], [])


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_nothing_is_learnt_from_what_raises(error: BaseException) -> None:
    """A poll and a cancel are tried again, a callback has said nothing and proves nothing."""
    within = inside(raising(error))
    egress = ScriptedEgress(TAKEN, TAKEN)
    without = outside(
        egress,
        parse_poll=raising(error),
        parse_callback=raising(error),
        verify=raising(error),
        build=lambda ask: ask.call,
    )

    assert (await within.poll("generate", "t", None)).verdict is PollVerdict.RETRY
    assert within.read_callback("generate", b"{}", {}).seen is None
    assert (await without.poll("generate", "t", None)).verdict is PollVerdict.RETRY
    assert without.read_callback("generate", b'{"status":"done","url":"https://a.example/1"}', {}).seen is None
    assert not without.verify_callback("generate", b"{}", {}).evidence


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_adapter_that_raises_after_the_request_loses_no_task(error: BaseException) -> None:
    """Before it nothing left, and the job has failed; after it the task may have been taken, and that is what is said."""
    egress = ScriptedEgress(TAKEN)
    unsent = await outside(egress, build=raising(error)).submit("generate", {"prompt": PROMPT}, None)
    sent = await outside(egress, parse_submit=raising(error)).submit("generate", {"prompt": PROMPT}, None)
    uncancelled = await outside(egress, build=raising(error)).cancel("generate", "t")

    assert (unsent.verdict, unsent.error_code) == (Verdict.REJECTED, ErrorCode.INTERNAL)
    assert (sent.verdict, sent.error_code, len(egress.calls)) == (Verdict.UNKNOWN, ErrorCode.SUBMIT_UNKNOWN, 1)
    assert type(error).__name__ in (sent.message or "")
    assert uncancelled.verdict is CancelVerdict.RETRY


class Broken:
    """A way out with a fault that nobody has thought of, after the request left."""

    async def call(self, call: Call, *, timeout_s: float, read_bytes: int, fresh: bool = False) -> Answer:
        raise ZeroDivisionError(PROMPT)


async def test_fault_of_ours_after_a_request_loses_no_task() -> None:
    """Also where no adapter is at work: unknown, and asked again, with the reason."""
    provider = outside(Broken())
    outcome = await provider.submit("generate", {}, None)

    assert (outcome.verdict, outcome.error_code) == (Verdict.UNKNOWN, ErrorCode.SUBMIT_UNKNOWN)
    assert "ZeroDivisionError at test_guard.py" in (outcome.message or "")
    assert PROMPT not in (outcome.message or "")
    assert (await provider.poll("generate", "t", None)).verdict is PollVerdict.RETRY
    assert (await provider.cancel("generate", "t")).verdict is CancelVerdict.RETRY


ACCEPTED = SubmitOutcome(Verdict.ACCEPTED, DONE)
WRONG: list[Any] = [
    *(None, "accepted", {"verdict": "accepted"}, PollOutcome(PollVerdict.OBSERVED, DONE)),
    SubmitOutcome("taken"),  # type: ignore[arg-type] # what a plugin may write
    replace(ACCEPTED, observation="done"),  # type: ignore[arg-type]
    replace(ACCEPTED, observation=replace(DONE, task_id=5)),  # type: ignore[arg-type]
    replace(ACCEPTED, observation=replace(DONE, urls="https://a.example")),  # type: ignore[arg-type]
    replace(ACCEPTED, observation=replace(DONE, task_id="\ud800")),
    replace(ACCEPTED, observation=replace(DONE, cost=Money(-1, "provider"))),
    replace(ACCEPTED, observation=replace(DONE, cost=Money(2**70, "provider"))),
    replace(ACCEPTED, observation=replace(DONE, cost=Money(0.5, "provider"))),  # type: ignore[arg-type]
    replace(ACCEPTED, observation=replace(DONE, finished_at_ms=10**30)),
    replace(ACCEPTED, retry_after_s=float("nan")),
]


@pytest.mark.parametrize("wrong", WRONG, ids=range(len(WRONG)))
async def test_outcome_that_could_not_be_stored_is_none(wrong: Any) -> None:
    """Looked at where it comes from, in all its parts: stored, it would take the job with it."""
    within = await inside(lambda: wrong).submit("generate", {}, None)
    without = await outside(ScriptedEgress(TAKEN), parse_submit=lambda *_: wrong).submit("generate", {}, None)

    assert inside(lambda: wrong).read_callback("generate", b"{}", {}).seen is None
    assert (within.verdict, within.error_code) == (Verdict.REJECTED, ErrorCode.INTERNAL)
    assert (without.verdict, without.error_code) == (Verdict.UNKNOWN, ErrorCode.SUBMIT_UNKNOWN)


@pytest.mark.parametrize(
    "wrong",
    [
        Call("POST", "https://a.example", {"x": 1}),  # type: ignore[dict-item]
        Call("POST", "https://a.example", {}, "text"),  # type: ignore[arg-type]
        Call("POST", "https://a.example/\ud800", {}),
        Call(None, "https://a.example", {}),  # type: ignore[arg-type]
    ],
    ids=range(4),
)
async def test_request_that_cannot_be_sent_is_none(wrong: Call) -> None:
    """It is refused before anything leaves, not found out on the way."""
    egress = ScriptedEgress(TAKEN)
    outcome = await outside(egress, build=lambda _: wrong).submit("generate", {}, None)

    assert (outcome.verdict, outcome.error_code, egress.calls) == (Verdict.REJECTED, ErrorCode.INTERNAL, [])


async def test_sound_outcomes_come_through_as_they_are() -> None:
    """Whatever kind they are of; mappings of any kind are headers."""
    egress = ScriptedEgress(TAKEN, TAKEN)
    judged = Judged(valid=True, evidence=True, reason="so it is")
    provider = outside(
        egress,
        build=lambda ask: replace(ask.call, headers=Headers({"a": "b"})),
        parse_submit=lambda *_: ACCEPTED,
        parse_callback=lambda *_: DONE,
        verify=lambda *_: judged,
    )

    submitted = await provider.submit("generate", {"prompt": "A cat"}, None)
    assert replace(submitted, http_status=None, duration_ms=0) == ACCEPTED
    assert (egress.calls[0].headers, egress.calls[0].body) == ({"a": "b"}, b'{"prompt":"A cat"}')
    assert provider.read_callback("generate", b"{}", {}) == DONE
    assert provider.verify_callback("generate", b"{}", {}) == judged


class Headers(dict[str, str]):
    """Headers of another library."""


@pytest.mark.parametrize("stubborn", [False, True])
async def test_work_that_never_ends_is_given_up(*, stubborn: bool) -> None:
    """At the deadline of a submission, also where it does not let itself be cancelled."""
    clock, begun, over = VirtualClock(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                if not stubborn:
                    raise

    asked = asyncio.ensure_future(inside(work, clock).submit("generate", {}, None))
    await begun.wait()
    clock.advance(59.0)
    await asyncio.sleep(0)
    early = asked.done()
    clock.advance(1.5)
    outcome = await asked
    over.set()

    assert not early
    assert (outcome.verdict, outcome.error_code) == (Verdict.REJECTED, ErrorCode.INTERNAL)
    assert "TimeoutError" in (outcome.message or "")


async def test_cancelling_the_service_is_no_failure() -> None:
    """A stopping process cancels what waits; the work is cancelled with it."""
    begun, gone = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()

    asked = asyncio.ensure_future(inside(work).submit("generate", {}, None))
    await begun.wait()
    asked.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asked
    await gone.wait()
