"""What the path benchmark prints: the machine, the table with its ratios, the aims, and the profile."""

from __future__ import annotations

import os
import platform
import pstats
import sqlite3
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.phases import Measured

RATES = (50, 200, 1000)  # a second, of the open loops
_LIBRARIES = ("uvicorn", "uvloop", "httptools", "litestar", "aiohttp", "aiosqlite", "sqlmodel", "httpx")


@dataclass(frozen=True, slots=True)
class Row:
    """One target: the most it does, and its latency at each rate that it can hold."""

    key: str
    name: str
    most: Measured
    at: dict[int, Measured]

    def problems(self) -> list[str]:
        """Whatever did not add up, with the phase."""
        phases = {"most": self.most, **{f"{rate}/s": each for rate, each in self.at.items()}}
        return [f"{self.name}, {phase}: {text}" for phase, each in phases.items() for text in each.problems]


def machine(directory: Path) -> dict[str, str]:
    """What the figures depend on."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), "unknown")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": f"{model}, {os.cpu_count()} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "file system": f"{_file_system(directory)}; fsync of 4 KiB takes {_fsync_us(directory):,.0f} µs",
        "libraries": ", ".join(f"{name} {version(name)}" for name in _LIBRARIES),
    }


def _file_system(directory: Path) -> str:
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    over = [(point, kind) for point, kind in mounts if directory.resolve().is_relative_to(point)]
    return max(over, key=lambda mount: len(mount[0]))[1] if over else "unknown"


def _fsync_us(directory: Path) -> float:
    """The median of a hundred, since durable commits cannot be quicker."""
    path = directory / "fsync"
    taken = []
    with path.open("wb", buffering=0) as file:
        for _ in range(100):
            file.write(b"x" * 4096)
            began = time.perf_counter()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - began)
    path.unlink()
    return 1e6 * statistics.median(taken)


def stolen_s() -> float:
    """Seconds that the host has taken from this machine so far."""
    return int(Path("/proc/stat").read_text().split()[8]) / os.sysconf("SC_CLK_TCK")


def table(rows: list[Row]) -> Iterator[str]:
    """The figures as a Markdown table; ratios are to the bare relay of the same run."""
    relay = next((row.most.per_s for row in rows if row.key == "c"), None)
    rates = " | ".join(f"at {rate:,}/s, ms" for rate in RATES)
    yield f"| | most/s | of (c) | CPU µs each | loop, all threads, load side | {rates} |"
    yield "|---|" + "---|" * (4 + len(RATES))
    for row in rows:
        most = row.most
        share = f"{most.per_s / relay:.0%}" if relay and row.key != "ceiling" else ""
        cells = [
            row.name,
            f"{most.per_s:,.0f}",
            share,
            f"{most.cpu_us:,.0f}" if most.cpu_us else "",
            f"{most.loop_busy:.0%}, {most.busy:.0%}, {most.load_busy:.0%}",
            *(_latency(row, rate) for rate in RATES),
        ]
        yield f"| {' | '.join(cells)} |"


def _latency(row: Row, rate: int) -> str:
    if row.key == "b":
        return ""
    if rate not in row.at:
        return "more than it can"
    at = row.at[rate]
    return f"{at.p50_ms:.1f} / {at.p95_ms:.1f} / {at.p99_ms:.1f}"


def aims(rows: list[Row]) -> Iterator[str]:
    """Whether the aims hold that the table makes it possible to judge."""
    by_key = {row.key: row for row in rows}
    if {"a", "c"} <= by_key.keys():
        share = by_key["a"].most.per_s / by_key["c"].most.per_s
        yield aim("(a) at least half of (c)", f"{share:.0%}", holds=share >= 0.5)
    if "a" in by_key and 200 in by_key["a"].at:
        p95 = by_key["a"].at[200].p95_ms
        yield aim("(a) p95 under 20 ms at 200/s", f"{p95:.1f} ms", holds=p95 < 20)
    if {"a", "b"} <= by_key.keys():
        share = by_key["b"].most.per_s / by_key["a"].most.per_s
        yield aim("(b) at least a quarter of (a)", f"{share:.0%}", holds=share >= 0.25)


def aim(wanted: str, found: str, *, holds: bool) -> str:
    """One line: what was wanted, what was found, and whether that is enough."""
    return f"{'holds ' if holds else 'MISSED'}  {wanted}: {found}"


def as_json(facts: dict[str, str], rows: list[Row], problems: list[str]) -> dict[str, Any]:
    """Everything, for a file."""
    told = [
        {
            "key": row.key,
            "name": row.name,
            "most": asdict(row.most),
            "at": {str(r): asdict(m) for r, m in row.at.items()},
        }
        for row in rows
    ]
    return {"machine": facts, "rows": told, "problems": problems}


def print_profile(path: Path, count: int) -> None:
    """The thirty functions in which the loop's thread spent most of its own time, and whose they are."""
    stats = pstats.Stats(str(path))
    shares = _shares(stats)
    whole = sum(shares.values())
    stats.strip_dirs().sort_stats("tottime").print_stats(30)
    for owner, spent in shares.most_common(20):
        print(f"{owner:24} {spent / whole:6.1%}  {1e6 * spent / count:6.0f} µs each, profiled")
    print(f"processor time of the loop's thread over {count} messages; the raw profile is in {path}")


def _shares(stats: pstats.Stats) -> Counter[str]:
    """Own time by package; a built-in's time belongs to whoever called it."""
    shares: Counter[str] = Counter()
    for (file, _, _), (_, _, own_s, _, callers) in stats.stats.items():  # type: ignore[attr-defined]
        if file != "~" or not callers:
            shares[_owner(file)] += own_s
            continue
        for (caller, _, _), (_, _, part_s, _) in callers.items():
            shares[_owner(caller)] += part_s
    return shares


def _owner(file: str) -> str:
    """`service/jobs`, a library's name, or the standard library."""
    parts = Path(file).parts
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1]
    if "service" in parts:
        return "/".join(parts[parts.index("service") :][:2])
    return "built in" if file == "~" else "standard library"
