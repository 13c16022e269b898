"""Which results this process fetches now: a short queue, accounts in turn, of each what dies first; with places for each host.

New results are admitted in their job's own transaction and begin after the commit; nobody waits for them, and what does
not fit stays due in the store. It must not know how a file is fetched or kept.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

import structlog

from service.clock import Clock
from service.db.transaction import Tx
from service.jobs.row import JobRow
from service.jobs.view import Keeping, ResultRow
from service.results.capture_claim_store import LONG_URL, REMEMBERED, UNKNOWN_LIFE_MS, Capture, host_of, lane_of
from service.results.store import EXPIRING_MS
from service.tasks import finish

AT_ONCE: Final = 16  # files that are fetched at the same time …
AT_ONCE_PER_HOST: Final = 4  # … of these from one host
QUEUE: Final = 256  # that wait in memory; a short queue keeps the order by urgency, since the store knows all
QUEUE_PER_HOST: Final = 64  # of these from one host: who is slow leaves the others' places free
KEPT: Final = 64  # of the queue, for what is due in the store: new results never take all places …
KEPT_PER_HOST: Final = 16  # … nor all of one host
LEASE_MS: Final = 1_800_000  # three times what a file may take, so that a place in the queue is covered
PAUSES_S: Final = (5.0, 15.0, 60.0)  # while our own storage fails

_log = structlog.get_logger(__name__)

Work = Callable[[Capture], Awaitable[bool | None]]


@dataclass(eq=False, slots=True)
class _Waiting:
    dies_at: int
    number: int
    capture: Capture


class Captures:
    """See `jobs.track.Keeper`.

    Args:
        work: Fetches one result; False: our own storage failed, and everybody pauses; None: it was not tried.
        owner: The name of this process on leases.
        links_live_ms: How long a provider's links live; None: nobody says.
        lost: Told, once it is committed, of each new result that has no address to fetch it from.
    """

    def __init__(
        self,
        work: Work,
        clock: Clock,
        owner: str,
        links_live_ms: Callable[[str], int | None],
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._work = work
        self._clock = clock
        self._owner = owner
        self._links_live_ms = links_live_ms
        self._lost = lost
        self._numbers = count()
        self._queue: dict[str, list[_Waiting]] = {}  # by host
        self._served: dict[str, int] = {}  # lanes, and when one of theirs began last
        self._waiting: Counter[str] = Counter()  # by host: queued, or promised to a transaction
        self._by_host: Counter[str] = Counter()  # under way
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = True
        self._failures = 0  # of our storage, in a row
        self._paused_until = 0.0  # monotonic

    # -- new results, in their job's transaction ---------------------------------------------------------------------

    def admit(self, tx: Tx, job: JobRow, results: Sequence[ResultRow]) -> list[ResultRow]:
        """See `Keeper`."""
        life_ms = self._links_live_ms(job.provider)
        dies_at = None if life_ms is None else tx.now_ms + life_ms
        held: list[Capture] = []
        admitted: list[ResultRow] = []
        for result in results:
            if result.error is not None:  # there is nothing to fetch
                admitted.append(result)
                tx.after_commit(self._lost)
                continue
            warn_at = result.expires_at - EXPIRING_MS
            sweep_at = warn_at if warn_at > tx.now_ms else result.expires_at
            host = host_of(result.source_url)
            lane = lane_of(job.account_id, host)
            if len(result.source_url) <= LONG_URL and self._reserve(host):
                until = tx.now_ms + LEASE_MS
                keeping = Keeping(tx.now_ms, sweep_at, lane, dies_at, self._owner, until, 1)
                held.append(_new(job, result, lane, dies_at, until))
            else:
                keeping = Keeping(tx.now_ms, sweep_at, lane, dies_at)
            # Made anew by hand: `replace` costs more than all the rest.
            admitted.append(ResultRow(result.idx, result.source_url, result.expires_at, keeping=keeping))
        if held:
            tx.on_rollback(lambda: self._release(held))
            tx.after_commit(lambda: self._give(held))
        return admitted

    def _reserve(self, host: str) -> bool:
        if self.room() <= KEPT or (host and self._waiting[host] >= QUEUE_PER_HOST - KEPT_PER_HOST):
            return False
        self._waiting[host] += 1
        return True

    def _release(self, captures: Sequence[Capture]) -> None:
        for capture in captures:
            self._begun(capture.host)

    def _begun(self, host: str) -> None:
        self._waiting[host] -= 1
        if not self._waiting[host]:
            del self._waiting[host]

    def _give(self, captures: Sequence[Capture]) -> None:
        for capture in captures:
            self._push(capture)
        self.go_on()

    # -- the queue ---------------------------------------------------------------------------------------------------

    def room(self) -> int:
        """How many more this process may hold."""
        if not self._open or self.paused():
            return 0
        return QUEUE - self._waiting.total()

    def waiting(self) -> tuple[tuple[str, int], ...]:
        """How many wait for each host."""
        return tuple(self._waiting.items())

    def paused(self) -> bool:
        """Whether our storage failed a moment ago."""
        return self._clock.monotonic() < self._paused_until

    def take(self, capture: Capture) -> None:
        """Queue a result that this process holds."""
        self._waiting[capture.host] += 1
        self._push(capture)
        self.go_on()

    def _push(self, capture: Capture) -> None:
        dies_at = capture.link_dies_at or self._clock.now_ms() + UNKNOWN_LIFE_MS
        self._queue.setdefault(capture.host, []).append(_Waiting(dies_at, next(self._numbers), capture))

    def go_on(self) -> None:
        """Begin what there is a place for; while our storage fails, nothing, and then one to try it."""
        while self._open and not self.paused() and len(self._tasks) < self._places() and (chosen := self._next()):
            host = chosen.host
            self._begun(host)
            self._by_host[host] += 1
            task = asyncio.create_task(self._run(chosen))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda _: self.go_on())

    def _next(self) -> Capture | None:
        """Of the lane whose turn it is, what dies first; a host with all places taken is passed over."""
        free = [line for host, line in self._queue.items() if self._by_host[host] < AT_ONCE_PER_HOST]
        chosen = min((each for line in free for each in line), key=self._order, default=None)
        if chosen is None:
            return None
        capture = chosen.capture
        line = self._queue[capture.host]
        line.remove(chosen)
        if not line:
            del self._queue[capture.host]
        if len(self._served) > REMEMBERED:
            self._served.clear()
        self._served[capture.lane] = next(self._numbers)
        return capture

    def _order(self, waiting: _Waiting) -> tuple[int, int, int]:
        return self._served.get(waiting.capture.lane, -1), waiting.dies_at, waiting.number

    def _places(self) -> int:
        return 1 if self._failures else AT_ONCE

    async def _run(self, capture: Capture) -> None:
        try:
            went = await self._work(capture)
            if went:
                self._failures = 0
            elif went is False:
                self._pause()
        except Exception:  # a task's outermost guard: the lease runs out and the capturer's tick takes over
            _log.exception("capture_failed", job=capture.job_id)
        finally:
            self._by_host[capture.host] -= 1
            if not self._by_host[capture.host]:
                del self._by_host[capture.host]

    def _pause(self) -> None:
        self._paused_until = self._clock.monotonic() + PAUSES_S[min(self._failures, len(PAUSES_S) - 1)]
        self._failures += 1

    async def drain(self, timeout_s: float) -> None:
        """Begin nothing new, let what runs finish, and cut off what does not finish in time."""
        self._open = False
        await finish(self._tasks, timeout_s)

    @property
    def out(self) -> int:
        """How many files are being fetched."""
        return len(self._tasks)

    async def settle(self) -> None:
        """Wait until nothing runs any more; for tests."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))


def _new(job: JobRow, result: ResultRow, lane: str, dies_at: int | None, until: int) -> Capture:
    return Capture(
        job_id=job.id,
        index=result.idx,
        lane=lane,
        url=result.source_url,
        provider=job.provider,
        operation=job.operation,
        task_id=job.provider_task_id,
        poll_url=job.poll_url,
        expires_at=result.expires_at,
        link_dies_at=dies_at,
        epoch=1,
        lease_until=until,
    )
