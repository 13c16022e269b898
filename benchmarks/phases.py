"""The measured phases of the path benchmark, and what has to add up after each."""

from __future__ import annotations

import asyncio
import gc
import time
from dataclasses import dataclass, replace
from signal import SIGUSR1, SIGUSR2
from typing import Self

from benchmarks.loadgen import Client, Send, Tally, closed_loop, open_loop, percentile
from benchmarks.subject import CPU, Subject
from benchmarks.targets import LIMIT_S, Remora, Target, watch
from benchmarks.world import World

IN_FLIGHT = 64  # callbacks of a closed loop whose event has not come
LIFECYCLES_IN_FLIGHT = 128  # jobs of a closed loop whose event has not come
PROVIDER_S = 0.02  # from the provider's answer to a submission to its callback


@dataclass(frozen=True, slots=True)
class Measured:
    """One phase. Latencies are from the scheduled send to the end of the event, in ms."""

    rate: int | None  # asked for per second; None: a closed loop
    count: int
    per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    answer_p99_ms: float  # until the callback itself was answered
    cpu_us: float  # processor time of the measured process for one message
    loop_busy: float  # share of a core: its main thread
    busy: float  # share of a core: all its threads
    load_busy: float  # share of a core: load generator, provider and subscriber
    problems: tuple[str, ...]


def middle(rounds: list[Measured]) -> Measured:
    """The round of the median rate, with the problems of all."""
    ranked = sorted(rounds, key=lambda each: each.per_s)
    problems = tuple(problem for each in rounds for problem in each.problems)
    return replace(ranked[len(ranked) // 2], problems=problems)


class Bench:
    """Runs phases against one world and one target; numbers are never used twice."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._next = 0

    def numbers(self, count: int) -> range:
        """Numbers that no message had before."""
        start, self._next = self._next, self._next + count
        return range(start, self._next)

    async def callbacks(
        self, target: Target, count: int, rate: int | None = None, *, profile: bool = False
    ) -> Measured:
        """Callback in, event out: at a fixed rate, or as many as go with `IN_FLIGHT` under way."""
        numbers, world = self.numbers(count), self.world
        async with Client(target.host, target.port) as client:
            ready = await target.requests(client, numbers)
            tally = Tally(count, target.expected)
            world.quiet()
            world.on_event = watch(world, tally, numbers)

            def send(index: int) -> None:
                client.send(ready[index], lambda status, _: tally.answered(index, status))

            with _Meter(target.subject, profile=profile) as meter:
                await _load(tally, send, rate, IN_FLIGHT)
        problems = _reconciled(tally) + self._strange(target, numbers)
        return meter.measured(tally, rate, problems)

    async def lifecycles(self, target: Remora, count: int, *, profile: bool = False) -> Measured:
        """Job in, submission out, callback in, event out: as many as go with `LIFECYCLES_IN_FLIGHT` under way."""
        numbers, world = self.numbers(count), self.world
        loop = asyncio.get_running_loop()
        heard: list[int] = []  # how callbacks were answered
        async with Client(target.host, target.port) as client, Client(target.host, target.port) as provider:
            tally = Tally(count, expected=202)
            jobs = [target.job(number) for number in numbers]

            def send(index: int) -> None:
                def done(status: int, body: bytes) -> None:
                    target.taken(numbers[index], status, body)
                    tally.answered(index, status)

                client.send(jobs[index], done)

            def call_back(number: int) -> None:
                provider.send(target.callback(number), lambda status, _: heard.append(status))

            world.on_submit = lambda number: void(loop.call_later(PROVIDER_S, call_back, number))
            world.on_event = watch(world, tally, numbers)
            with _Meter(target.subject, profile=profile) as meter:
                await _load(tally, send, None, LIFECYCLES_IN_FLIGHT)
        problems = _reconciled(tally) + self._strange(target, numbers)
        if heard != [200] * count:
            problems.append(f"{heard.count(200)} of {count} callbacks were answered 200")
        return meter.measured(tally, None, problems)

    def _strange(self, target: Target, numbers: range) -> list[str]:
        """What the world saw and should not have; forgotten afterwards."""
        seen = self.world.seen
        found = [*target.problems(numbers), *sorted(seen.problems)]
        if seen.strangers:
            found.append(f"{seen.strangers} messages came that nobody waited for")
        if seen.unsigned:
            found.append(f"{seen.unsigned} events came unsigned")
        seen.strangers = seen.unsigned = 0
        seen.problems.clear()
        return found


def void(_: object) -> None:
    """Take a value where a callback has to give none."""


async def _load(tally: Tally, send: Send, rate: int | None, in_flight: int) -> None:
    if rate is None:
        await closed_loop(tally, send, in_flight, LIMIT_S + tally.count / 100)
    else:
        await open_loop(tally, send, rate, LIMIT_S)


def _reconciled(tally: Tally) -> list[str]:
    found = []
    if tally.refused():
        others = sorted({str(status) for status in tally.status if status != tally.expected})
        found.append(f"{tally.refused()} of {tally.count} were not answered {tally.expected} but {', '.join(others)}")
    if tally.once() != tally.count:
        missing = tally.count - tally.once() - tally.more()
        found.append(f"of {tally.count} events {missing} never came and {tally.more()} came more than once")
    return found


class _Meter:
    """Processor time of both sides over a phase, and the profiler's switch."""

    def __init__(self, subject: Subject | None, *, profile: bool) -> None:
        self._subject = subject
        self._profile = profile

    def __enter__(self) -> Self:
        gc.collect()
        gc.disable()  # a pause of ours would be taken for one of theirs
        if self._profile and self._subject is not None:
            self._subject.signal(SIGUSR1)
        self._began = (time.perf_counter(), time.process_time(), self._cpu())
        return self

    def __exit__(self, *_: object) -> None:
        began_s, own_s, cpu = self._began
        self._passed_s = time.perf_counter() - began_s
        self._own_s = time.process_time() - own_s
        self._spent = self._cpu() - cpu
        gc.enable()
        if self._profile and self._subject is not None:
            self._subject.signal(SIGUSR2)

    def _cpu(self) -> CPU:
        return self._subject.cpu() if self._subject is not None else CPU(0.0, 0.0)

    def measured(self, tally: Tally, rate: int | None, problems: list[str]) -> Measured:
        arrived_ms, answered_ms = (
            [1000 * percentile(times, share) for share in (0.5, 0.95, 0.99)]
            for times in (tally.arrived_s, tally.answered_s)
        )
        return Measured(
            rate=rate,
            count=tally.count,
            per_s=tally.per_s(),
            p50_ms=arrived_ms[0],
            p95_ms=arrived_ms[1],
            p99_ms=arrived_ms[2],
            max_ms=1000 * max(tally.arrived_s),
            answer_p99_ms=answered_ms[2],
            cpu_us=1e6 * self._spent.all_s / tally.count,
            loop_busy=self._spent.loop_s / self._passed_s,
            busy=self._spent.all_s / self._passed_s,
            load_busy=self._own_s / self._passed_s,
            problems=tuple(problems),
        )
