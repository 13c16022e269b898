"""Destinations side by side, good and bad, before the production code under a virtual clock: how long good ones wait.

Time goes from one thing that happens to the next, and the store has no threads, so that a seed has one course.

Run: `python -m tests.deliveries.neighbours [--seeds 100] [--first 0]`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import heapq
import logging
import random
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from service.clock import VirtualClock
from service.deliveries.lanes.quota import SOCKETS
from service.deliveries.send import Sender
from service.egress import Answer
from service.errors import EgressCut, EgressNotSent
from service.schemas.subscription_schemas import SubscriptionRequest
from tests.deliveries.desk import OURS, THEIRS, Desk, Publish, desk
from tests.deliveries.outage import sender_of

SHOP = "https://shop.example"
TICK_S = 0.5  # as in production
TIMEOUT_S = 15.0

#: After how many seconds a request ends, and how: a status, or no answer at all; by the seconds since the beginning.
Behaviour = Callable[[float], tuple[float, int | Exception]]


def _refused() -> Exception:
    return EgressNotSent("connect_refused", "it is down")


def _timeout() -> Exception:
    return EgressCut("timeout", "no answer in time")


WELL: Behaviour = lambda _: (0.02, 204)  # noqa: E731 - a table of behaviours
BEHAVIOURS: Mapping[str, Behaviour] = {
    "slow": lambda _: (3.0, 204),
    "sluggish": lambda _: (0.9, 204),
    "hanging": lambda _: (TIMEOUT_S, _timeout()),
    "dead": lambda _: (0.001, _refused()),
    "not found": lambda _: (0.01, 404),
    "broken": lambda _: (0.01, 500),
    "limited": lambda _: (0.01, 429),
    "unavailable": lambda _: (0.01, 503),
    "gone": lambda _: (0.01, 410),
    "comes and goes": lambda now: (0.01, 204) if now % 40 < 20 else (TIMEOUT_S, _timeout()),
}


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One destination and what is sent to it.

    Args:
        url: Where it is.
        behaviour: How it answers.
        every_s: Between two bursts of events; 0 for none.
        burst: Events at once.
        backlog: Events at the beginning.
        account_id: Whose it is.
        since_s: When the first event comes.
        standing: It is a subscription, and no callback_url.
        unique: Each event has a path of its own below the URL.
    """

    url: str
    behaviour: Behaviour = WELL
    every_s: float = 1.0
    burst: int = 1
    backlog: int = 0
    account_id: str = OURS
    since_s: float = 0.0
    standing: bool = False
    unique: bool = False


@dataclass(slots=True)
class Web:
    """Answers as each destination does; `Retry-After` goes along with whatever is no success."""

    clock: VirtualClock
    began_s: float
    by_url: dict[str, Neighbour] = field(default_factory=dict)
    arrived: dict[str, float] = field(default_factory=dict)  # by event, in seconds since the beginning
    asked: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    out: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))  # by host
    peak: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def now_s(self) -> float:
        """Seconds since the beginning."""
        return self.clock.monotonic() - self.began_s

    async def deliver(
        self, url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float, read_bytes: int
    ) -> Answer:
        """A destination is asked."""
        neighbour = self.by_url.get(url) or self.by_url[url.rpartition("/")[0]]
        host = url.split("/")[2]
        self.asked[neighbour.url] += 1
        self.out[host] += 1
        self.peak[host] = max(self.peak[host], self.out[host])
        takes_s, said = neighbour.behaviour(self.now_s())
        await self.clock.sleep(takes_s)
        self.out[host] -= 1
        if isinstance(said, Exception):
            raise said
        if said < 300:
            self.arrived.setdefault(headers["webhook-id"], self.now_s())
        return Answer(said, {} if said < 300 else {"retry-after": "3600"}, b"", truncated=False, duration_ms=1)

    async def check(self, url: str, *, unresolved_ok: bool = False) -> None:
        """Every URL may be reached."""


@dataclass(slots=True)
class Street:
    """What a test drives."""

    desk: Desk
    web: Web
    sender: Sender
    published: defaultdict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))  # by URL and event

    async def run(self, neighbours: Sequence[Neighbour], seconds: float) -> None:
        """So much time passes; what was published at its end has time to arrive."""
        tags = {}
        for number, each in enumerate(neighbours):
            self.web.by_url[each.url] = each
            if each.standing:
                tags[each.url] = f"n{number}"
                asked = SubscriptionRequest.read({"url": each.url, "tags": [tags[each.url]]})
                await self.desk.subscribe.create(each.account_id, asked)
        due = [(each.since_s, 0, number) for number, each in enumerate(neighbours)]
        heapq.heapify(due)
        ticks, clock = 0, self.desk.clock
        while self.web.now_s() < seconds + 5:
            while due and due[0][0] <= self.web.now_s() < seconds:
                at, nth, number = heapq.heappop(due)
                each = neighbours[number]
                count = each.burst if nth else each.backlog + (each.burst if each.every_s else 0)
                await self._publish(each, count, tags.get(each.url))
                if each.every_s:
                    heapq.heappush(due, (at + each.every_s, nth + 1, number))
            if self.web.now_s() >= ticks * TICK_S:
                ticks += 1
                await self.sender.run_once()
            await settled()
            moments = [ticks * TICK_S, *(at - self.web.began_s for at, _ in clock._sleepers)]
            wait_s = min(moments + [due[0][0]] * bool(due)) - self.web.now_s()
            clock.advance(max(wait_s, 0.001))

    async def _publish(self, each: Neighbour, count: int, tag: str | None) -> None:
        for _ in range(count):
            url = None if each.standing else f"{each.url}?n={len(self.published[each.url])}"
            if each.unique:
                url = f"{each.url}/{len(self.published[each.url])}"
            command = Publish(each.account_id, tags=frozenset({tag} if tag else ()), callback_url=url)
            event_id = await self.desk.store.writer.run(command)
            self.published[each.url][event_id] = self.web.now_s()
            if url is not None and not each.unique:
                self.web.by_url[url] = each

    def p95_s(self, urls: Iterable[str]) -> float:
        """How long events took until they had arrived there, one in twenty left out; what did not arrive took for ever."""
        waits = sorted(
            self.web.arrived.get(event, float("inf")) - at for url in urls for event, at in self.published[url].items()
        )
        return waits[int(0.95 * (len(waits) - 1))]


async def settled() -> None:
    """Until nothing goes on without time going on."""
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]  # what asyncio's own loop does next
    while ready:  # noqa: ASYNC110 - nothing else tells that nothing is left
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def street(directory: Path, *, sockets: int = SOCKETS) -> AsyncIterator[Street]:
    """A process that has nobody to send to yet."""
    directory.mkdir(exist_ok=True)  # noqa: ASYNC240 - a test
    async with desk(directory, inline=True) as at:
        web = Web(at.clock, at.clock.monotonic())
        at.subscribe = replace(at.subscribe, egress=web)  # type: ignore[arg-type]  # it is only asked whether a URL will do
        sender, at.fanout = sender_of(at, web, sockets=sockets)
        await sender.start()
        try:
            yield Street(at, web, sender)
        finally:
            await sender.drain(0)


async def p95s(
    directory: Path, good: Sequence[Neighbour], bad: Sequence[Neighbour] = (), *, seconds: float, sockets: int = SOCKETS
) -> list[float]:
    """The 95th percentile of each of the good ones beside the bad ones, in seconds."""
    async with street(directory, sockets=sockets) as made:
        await made.run([*bad, *good], seconds)
        assert max(made.web.peak.values()) <= 2 * 628  # of two accounts
        return [made.p95_s([each.url]) for each in good]


def mixture(seed: int) -> tuple[list[Neighbour], list[Neighbour]]:
    """Good ones of every kind, and arbitrary bad ones that begin when the good ones are known."""
    chance = random.Random(seed)
    good = [
        Neighbour(f"{SHOP}/live"),
        Neighbour(f"{SHOP}/burst", every_s=7, burst=chance.choice([5, 25])),
        Neighbour(f"{SHOP}/job", unique=True, every_s=chance.choice([0.3, 1])),
        Neighbour("https://well.example/hook", standing=True, every_s=0.5),
        Neighbour(f"{SHOP}/theirs", account_id=THEIRS, every_s=0.5),
    ]
    return good, [_bad(chance, number) for number in range(chance.choice([4, 8, 12, 40]))]


def _bad(chance: random.Random, number: int) -> Neighbour:
    name = chance.choice(list(BEHAVIOURS))
    unique = chance.random() < 0.3
    # Of new paths that hang an origin has dozens out at once and no more; beyond, new ones wait for them.
    hangs = unique and name in {"hanging", "comes and goes", "slow"}
    return Neighbour(
        f"{chance.choice([SHOP, SHOP, SHOP, 'https://bad.example'])}/{number}-{name.replace(' ', '-')}",
        BEHAVIOURS[name],
        every_s=chance.choice([3, 6] if hangs else [0.5, 1, 3]),
        burst=1 if hangs else chance.choice([1, 1, 5]),
        backlog=chance.choice([0, 0, 10] if hangs else [0, 0, 0, 20, 300, 2_000]),
        account_id=chance.choice([OURS, OURS, THEIRS]),
        since_s=5,
        standing=not unique and chance.random() < 0.3,
        unique=unique,
    )


def hold(alone: Sequence[float], beside: Sequence[float]) -> bool:
    """Whether bad ones changed the good ones' percentiles by less than a quarter, and left them below a second."""
    return all(b <= max(1.25 * a, a + 0.001) and b < 1 for a, b in zip(alone, beside, strict=True))


async def _many(seeds: range) -> int:
    failed = 0
    for seed in seeds:
        good, bad = mixture(seed)
        with tempfile.TemporaryDirectory(prefix="remora-neighbours-") as directory:
            alone = await p95s(Path(directory) / "alone", good, seconds=40)
            beside = await p95s(Path(directory) / "beside", good, bad, seconds=40)
        failed += not hold(alone, beside)
        told = " ".join(f"{1000 * each:.0f}" for each in beside)
        sys.stdout.write(f"{seed}: {len(bad)} bad; p95 in ms {told}{'' if hold(alone, beside) else ' DOES NOT HOLD'}\n")
    return failed


def main() -> int:
    """Try many mixtures; the exit status says whether all held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    return min(1, asyncio.run(_many(range(asked.first, asked.first + asked.seeds))))


if __name__ == "__main__":
    sys.exit(main())
