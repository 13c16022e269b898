"""How a process ends: which signals ask for it, what is waited for, in which order and how long, and what is told of it.

First it is only no longer ready: nothing new is submitted, and what is out at providers comes back, while requests and
callbacks are still taken. Then it stops listening, and what is left comes to its end. It must not know how any work is done.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog

from service.api.listening.listener import Listener
from service.errors import CardInvalid, SettingsInvalid
from service.providers.registry import Registry
from service.scheduler.duties import Ticker
from service.settings import Settings
from service.wiring.stages import Stages

RECORD_S: Final = 5.0  # for what came at the last moment to be stored
POLLS_S: Final = 15.0  # a poll that is cut off is asked again after the next start
FILES_S: Final = 5.0  # files that are being fetched are fetched again
LAST_REQUESTS_S: Final = 1.0  # in which callers leave their connections, where the port outlives the process
SAME_SIGNAL_S: Final = 1.0  # a terminal, and a wrapper that forwards what it gets, signal twice in a moment
TELL_EVERY_S: Final = 5.0  # seconds between lines about what a stop waits for
TOLD_JOBS: Final = 20  # names in a log line

_log = structlog.get_logger(__name__)


def drain_s(settings: Settings, registry: Registry) -> float:
    """How long what is out at providers is waited for."""
    if settings.drain is not None:
        return settings.drain.total_seconds()
    longest = max((each.submit_timeout_s for each in registry.all() if each.configured), default=0.0)
    return longest + RECORD_S


class Stopping:
    """The end of one process.

    Args:
        listener: Stops last.
        stages: What is waited for.
        ticker: Makes things due.
        drain_s: See `drain_s`.
        delivery_s: The deadline of one delivery.
        port_stays: The port stays open without this process (systemd's socket).
    """

    def __init__(
        self, listener: Listener, stages: Stages, ticker: Ticker, *, drain_s: float, delivery_s: float, port_stays: bool
    ) -> None:
        self.asked = asyncio.Event()
        self.restarts = False  # a successor gets the port
        self.drain_s = drain_s
        self.loops: list[asyncio.Task[None]] = []
        self._listener = listener
        self._stages = stages
        self._ticker = ticker
        self._delivery_s = delivery_s
        self._port_stays = port_stays
        self._signalled_at = 0.0  # on the loop's clock
        self._hastened = asyncio.Event()
        self._cut: list[str] = []  # jobs whose submission was cut off
        self._done: asyncio.Task[None] | None = None
        self._checks: asyncio.Task[None] | None = None

    # -- asking ------------------------------------------------------------------------------------------------------

    def catch_signals(self, check: Callable[[], None] | None = None) -> None:
        """End at SIGINT or SIGTERM, at once when one comes again; make room for a successor at SIGUSR2.

        Args:
            check: Raises what would keep a successor from starting; None: there can be none.
        """
        loop = asyncio.get_running_loop()
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(each, self._signalled, each.name)
        if check is not None:
            loop.add_signal_handler(signal.SIGUSR2, self._begin_restart, check)

    def ask(self, why: str) -> None:
        """Begin to end."""
        if not self.asked.is_set():
            self.asked.set()
            _log.info("stopping", why=why, at_most_s=self.drain_s, **self._out())

    def hasten(self, why: str) -> None:
        """Wait for nothing any more."""
        self.ask(why)
        if not self._hastened.is_set():
            self._hastened.set()
            _log.warning("stopping_at_once", why=why, **self._out())

    def _signalled(self, name: str) -> None:
        now, before = asyncio.get_running_loop().time(), self._signalled_at
        if before and now - before < SAME_SIGNAL_S:
            return
        self._signalled_at = now
        if self.asked.is_set() and not self.restarts:
            self.hasten(f"{name} again")
        else:  # during a restart: end, and leave it at that
            self.restarts = False
            self.ask(name)

    def _begin_restart(self, check: Callable[[], None]) -> None:
        if not self.asked.is_set() and self._checks is None:
            self._checks = asyncio.create_task(self._restart(check), name="restart-check")

    async def _restart(self, check: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(check)
        except (SettingsInvalid, CardInvalid) as error:
            _log.error("restart_refused", error=str(error), service="goes on as it is")
            return
        except Exception:  # what a check did not expect would keep a successor from starting, too
            _log.exception("restart_refused", service="goes on as it is")
            return
        finally:
            self._checks = None
        if not self.asked.is_set():
            self.restarts = True
            self.ask("SIGUSR2")

    # -- ending ------------------------------------------------------------------------------------------------------

    async def done(self) -> None:
        """Come to the end, once, however often this is called."""
        if self._done is None:
            self._done = asyncio.create_task(self._end(), name="stopping")
        await asyncio.shield(self._done)

    async def _end(self) -> None:
        began = time.monotonic()
        self.ask("closed")
        telling = asyncio.create_task(self._tell(), name="stopping-lines")
        try:
            await self._come_back()
        finally:
            requests = await self._close()
            telling.cancel()
        took_s = round(time.monotonic() - began, 1)
        left: dict[str, object] = {"requests_cut": requests} if requests else {}
        if self._cut:
            left["cut_off"] = {"submits": len(self._cut), "jobs": self._cut[:TOLD_JOBS]}
        _log.info("stopped", took_s=took_s, restarts=self.restarts, **left)

    async def _come_back(self) -> None:
        """Wait for what is out at providers, while requests and callbacks are still taken."""
        polls = self._stages.polls.pool
        self._listener.end_connections()
        waits: list[Awaitable[object]] = [self._drain_submits(self.drain_s), polls.drain(min(POLLS_S, self.drain_s))]
        if self.restarts or self._port_stays:
            waits.append(asyncio.sleep(LAST_REQUESTS_S))
        if not await self._unless_hastened(asyncio.gather(*waits)):
            await asyncio.gather(self._drain_submits(0), polls.drain(0))

    async def _unless_hastened(self, work: Awaitable[object]) -> bool:
        """Wait for this, but not once nothing is waited for any more; whether it came to its end."""
        working: asyncio.Future[Any] = asyncio.ensure_future(work)
        hastened: asyncio.Future[Any] = asyncio.ensure_future(self._hastened.wait())
        await asyncio.wait({working, hastened}, return_when=asyncio.FIRST_COMPLETED)
        hastened.cancel()
        if working.done():
            working.result()
            return True
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        return False

    async def _drain_submits(self, timeout_s: float) -> None:
        self._cut += await self._stages.submits.pool.drain(timeout_s)

    async def _close(self) -> int:
        """Stop listening, and let requests, deliveries and files come to their end; how many requests did not."""
        stages, files = self._stages, self._stages.keeping.captures
        self._listener.begin_drain()
        stages.cleaner.closing = True
        stages.waiters.release_all()
        stages.hub.close()
        await self._unless_hastened(self._ticker.stop())
        for loop in self.loops:
            loop.cancel()
        await asyncio.gather(*self.loops, return_exceptions=True)
        rest = [self._listener.stopped(), stages.sender.drain(self._delivery_s + RECORD_S)]
        if files is not None:
            rest.append(files.drain(FILES_S))
        if await self._unless_hastened(asyncio.gather(*rest)):
            return 0
        cut = self._listener.abort()
        await asyncio.gather(stages.sender.drain(0), *([files.drain(0)] if files is not None else []))
        await self._listener.stopped()
        return cut

    # -- telling -----------------------------------------------------------------------------------------------------

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            _log.info("stopping", **self._out())

    def _out(self) -> dict[str, int]:
        """What is waited for."""
        stages, files = self._stages, self._stages.keeping.captures
        out = {
            "submits": stages.submits.pool.out,
            "polls": stages.polls.pool.out,
            "deliveries": stages.sender.lanes.in_flight(),
            "files": files.out if files is not None else 0,
            "requests": len(self._listener.server_state.tasks),
        }
        return {what: count for what, count in out.items() if count}
