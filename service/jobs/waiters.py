"""Callers who wait for a job's end (`Prefer: wait`), in this process."""

from __future__ import annotations

import asyncio
from collections import defaultdict


class Waiters:
    """Wakes the requests that wait for a job when its final state is committed."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)

    def notify(self, job_id: str) -> None:
        """The job is final now."""
        for future in self._waiting.pop(job_id, ()):
            if not future.done():
                future.set_result(None)

    def register(self, job_id: str) -> asyncio.Future[None]:
        """A future that is done when the job becomes final; register before reading the state, then `forget` it."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[job_id].add(future)
        return future

    def forget(self, job_id: str, future: asyncio.Future[None]) -> None:
        """Stop waiting."""
        waiting = self._waiting.get(job_id)
        if waiting is not None:
            waiting.discard(future)
            if not waiting:
                del self._waiting[job_id]

    def release_all(self) -> None:
        """Wake everybody, such as when the service drains."""
        for job_id in list(self._waiting):
            self.notify(job_id)
