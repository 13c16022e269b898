"""The event loop that a service runs on, and how that shares the interpreter with the threads beside it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Final

#: For how long a busy loop may keep the interpreter from a thread, seconds. The store's threads ask for it at every step of a
#: statement: with Python's 5 ms a transaction takes hundreds of milliseconds beside a loop that never rests.
SWITCH_S: Final = 0.0002


def runner() -> asyncio.Runner:
    """For the main program of a process: it changes how the whole process shares the interpreter."""
    sys.setswitchinterval(SWITCH_S)
    return asyncio.Runner(loop_factory=_event_loop())


def _event_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The faster event loop, which comes with uvicorn where there is one for the platform; None: asyncio's own."""
    try:
        import uvloop  # noqa: PLC0415 - see above
    except ImportError:
        return None
    return uvloop.new_event_loop
