"""What a provider's dialect is: how it words its answers and its callbacks, and under which paths it answers.

Owns the interface only. One module a dialect implements it; it must not know them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
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

    def routes(self) -> Sequence[Route]:
        """The paths that it answers."""

    def error(self, status: int, message: str) -> Reply:
        """A refusal in the provider's own form."""

    def accepted(self, task: Task) -> Reply:
        """The answer to a submit; the task may have ended already."""

    def observed(self, task: Task) -> Reply:
        """The answer to a poll."""

    def callback(self, task: Task) -> bytes:
        """The body of the callback for a task that has ended."""
