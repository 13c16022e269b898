"""The one writer: takes every command that waits, applies them as sets in one transaction, and then answers (group commit).

A batch that a command spoils is rolled back whole and applied again one command a transaction, so that only the culprit fails.
Where the engine is not able (a full disk, another program's lock) everybody who waits is told at once. It knows nothing of jobs or deliveries: what a command does is the handler's that was registered for its class.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import structlog

from service.clock import Clock
from service.db.engine import Engine, EngineTx
from service.db.transaction import Tx
from service.errors import GuardFailed, StoreFailed, StoreInDoubt, StoreUnavailable

R = TypeVar("R")
C = TypeVar("C", bound="Command[Any]")

MAX_BATCH = 512  # commands in one transaction: bounds how long the first of them waits for the last
GUARD_TRIES = 3  # times a lone command is applied again when its guard failed

_log = structlog.get_logger(__name__)


class Command(Generic[R]):
    """A wish to change the store, answered with R once that is durable. Subclasses are frozen dataclasses."""

    __slots__ = ()

    def lock(self) -> Hashable | None:
        """Two commands of one kind with the same lock never share a batch; None locks nothing."""
        return None


#: Applies a set of commands of one kind and answers each of them; an exception as an answer fails that command alone,
#: and must not have written anything for it.
Handler = Callable[[Tx, Sequence[C]], Awaitable[list[R | Exception]]]


class Observer(Protocol):
    """Who wants to know how the writer fares (telemetry)."""

    def batch(self, size: int, commit_s: float) -> None:
        """A batch was committed."""


@dataclass(slots=True)
class _Waiting:
    command: Command[Any]
    answer: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class _Applied:
    """Commands that are durable, with their answers."""

    answers: list[Any]
    tx: EngineTx
    took_s: float


class Writer:
    """Runs commands. One instance, one task, one engine for a database."""

    def __init__(self, engine: Engine, clock: Clock, observer: Observer | None = None) -> None:
        self._engine = engine
        self._clock = clock
        self._observer = observer
        self._handlers: dict[type, Handler[Any, Any]] = {}
        self._queue: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._emptied: asyncio.Future[bool] | None = None  # somebody waits for the log to be emptied
        self.trouble: str | None = None  # why writes failed last; None: since then they were seen to succeed
        self.failed: asyncio.Future[StoreFailed] = asyncio.get_running_loop().create_future()

    def handle(self, kind: type[C], handler: Handler[C, Any]) -> None:
        """Name the handler for a class of commands."""
        self._handlers[kind] = handler

    async def run(self, command: Command[R]) -> R:
        """Apply the command and return its answer once it is durable.

        A cancelled caller does not cancel its command.

        Raises:
            StoreUnavailable: Nothing was written; trying again later makes sense.
            RemoraError: What the handler answered.
        """
        if self._closing or self.failed.done():
            msg = "the service is shutting down"
            raise StoreUnavailable(msg)
        waiting = _Waiting(command, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._wake.set()
        return await waiting.answer  # type: ignore[no-any-return]

    async def empty_log(self) -> bool:
        """Have the engine's log emptied between two batches, so that nothing of what was erased stays in it.

        Returns:
            False: not now; try again later.
        """
        if self.closed:
            return False
        if self._emptied is None:
            self._emptied = asyncio.get_running_loop().create_future()
            self._wake.set()
        return await asyncio.shield(self._emptied)

    def check(self) -> None:
        """Stop if the database is not in its place any more, also while nobody writes."""
        try:
            self._engine.check()
        except StoreFailed as error:
            self._fail([], error)

    def recovered(self) -> None:
        """Writes succeed again. One that succeeds is no proof: it may have needed no room."""
        if self.trouble is not None:
            _log.warning("store_back")
            self.trouble = None

    async def void(self, command: Command[R], otherwise: R) -> R:
        """Run a command that voids what earlier processes held; where others may be at work nothing is void, and it is not run.

        Args:
            command: Sent at start, before anything is claimed.
            otherwise: The answer where it is not run.
        """
        return await self.run(command) if self._engine.alone else otherwise

    @property
    def closed(self) -> bool:
        """Whether commands are refused for good."""
        return self._closing or self.failed.done()

    def start(self) -> None:
        """Begin to serve commands."""
        self._task = asyncio.create_task(self._serve(), name="writer")

    async def close(self) -> None:
        """Finish what waits, then stop."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
        await self._engine.close()

    async def _serve(self) -> None:
        batch: list[_Waiting] = []
        try:
            while not self.failed.done():
                await self._wake.wait()
                if self._emptied is not None:
                    await self._empty_log(self._emptied)
                if not self._queue:
                    if self._closing:
                        return
                    self._wake.clear()
                    continue
                batch = self._take()
                try:
                    await self._apply_or_split(batch)
                except StoreUnavailable as error:
                    self._refuse(batch, error)
        except StoreFailed as error:
            self._fail(batch, error)
        except Exception as error:  # the outermost guard: a writer that died unheard would hang everybody
            _log.exception("writer_broke")
            self._fail(batch, StoreFailed(repr(error)))

    async def _empty_log(self, emptied: asyncio.Future[bool]) -> None:
        done = False
        try:
            done = await self._engine.empty_log()
        except StoreUnavailable as error:
            _log.warning("log_not_emptied", error=str(error))
        finally:
            self._emptied = None
            _settle(emptied, done)

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        later: list[_Waiting] = []
        taken: set[Hashable] = set()
        while self._queue and len(batch) < MAX_BATCH:
            waiting = self._queue.popleft()
            lock = waiting.command.lock()
            if lock is None:
                batch.append(waiting)
            elif (key := (type(waiting.command), lock)) in taken:
                later.append(waiting)
            else:
                taken.add(key)
                batch.append(waiting)
        self._queue.extendleft(reversed(later))
        return batch

    async def _apply_or_split(self, batch: list[_Waiting]) -> None:
        """Apply a batch and answer it.

        Raises:
            StoreUnavailable: The engine is not able now; commands without an answer have written nothing.
            StoreFailed: It can no longer be trusted.
        """
        try:
            applied = await self._apply([waiting.command for waiting in batch])
        except (StoreUnavailable, StoreFailed):
            raise
        except Exception as error:  # the loop's outermost guard: whatever a handler raises belongs to its caller
            if len(batch) > 1:
                _log.warning("batch_split", size=len(batch), error=repr(error))
                for waiting in batch:
                    await self._apply_or_split([waiting])
                return
            again = await self._again(batch[0].command, error)
            if isinstance(again, Exception):
                _log.error("command_failed", command=type(batch[0].command).__name__, error=repr(again))
                _settle(batch[0].answer, again)
                return
            applied = again
        # From here on nothing may lead back: these commands are durable, and must never be applied again.
        self._follow_up(applied)
        for waiting, answer in zip(batch, applied.answers, strict=True):
            _settle(waiting.answer, answer)

    async def _again(self, command: Command[Any], error: Exception) -> _Applied | Exception:
        """Apply a lone command again while its guard fails; the error where that does not help."""
        tries = 1
        while isinstance(error, GuardFailed) and tries < GUARD_TRIES:
            tries += 1
            try:
                return await self._apply([command])
            except (StoreUnavailable, StoreFailed):
                raise
            except Exception as again:  # as in the caller: it belongs to the sender of the command
                error = again
        return error

    async def _apply(self, commands: list[Command[Any]]) -> _Applied:
        groups: dict[type, list[int]] = {}
        for position, command in enumerate(commands):
            groups.setdefault(type(command), []).append(position)
        answers: list[Any] = [None] * len(commands)
        tx = self._engine.begin(self._clock.now_ms())
        started = self._clock.monotonic()
        try:
            for kind, positions in groups.items():
                group = await self._handlers[kind](tx, [commands[position] for position in positions])
                for position, answer in zip(positions, group, strict=True):
                    answers[position] = answer
            await tx.commit()
        except BaseException as error:
            await tx.rollback()
            found = self._engine.translate(error)
            if found is error:
                raise
            raise found from error
        return _Applied(answers, tx, self._clock.monotonic() - started)

    def _follow_up(self, applied: _Applied) -> None:
        applied.tx.committed()
        if self._observer is not None:
            try:
                self._observer.batch(len(applied.answers), applied.took_s)
            except Exception:  # as with what waited for the commit: it is done, whatever becomes of the news
                _log.exception("observer_failed")

    def _refuse(self, batch: list[_Waiting], error: StoreUnavailable) -> None:
        """Answer everybody who waits: the next batch would wait for the same, and so would the last of them after all others."""
        if self.trouble is None:
            _log.warning("store_unavailable", error=str(error))
        self.trouble = str(error)
        for waiting in [*batch, *self._queue]:
            _settle(waiting.answer, StoreUnavailable(str(error)))
        self._queue.clear()

    def _fail(self, batch: list[_Waiting], error: StoreFailed) -> None:
        self._closing = True
        for waiting in batch:  # the failure may lie behind the commit
            _settle(waiting.answer, StoreInDoubt("the store failed; the service is stopping"))
        for waiting in self._queue:
            _settle(waiting.answer, StoreUnavailable("the store failed; the service is stopping"))
        self._queue.clear()
        if self.failed.done():
            return
        _log.critical("store_failed", error=str(error))
        if self._emptied is not None:
            _settle(self._emptied, answer=False)
            self._emptied = None
        self.failed.set_result(error)
        self._wake.set()


def _settle(future: asyncio.Future[Any], answer: object) -> None:
    if future.done():  # the caller was cancelled; its command was not
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
