"""Looking a subscription up beside its change, in any order: what is found was committed meanwhile, and nothing older is kept."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.db.reader import Reader
from service.db.transaction import Params, Row, Tx
from service.db.writer import Command
from service.subscriptions.destinations import DestinationCache
from service.subscriptions.snapshots import Snapshot
from tests.deliveries.desk import OURS, Desk, desk

STEPS = ["find", "answer", "begin", "see", "commit", "break", "forget", "look"]


@dataclass(frozen=True, slots=True)
class Change(Command[None]):
    """Give the subscription another URL, in a transaction that waits twice."""

    url: str


class SlowReader:
    """Reads at once, and answers when told."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.has_read, self.answers = asyncio.Event(), asyncio.Event()

    async def row(self, sql: str, params: Params | None = None) -> Row | None:
        """See `Reader`."""
        found = await self._reader.row(sql, params)
        self.has_read.set()
        await self.answers.wait()
        return found

    async def rows(self, sql: str, params: Params | None = None) -> list[Row]:
        """See `Reader`."""
        return await self._reader.rows(sql, params)

    async def close(self) -> None:
        """See `Reader`."""


class History:
    """One subscription, changes of it one after the other, and any number of look-ups."""

    def __init__(self, at: Desk, subscription_id: str, url: str) -> None:
        self.at = at
        self.id = subscription_id
        self.committed = [url]
        self.finds: deque[tuple[asyncio.Task[Any], SlowReader, int]] = deque()
        self.change: asyncio.Task[None] | None = None
        self.reached = [asyncio.Event(), asyncio.Event()]
        self.goes_on = [asyncio.Event(), asyncio.Event()]
        self.breaks = False
        at.store.writer.handle(Change, self.handle)

    async def handle(self, tx: Tx, commands: Sequence[Change]) -> list[Exception | None]:
        """The writer's handler for `Change`: what follows in its transaction sees what it did."""
        for command in commands:
            tx.write("UPDATE subscriptions SET url = :url WHERE id = :id", [{"url": command.url, "id": self.id}])
            self.at.cache.changing(tx, OURS, [self.id])
            await self._pause(0)
            seen = (await self.at.cache.of(tx, {OURS}))[OURS]
            assert [each.url for each in seen.enabled.all] == [command.url]
            await self._pause(1)
            if self.breaks:
                msg = "this transaction is rolled back"
                raise RuntimeError(msg)
        return [None for _ in commands]

    async def _pause(self, point: int) -> None:
        self.reached[point].set()
        await self.goes_on[point].wait()

    async def step(self, name: str) -> None:
        """Take a step, where that makes sense now."""
        match name:
            case "find":
                await self._find()
            case "answer" if self.finds:
                await self._answer()
            case "begin" if self.change is None:
                for each in (*self.reached, *self.goes_on):
                    each.clear()
                change = Change(f"https://shop{len(self.committed)}.example/")
                self.change = asyncio.create_task(self.at.store.writer.run(change))
                await self.reached[0].wait()
            case "see" if self.change is not None:
                self.goes_on[0].set()
                await self.reached[1].wait()
            case "commit" | "break" if self.change is not None:
                await self._end(breaks=name == "break")
            case "forget":
                self.at.cache._grown, self.at.cache._limit = 1 << 40, 1
                self.at.cache._snapshots["acc_other"] = Snapshot(0)  # the latest one is kept
                self.at.cache._make_room()
                self.at.cache._limit = 1 << 40
            case "look" if self.change is None:
                assert [each.url for each in await self.at.look()] == self.committed[-1:]

    async def _find(self) -> None:
        reader = SlowReader(self.at.store.reader)
        found = asyncio.create_task(self.at.cache.find(reader, OURS, self.id))
        read = asyncio.create_task(reader.has_read.wait())
        await asyncio.wait({found, read}, return_when=asyncio.FIRST_COMPLETED)
        read.cancel()
        self.finds.append((found, reader, len(self.committed) - 1))

    async def _answer(self) -> None:
        task, reader, since = self.finds.popleft()
        reader.answers.set()
        found = await task
        assert found.url in self.committed[since:]

    async def _end(self, *, breaks: bool) -> None:
        assert self.change is not None
        self.breaks = breaks
        for each in self.goes_on:
            each.set()
        with contextlib.suppress(RuntimeError):
            await self.change
            self.committed.append(f"https://shop{len(self.committed)}.example/")
        self.change = None

    async def end(self) -> None:
        """Everything comes to its end, and what is found is what is committed."""
        await self.step("commit")
        while self.finds:
            await self._answer()
        await self._find()
        self.finds[0][1].answers.set()
        assert (await self.finds.popleft()[0]).url == self.committed[-1]
        await self.step("look")


async def run(steps: Iterable[str], caching: type[DestinationCache] = DestinationCache) -> None:
    """One history with a store of its own."""
    with tempfile.TemporaryDirectory() as directory:
        async with desk(Path(directory), caching=caching) as at:
            made = await at.make()
            history = History(at, made["id"], made["url"])
            try:
                for step in steps:
                    await history.step(step)
                await history.end()
            finally:
                await history.step("break")
                for task, reader, _ in history.finds:
                    reader.answers.set()
                    await task


@settings(max_examples=20, deadline=None)
@given(steps=st.lists(st.sampled_from(STEPS), max_size=20))
async def test_what_is_found_beside_a_change_is_committed(steps: list[str]) -> None:
    """However look-ups, changes, rolled back ones among them, and a cache that makes room follow each other."""
    await run(steps)


class OneVersion(DestinationCache):
    """Planted: that something changed while it was read is not seen."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._versions = repeat(1)  # type: ignore[assignment]


class OutdatesOnce(DestinationCache):
    """Planted: what the open transaction sees is shown to everybody."""

    def changing(self, tx: Tx, account_id: str, subscription_ids: Iterable[str]) -> None:
        self._snapshots[account_id] = self._outdated(account_id, frozenset(subscription_ids))


class ForgetsTheOpen(DestinationCache):
    """Planted: an account makes room while it is being changed."""

    def _make_room(self) -> None:
        if self._limit == 1:
            self._snapshots.clear()


class ForgetsRollback(DestinationCache):
    """Planted: what a transaction has seen stays when it is rolled back."""

    def changing(self, tx: Tx, account_id: str, subscription_ids: Iterable[str]) -> None:
        changed = frozenset(subscription_ids)
        self._snapshots[account_id] = self._outdated(account_id, changed)
        tx.after_commit(lambda: self._snapshots.update({account_id: self._outdated(account_id, changed)}))


PLANTED: list[tuple[type[DestinationCache], list[str]]] = [
    (OneVersion, ["find", "begin", "commit", "answer"]),
    (OutdatesOnce, ["begin", "see", "find", "answer", "break"]),
    (ForgetsTheOpen, ["begin", "forget", "see", "find", "answer", "break"]),
    (ForgetsRollback, ["begin", "see", "break"]),
]


@pytest.mark.parametrize(("caching", "steps"), PLANTED, ids=[each.__name__ for each, _ in PLANTED])
async def test_planted_fault_of_the_cache_is_seen(caching: type[DestinationCache], steps: list[str]) -> None:
    """Else the check would mean nothing; the same history passes without the fault."""
    await run(steps)
    with pytest.raises(AssertionError):
        await run(steps, caching)
