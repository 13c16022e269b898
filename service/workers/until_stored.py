"""Storing what cannot be had again: the answer of a provider, while the store takes no writes."""

from __future__ import annotations

from typing import TypeVar

import structlog

from service.clock import Clock
from service.db.writer import Command, Writer
from service.errors import StoreUnavailable
from service.jobs.row import JobRow, about

RETRY_S = 0.5  # seconds between two tries

R = TypeVar("R")

_log = structlog.get_logger(__name__)


async def run_until_stored(
    writer: Writer, command: Command[R], clock: Clock, patience_s: float, job: JobRow
) -> R | None:
    """Run a command until the store takes it, for as long as its lease lasts; None when it never did.

    A disk that is full for a moment must not turn a task that the provider has taken into `submit_unknown`.
    """
    end = clock.monotonic() + patience_s
    while True:
        try:
            return await writer.run(command)
        except StoreUnavailable as error:
            if writer.closed or clock.monotonic() >= end:
                _log.error("fact_lost", command=type(command).__name__, **about(job), reason=str(error))
                return None
        await clock.sleep(RETRY_S)
