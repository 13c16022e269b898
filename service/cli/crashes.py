"""What nobody catches becomes a line of the log, so that a log in JSON is JSON from its first line to its last.

Owns the process's hooks for uncaught errors. It must not know who raises them.
"""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import Final

import structlog

_log: Final = structlog.get_logger(__name__)


def log_crashes() -> None:
    """For a process of our own: the hooks are the process's."""
    sys.excepthook, threading.excepthook, sys.unraisablehook = _crashed, _thread_crashed, _ignored


def _crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _log.critical("crashed", exc_info=(kind, error, trace))


def _thread_crashed(given: threading.ExceptHookArgs) -> None:
    thread = given.thread.name if given.thread else None
    trace = (given.exc_type, given.exc_value or given.exc_type(), given.exc_traceback)
    _log.critical("crashed", thread=thread, exc_info=trace)


def _ignored(given: sys.UnraisableHookArgs) -> None:
    """In a finaliser, where Python goes on."""
    trace = (given.exc_type, given.exc_value or given.exc_type(), given.exc_traceback)
    _log.error("error_ignored", where=repr(given.object), exc_info=trace)
