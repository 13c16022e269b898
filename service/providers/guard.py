"""Where code inside this process that fails becomes a reason: adapters, providers that draw or compute themselves, our own.

Whatever it raises, also what ends a process, whatever it gives, and also if it never ends, a job survives it: the caller gets an
`AdapterFailed`, and the log says where. It must not know what becomes of a job then: whether a task may have been taken is
the caller's to say.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final, ParamSpec, TypeVar

import msgspec
import structlog

from service.clock import Clock
from service.errors import AdapterFailed

MAX_MICRO_USD: Final = 10**12  # a million dollars: a higher cost of one task is a slip
MAX_WAIT_S: Final = 86_400.0 * 366  # a year; a longer `Retry-After` of an adapter is a fault
MAX_MS: Final = 4_102_444_800_000  # the year 2100
_FRAMES: Final = 8  # of a traceback, the innermost ones

_log = structlog.get_logger(__name__)
_Found = TypeVar("_Found")
_Given = ParamSpec("_Given")


@dataclass(frozen=True, slots=True)
class Step:
    """What is done for whom, as the log names it; `adapter` is whose code does it, None where it is ours."""

    provider: str
    operation: str
    name: str
    adapter: str | None = None


def run(step: Step, function: Callable[_Given, _Found], *given: _Given.args, **named: _Given.kwargs) -> _Found:
    """What a function gives.

    Raises:
        AdapterFailed: It raised something, whatever it is.
    """
    try:
        return function(*given, **named)
    except BaseException as error:  # the code of others may raise anything, SystemExit too, and a job must survive it
        raise _failure(step, error) from None


async def wait(step: Step, work: Awaitable[_Found]) -> _Found:
    """What some work gives that keeps to a deadline of its own.

    Raises:
        AdapterFailed: It raised something, whatever it is, but for the cancellation of this task.
    """
    try:
        return await work
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise _failure(step, error) from None  # by itself: nobody cancelled us
    except GeneratorExit:
        raise  # the event loop is gone, and nothing can be awaited any more
    except BaseException as error:  # as in `run`
        raise _failure(step, error) from None


async def wait_until(step: Step, work: Awaitable[_Found], timeout_s: float, clock: Clock) -> _Found:
    """As `wait`, for work that may never end, within so many seconds of the clock.

    It is left behind if it does not even let itself be cancelled.

    Raises:
        AdapterFailed: It raised something or did not end in time.
    """
    task = asyncio.ensure_future(_either(step, work))
    alarm = asyncio.ensure_future(clock.sleep(timeout_s))
    try:
        await asyncio.wait({task, alarm}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise _failure(step, TimeoutError())
        found = task.result()
    finally:
        alarm.cancel()
        task.cancel()
    if isinstance(found, AdapterFailed):
        raise found
    return found


async def _either(step: Step, work: Awaitable[_Found]) -> _Found | AdapterFailed:
    """The failure as a value: SystemExit as a task's exception would stop the event loop."""
    try:
        return await wait(step, work)
    except AdapterFailed as error:
        return error
    except GeneratorExit as error:  # by itself, as far as it matters: nothing is awaited after it
        return _failure(step, error)


def checked(step: Step, found: object, kind: type[_Found]) -> _Found:
    """A copy of an outcome in which every value is of its type and within bounds.

    What is none would fail later, where it is stored, and take the job with it.

    Raises:
        AdapterFailed: It is none.
    """
    if not isinstance(found, kind):
        raise _told(step, f"{type(found).__name__} where a {kind.__name__} belongs")
    try:
        given = {name: _plain(getattr(found, name)) for name in getattr(kind, "__dataclass_fields__", ())}
        made = msgspec.convert(given, kind, builtin_types=(bytes,))
        msgspec.json.encode(made)  # half a surrogate pair can be neither stored nor sent
        sound = _is_bounded(made)
    except (TypeError, ValueError, OverflowError, RecursionError, AttributeError, msgspec.MsgspecError) as error:
        raise _told(step, f"a {kind.__name__} with values of other types") from error
    if not sound:
        raise _told(step, f"a {kind.__name__} with a cost or a time out of bounds")
    return made


def _plain(value: Any) -> Any:
    """A dataclass or a mapping as a dict, so that it is looked at and copied instead of believed."""
    fields = getattr(value, "__dataclass_fields__", None)
    if fields is not None:
        return {name: _plain(getattr(value, name)) for name in fields}
    return dict(value) if isinstance(value, Mapping) else value


def _is_bounded(made: object) -> bool:
    observation = getattr(made, "observation", made)
    cost = getattr(observation, "cost", None)
    numbers = (
        (None if cost is None else cost.micro_usd, MAX_MICRO_USD),
        (getattr(made, "retry_after_s", None), MAX_WAIT_S),
        *((getattr(observation, name, None), MAX_MS) for name in ("created_at_ms", "finished_at_ms")),
    )
    return all(number is None or 0 <= number <= most for number, most in numbers)


def _failure(step: Step, error: BaseException) -> AdapterFailed:
    if isinstance(error, AdapterFailed) and error.logged:
        return error
    frames = list(traceback.walk_tb(error.__traceback__))[-_FRAMES:]
    codes = [(frame.f_code, line) for frame, line in frames]
    trace = [f"{PurePath(code.co_filename).name}:{line} {code.co_name}" for code, line in codes]
    place = f" at {trace[-1].partition(' ')[0]}" if trace else ""
    return _told(step, f"{type(error).__name__}{place}", trace)


def _told(step: Step, what: str, trace: Sequence[str] = ()) -> AdapterFailed:
    """Tell the log what failed and where, never with an error's text, which may quote a prompt or a secret."""
    _log.error(
        "provider_code_failed",
        provider=step.provider,
        operation=step.operation,
        step=step.name,
        adapter=step.adapter,
        error=what,
        trace=trace,
    )
    whose = f"adapter {step.adapter!r}" if step.adapter else f"the code of {step.provider}"
    return AdapterFailed(f"{whose} failed in {step.name}: {what}", logged=True)
