"""The times of an operation: what its card says, with the operator's settings applied."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from service.providers.card.card import Operation
from service.settings import ProviderSettings

_IN_PROCESS_S: Final = 60.0  # what a provider inside this process may take


@dataclass(frozen=True, slots=True)
class OperationTiming:
    """The times of one operation that tracking needs, in seconds, with the operator's settings applied.

    Args:
        fallback_after_s: How long a callback may stay out before the first poll.
        poll_every_s: The shortest wait between two polls.
        not_found_grace_s: How long after the submission a 404 may be replication lag.
        typical_s: How long a task usually takes.
        overdue_after_s: When a task takes longer than it should; None: never.
    """

    submit_timeout_s: float
    poll_timeout_s: float
    fallback_after_s: float
    poll_every_s: float
    not_found_grace_s: float
    typical_s: float
    overdue_after_s: float | None


def timing_of(operation: Operation, settings: ProviderSettings) -> OperationTiming:
    """The times of an operation."""
    submit, poll, callback = operation.submit, operation.poll, operation.callback
    fallback = callback.fallback_after.total_seconds() if callback else 0.0
    every = poll.every.total_seconds() if poll else 0.0
    return OperationTiming(
        submit_timeout_s=submit.timeout.total_seconds() if submit else _IN_PROCESS_S,
        poll_timeout_s=poll.timeout.total_seconds() * (2 if poll.result else 1) if poll else 0.0,
        fallback_after_s=_either(settings.fallback_after, fallback),
        poll_every_s=_either(settings.poll_every, every),
        not_found_grace_s=poll.not_found_grace.total_seconds() if poll else 0.0,
        typical_s=operation.typical.total_seconds(),
        overdue_after_s=seconds(operation.overdue_after),
    )


def _either(setting: timedelta | None, of_card: float) -> float:
    return of_card if setting is None else setting.total_seconds()


def seconds(duration: timedelta | None) -> float | None:
    """As a number, where there is one."""
    return None if duration is None else duration.total_seconds()
