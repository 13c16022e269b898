"""The path benchmark: completed callback in, stored, signed event at a subscriber; in one run with what it is judged by.

The measured process has core 0 alone; load generator, provider and subscriber, one process of bare protocols, have the
other core. Measured are (a) Remora with VERIFY=trust and once more with fetch, (b) whole lifecycles (job taken,
submitted, called back, delivered), (c) a bare relay that stores nothing, (d) the obvious build, and what the load side does
without anybody in between. Callbacks come over 64 kept-alive connections, for all alike. Latency counts from the moment
at which a callback was due (open loop) to the last byte of the event's request; the most per second is a closed loop with
64 callbacks whose event has not come, the median of three rounds. Afterwards everything has to add up: each callback was
answered 200, each job has exactly one event, none was invented, and the database holds every row. Else it exits 1.

Run: `python -m benchmarks.path [--quick] [--json FILE] [--only a,c] [--profile a|b]`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from benchmarks.phases import Bench, Measured, middle
from benchmarks.report import RATES, Row, aims, as_json, machine, print_profile, stolen_s, table
from benchmarks.subject import Subject, pin
from benchmarks.targets import Plain, Remora, Subscriber, Target
from benchmarks.world import World

NAMES = {
    "ceiling": "the load side alone",
    "c": "(c) bare relay, stores nothing",
    "d": "(d) obvious build",
    "a": "(a) Remora, trust",
    "fetch": "(a) Remora, fetch",
    "b": "(b) Remora, whole lifecycles",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is sent."""

    rounds: int  # of each closed loop
    most: int  # callbacks of a round
    most_obvious: int  # of the slowest
    lifecycles: int  # of a round
    warm_up: int  # callbacks before the first measured one
    seconds: dict[int, float]  # of each open loop


FULL = Plan(rounds=3, most=5000, most_obvious=500, lifecycles=2500, warm_up=500, seconds={50: 10, 200: 8, 1000: 5})
QUICK = Plan(rounds=1, most=2000, most_obvious=200, lifecycles=1000, warm_up=100, seconds={50: 1, 200: 1, 1000: 1})


@dataclass(frozen=True, slots=True)
class Run:
    """One run: where its files are, on which core the measured process sits, and what did not add up."""

    directory: Path
    core: int | None
    plan: Plan
    problems: list[str]

    def options(self, *more: str) -> list[str]:
        """The arguments of a measured process."""
        return [*(("--core", str(self.core)) if self.core is not None else ()), *more]

    def fresh(self, name: str) -> Path:
        """An empty directory."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.directory))

    @asynccontextmanager
    async def subject(self, module: str, *options: str) -> AsyncIterator[Subject]:
        """A measured process, stopped in the end."""
        subject = await Subject.start(module, self.options(*options))
        try:
            yield subject
        finally:
            await subject.stop()

    @asynccontextmanager
    async def remora(self, world: World, verify: str, profile: Path | None = None) -> AsyncIterator[Remora]:
        """The service on an empty database; stopped and audited in the end."""
        target = await Remora.start(world, self.fresh(verify), verify, self.core, str(profile) if profile else None)
        try:
            yield target
        finally:
            status = await target.subject.stop()
        self.problems.extend([f"the service ended with {status}"] if status else [])
        self.problems.extend([f"database ({verify}): {problem}" for problem in target.audit()])


async def ceiling(run: Run) -> Row:
    """The load generator against its own subscriber: it sends, receives, answers and reads as in every other row."""
    async with World() as world:
        return await _callbacks("ceiling", run, Bench(world), Subscriber(world), run.plan.most)


async def relay(run: Run) -> Row:
    """(c)."""
    async with World() as world, run.subject("benchmarks.relay", "--subscriber", world.plain_url) as subject:
        return await _callbacks("c", run, Bench(world), Plain(subject), run.plan.most)


async def obvious(run: Run) -> Row:
    """(d)."""
    plan = run.plan
    jobs = plan.warm_up + plan.rounds * plan.most_obvious + sum(_counts(plan).values())
    database = run.fresh("obvious") / "obvious.db"
    async with World() as world:
        options = ("--subscriber", world.subscriber_url, "--database", str(database), "--jobs", str(jobs))
        async with run.subject("benchmarks.obvious", *options) as subject:
            return await _callbacks("d", run, Bench(world), Plain(subject), plan.most_obvious)


async def callbacks(run: Run, verify: str) -> Row:
    """(a)."""
    async with World() as world, run.remora(world, verify) as target:
        row = await _callbacks("a" if verify == "trust" else "fetch", run, Bench(world), target, run.plan.most)
        asked = len(target.jobs) if verify == "fetch" else 0
        if world.seen.fetches < asked or (not asked and world.seen.fetches):
            run.problems.append(
                f"{verify}: the provider was asked {world.seen.fetches} times for {len(target.jobs)} jobs"
            )
        return row


async def lifecycles(run: Run) -> Row:
    """(b)."""
    async with World() as world, run.remora(world, "trust") as target:
        bench = Bench(world)
        warm = await bench.lifecycles(target, run.plan.warm_up)
        rounds = [await bench.lifecycles(target, run.plan.lifecycles) for _ in range(run.plan.rounds)]
        return _row(run, Row("b", NAMES["b"], middle(rounds), {}), warm)


async def _callbacks(key: str, run: Run, bench: Bench, target: Target, most: int) -> Row:
    """Warm up, find the most, then every rate below it."""
    plan = run.plan
    warm = await bench.callbacks(target, plan.warm_up)
    found = middle([await bench.callbacks(target, most) for _ in range(plan.rounds)])
    held = {rate: count for rate, count in _counts(plan).items() if rate <= found.per_s}
    at = {rate: await bench.callbacks(target, count, rate) for rate, count in held.items()}
    return _row(run, Row(key, NAMES[key], found, at), warm)


def _counts(plan: Plan) -> dict[int, int]:
    return {rate: round(rate * plan.seconds[rate]) for rate in RATES if rate in plan.seconds}


def _row(run: Run, row: Row, warm: Measured) -> Row:
    run.problems.extend(row.problems() + [f"{row.name}, warming up: {problem}" for problem in warm.problems])
    latencies = ", ".join(f"{at.rate}/s: p99 {at.p99_ms:.1f} ms" for at in row.at.values())
    print(f"{row.name}: {row.most.per_s:,.0f}/s  {latencies}", file=sys.stderr, flush=True)
    return row


async def measure(run: Run, only: Sequence[str]) -> list[Row]:
    """All rows, or some."""
    ways: dict[str, Callable[[], Awaitable[Row]]] = {
        "ceiling": lambda: ceiling(run),
        "c": lambda: relay(run),
        "a": lambda: callbacks(run, "trust"),
        "fetch": lambda: callbacks(run, "fetch"),
        "b": lambda: lifecycles(run),
        "d": lambda: obvious(run),
    }
    return [await way() for key, way in ways.items() if key in only]


async def profiled(run: Run, what: str, out: Path) -> Measured:
    """The most per second of (a) or (b) with the profiler on, which makes it several times slower."""
    plan = run.plan
    async with World() as world, run.remora(world, "trust", out) as target:
        bench = Bench(world)
        if what == "a":
            await bench.callbacks(target, plan.warm_up)
            found = await bench.callbacks(target, plan.most, profile=True)
        else:
            await bench.lifecycles(target, plan.warm_up)
            found = await bench.lifecycles(target, plan.lifecycles, profile=True)
    run.problems.extend(found.problems)
    return found


def cores() -> tuple[int | None, int | None]:
    """The measured process's core and the load side's; none where there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        return cores[0], cores[-1]
    print("only one core: the load side takes from what is measured", file=sys.stderr)
    return None, None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a short run, for a first look")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--only", default=",".join(NAMES), help="some of " + ",".join(NAMES))
    parser.add_argument(
        "--profile", choices=("a", "b"), help="profile the service instead, under the most of (a) or (b)"
    )
    parser.add_argument("--directory", type=Path, help="where the databases are made; default: the temporary directory")
    given = parser.parse_args()
    given.only = given.only.split(",")
    if unknown := set(given.only) - set(NAMES):
        parser.error(f"--only: {', '.join(sorted(unknown))}: not one of {', '.join(NAMES)}")
    return given


def main() -> int:
    """Measure, print, and say by the exit status whether everything added up."""
    given = _arguments()
    core, own = cores()
    pin(own)
    with tempfile.TemporaryDirectory(prefix="remora-path-", dir=given.directory) as directory:
        run = Run(Path(directory), core, QUICK if given.quick else FULL, [])
        if given.profile:
            out = Path(tempfile.gettempdir()) / f"remora-path-{given.profile}-{os.getpid()}.prof"
            found = uvloop.run(profiled(run, given.profile, out))
            print_profile(out, found.count)
        else:
            _measured(run, given)
    for problem in run.problems:
        print(f"DOES NOT ADD UP: {problem}")
    if not run.problems:
        print("everything adds up: each callback answered, each job one event, none invented, every row written")
    return 1 if run.problems else 0


def _measured(run: Run, given: argparse.Namespace) -> None:
    facts = machine(run.directory)
    before = stolen_s()
    rows = uvloop.run(measure(run, given.only))
    facts["stolen by the host"] = f"{stolen_s() - before:.1f} s during the run"
    print("\n".join(f"{name}: {fact}" for name, fact in facts.items()), end="\n\n")
    print("\n".join(table(rows)), end="\n\n")
    print("\n".join(aims(rows)))
    if given.json is not None:
        given.json.write_text(json.dumps(as_json(facts, rows, run.problems), indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
