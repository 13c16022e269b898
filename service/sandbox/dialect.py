"""What a dialect is: how it words its answers and its callbacks, and under which paths it answers.

Owns the interface only. One module a dialect implements it; it must not know them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from service.sandbox.http import Handler, Reply
from service.sandbox.tasks import Task


@dataclass(frozen=True, slots=True)
class Route:
    """One method on the paths that the pattern matches whole; its named groups become `Request.params`."""

    method: str
    path: re.Pattern[str]
    handle: Handler


class Dialect(Protocol):
    """One provider's way of speaking, as its document shows it."""

    @property
    def name(self) -> str:
        """Whose the tasks are; a card with two ways of speaking has two."""

    @property
    def card(self) -> str:
        """The service's name for the provider, as its settings have it."""

    def routes(self) -> Sequence[Route]:
        """The paths that it answers."""

    def make_id(self, now_ms: int, rng: Random) -> str:
        """An id in the documented shape."""

    def error(self, status: int, message: str, kind: str = "") -> Reply:
        """A refusal in the provider's own form; where it has no kinds of errors, `kind` is left out."""

    def accepted(self, task: Task) -> Reply:
        """The answer to a submit; the task may have ended already, and has where the submit waits for the end."""

    def observed(self, task: Task) -> Reply:
        """The answer to a poll or a cancel."""

    def callback(self, task: Task) -> bytes:
        """The body of the callback for a task that has ended."""
