"""What polling by learned durations costs: polls per job against the mean delay until the end is seen, by simulation.

Run: python -m benchmarks.polling. Seeded, no clock, about a minute. The service's own `Learned` plans the polls and
learns from what its polls see, an interval per job and not the true moment. Beside it stand fixed two-second polling and
the optimum for the true spread of durations under the same floor of two seconds, computed here by dynamic programming
over a fine grid: the bound one keeps what the service promises (two cadences and a fifth of the age from the quickest
of thirty tasks on, and one poll before for tasks that become twice as fast), the free one promises nothing. What stands
between the two is what the promise costs.

Aims: the cost (polls times their price, plus delay) within 10 % of the bound optimum after 200 jobs; for durations
uniform in 30 to 120 s, 0.68 of the fixed polls at the same delay and 0.32 at twice (0.33 since the promise is kept, which
costs the optimum nothing there); a stuck job under 200 polls in seven days; when all durations change at once, one in a hundred of the next jobs found later than promised, at most.
"""

from __future__ import annotations

import math
import random
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from service.polling.durations import Learned, TaskKind
from service.polling.pace import Rules, first_poll_ms, next_poll_ms
from service.polling.plan import POLL_PRICE_MS

FLOOR_S = 2.0
GRID_S = 0.5  # of the optimum's ages
QUICKEST = 1 / 30  # share of tasks that the promise may take as quicker than all
CHANGES = (0.5, 3.0, 10.0)  # factors by which all durations change at once
PRICES_S = (0.1, POLL_PRICE_MS / 1000, 0.5, 1.0, 3.0)  # seconds of delay that a poll is worth
SWEEP_S = (0.002, 0.01, 0.03, 0.06, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.5)  # prices for the comparison at equal delay
SEEDS = 10
WARM_UP = 200  # jobs before counting
COUNTED = 300  # jobs
DRIFT_JOBS = 1_200
KIND = TaskKind("sharkapi", "generate", "sparkpix")
WEEK_MS = 7 * 86_400_000

Draw = Callable[[random.Random], float]
Share = Callable[[float], float]


@dataclass(frozen=True)
class Spread:
    """Durations in s: one drawn, the share that ends by an age, and an age by which all have ended."""

    name: str
    draw: Draw
    ended: Share
    end_s: float


def uniform(low: float, high: float) -> Spread:
    name = f"uniform {low:.0f}-{high:.0f} s"
    return Spread(name, lambda r: r.uniform(low, high), lambda t: min(1, max(0, (t - low) / (high - low))), high + 2)


def lognormal(median: float, sigma: float) -> Spread:
    def ended(t: float) -> float:
        return 0.5 * (1 + math.erf(math.log(t / median) / sigma / math.sqrt(2))) if t > 0 else 0.0

    return Spread(
        f"log-normal {median:.0f} s, sigma {sigma}",
        lambda r: median * math.exp(sigma * r.gauss(0, 1)),
        ended,
        median * math.exp(4.5 * sigma),
    )


def two_humps(one: Spread, share: float, other: Spread) -> Spread:
    return Spread(
        "two-humped 25 s (60 %), 120 s",
        lambda r: one.draw(r) if r.random() < share else other.draw(r),
        lambda t: share * one.ended(t) + (1 - share) * other.ended(t),
        max(one.end_s, other.end_s),
    )


SPREADS = (
    uniform(30, 120),
    lognormal(60, 0.5),
    two_humps(lognormal(25, 0.15), 0.6, lognormal(120, 0.15)),
    lognormal(60, 0.05),
)


@lru_cache
def quickest_s(spread: Spread) -> float:
    """The age from which on the promise holds."""
    return next(age / 10 for age in range(round(spread.end_s * 10)) if spread.ended(age / 10) >= QUICKEST)


def latest_s(spread: Spread, running_s: float) -> float:
    """When a task has to be asked for again by the promise."""
    quickest = quickest_s(spread)
    probe = promised_s(quickest / 2)
    if running_s < quickest / 2:
        return probe
    return promised_s(quickest if probe - GRID_S < running_s < quickest else running_s)


def promised_s(duration_s: float) -> float:
    """The age by which a task is found that takes so long."""
    return 1.2 * duration_s + 2 * FLOOR_S


@dataclass
class Score:
    """What jobs cost; the delay in s."""

    jobs: int = 0
    polls: float = 0.0
    delay: float = 0.0

    def add(self, polls: float, delay: float) -> None:
        self.jobs += 1
        self.polls += polls
        self.delay += delay

    @property
    def each(self) -> tuple[float, float]:
        return self.polls / self.jobs, self.delay / self.jobs

    def cost(self, price_s: float) -> float:
        polls, delay = self.each
        return polls * price_s + delay


def rules() -> Rules:
    return Rules(can_poll=True, poll_every_ms=round(FLOOR_S * 1000), typical_ms=120_000)


def job(learned: Learned, base: Rules, duration_s: float) -> tuple[int, float]:
    """One job from submission to the poll that sees its end: polls, and the delay in s. Taught as the service would."""
    done_ms, age_ms, running_ms, polls = duration_s * 1000, 0, 0, 0
    wait_ms = first_poll_ms(learned.rules(KIND, base))
    while True:
        age_ms += wait_ms
        polls += 1
        if age_ms >= done_ms:
            learned.record(KIND, base, running_ms, age_ms)
            return polls, (age_ms - done_ms) / 1000
        running_ms = age_ms
        wait_ms = next_poll_ms(learned.rules(KIND, base), age_ms)


def learning(spread: Spread, price_s: float, warm_up: int = WARM_UP, counted: int = COUNTED) -> Score:
    score = Score()
    for seed in range(SEEDS):
        randomness, learned, base = random.Random(seed), Learned(price_ms=price_s * 1000), rules()
        for number in range(warm_up + counted):
            cost = job(learned, base, spread.draw(randomness))
            if number >= warm_up:
                score.add(*cost)
    return score


def optimum(spread: Spread, price_s: float, step_s: float = GRID_S, *, bound: bool = False) -> list[float]:
    """The ages to poll at, for a known spread: the best of all paths over a grid, backwards from its end."""
    count = math.ceil(spread.end_s / step_s)
    ended = [spread.ended(at * step_s) for at in range(count)] + [1.0]
    waited = [0.0]
    for one, other in pairwise(ended):
        waited.append(waited[-1] + step_s * (one + other) / 2)
    floor = math.ceil(FLOOR_S / step_s)
    cost, following = [0.0] * (count + 1), [count] * (count + 1)
    for here in range(count - 1, -1, -1):
        least = math.inf
        latest = latest_s(spread, here * step_s) / step_s if bound else count
        for then in range(min(count, here + floor), min(count, max(here + floor, int(latest))) + 1):
            paid = price_s * (1 - ended[here]) + waited[then] - waited[here] - (then - here) * step_s * ended[here]
            if paid > least:
                break  # waiting longer only adds to the delay
            if paid + cost[then] < least:
                least, following[here] = paid + cost[then], then
        cost[here] = least
    path, here = [], 0
    while here < count:
        here = following[here]
        path.append(here * step_s)
    return path


def followed(path: list[float], spread: Spread, jobs: int = 20_000) -> Score:
    """What a fixed list of ages costs."""
    randomness, score = random.Random(7), Score()
    for _ in range(jobs):
        duration = spread.draw(randomness)
        at = min(bisect_left(path, duration), len(path) - 1)
        score.add(at + 1, max(0.0, path[at] - duration))
    return score


def fixed(spread: Spread) -> Score:
    return followed([FLOOR_S * number for number in range(1, 2_000)], spread)


def by_price() -> None:
    print(f"Polls per job and mean delay in s, jobs {WARM_UP + 1} to {WARM_UP + COUNTED} of {SEEDS} runs")
    print(
        f"{'durations':28} {'a poll is':>10} {'learned':>14} {'bound optimum':>14} {'free optimum':>14} {'cost, of them':>15}"
    )
    for spread in SPREADS:
        polls, delay = fixed(spread).each
        print(f"{spread.name:28} {'fixed 2 s':>10} {polls:7.2f} {delay:6.2f}")
        for price_s in PRICES_S:
            ours = learning(spread, price_s)
            bests = [followed(optimum(spread, price_s, bound=bound), spread) for bound in (True, False)]
            mark = "*" if price_s * 1000 == POLL_PRICE_MS else " "
            figures = " ".join(
                f"{polls:7.2f} {delay:6.2f}" for polls, delay in (ours.each, *(best.each for best in bests))
            )
            ratios = " ".join(f"{ours.cost(price_s) / best.cost(price_s):7.3f}" for best in bests)
            print(f"{'':28} {price_s:7.2f} s{mark} {figures} {ratios}")


def at_delay(scores: list[Score], delay_s: float) -> float:
    """Polls per job at a mean delay, between the two prices nearest to it; nan beyond the prices."""
    points = sorted((each.each[1], each.each[0]) for each in scores)
    for (low, more), (high, fewer) in pairwise(points):
        if low <= delay_s <= high and high > low:
            part = math.log(delay_s / low) / math.log(high / low)
            return math.exp(math.log(more) + part * (math.log(fewer) - math.log(more)))
    return math.nan


def by_delay() -> None:
    print("\nPolls as a share of those of fixed two-second polling, by the mean delay as a multiple of its one")
    print(f"{'durations':28} {'':>10} " + "".join(f"{times:>8.1f}x" for times in (1.1, 1.5, 2, 3, 4)))
    for spread in SPREADS[:3]:
        polls, delay = fixed(spread).each
        ours = [learning(spread, price_s) for price_s in SWEEP_S]
        bound = [followed(optimum(spread, price_s, bound=True), spread, 5_000) for price_s in SWEEP_S]
        best = [followed(optimum(spread, price_s), spread, 5_000) for price_s in SWEEP_S]
        print(f"{spread.name:28} dearest {ours[0].each[0] / polls:.2f} at {ours[0].each[1] / delay:.2f}x, "
              f"free optimum {best[0].each[0] / polls:.2f} at {best[0].each[1] / delay:.2f}x")  # fmt: skip
        for name, scores in (("learned", ours), ("bound", bound), ("free", best)):
            shares = [at_delay(scores, delay * times) / polls for times in (1.1, 1.5, 2, 3, 4)]
            print(f"{'':28} {name:>10} " + "".join(f"{share:9.2f}" for share in shares))


def drifts() -> dict[str, Callable[[int], float]]:
    """The median in s, by the number of the job."""
    ramp = 60 / (DRIFT_JOBS - WARM_UP)
    return {
        "30 s rising to 90 s": lambda n: 30 + ramp * max(0, n - WARM_UP),
        "90 s falling to 30 s": lambda n: 90 - ramp * max(0, n - WARM_UP),
        "30 s, then at once 60 s": lambda n: 30 if n < DRIFT_JOBS // 2 else 60,
        "60 s, then at once 30 s": lambda n: 60 if n < DRIFT_JOBS // 2 else 30,
    }


@lru_cache
def _optimum_at(median: float, price_s: float, *, bound: bool) -> Score:
    spread = lognormal(median, 0.3)
    return followed(optimum(spread, price_s, bound=bound), spread, 5_000)


def drifting(price_s: float = POLL_PRICE_MS / 1000) -> None:
    print(f"\nDrifting: log-normal, sigma 0.3, over {DRIFT_JOBS} jobs; the optima know every job's own median")
    for name, median in drifts().items():
        scores = {"learned": Score(), "bound": Score(), "free": Score()}
        for seed in range(SEEDS // 2):
            randomness, learned, base = random.Random(seed), Learned(price_ms=price_s * 1000), rules()
            for number in range(DRIFT_JOBS):
                cost = job(learned, base, lognormal(median(number), 0.3).draw(randomness))
                if number >= WARM_UP:
                    near = round(median(number) / 3) * 3
                    scores["learned"].add(*cost)
                    scores["bound"].add(*_optimum_at(near, price_s, bound=True).each)
                    scores["free"].add(*_optimum_at(near, price_s, bound=False).each)
        ours = scores["learned"].cost(price_s)
        figures = " ".join(f"{polls:7.2f} {delay:6.2f}" for polls, delay in (score.each for score in scores.values()))
        ratios = " ".join(f"{ours / scores[which].cost(price_s):7.3f}" for which in ("bound", "free"))
        print(f"{name:28} {price_s:7.2f} s* {figures} {ratios}")


def changes() -> None:
    """Oracle: the promise, whatever plan the service made."""
    print(
        f"\nAll durations change at once after {WARM_UP} jobs: of the next 100 of {SEEDS} runs, found later than promised"
    )
    for spread in SPREADS:
        parts = []
        for times in CHANGES:
            late, worst, score = 0, 0.0, Score()
            for seed in range(SEEDS):
                randomness, learned, base = random.Random(seed), Learned(), rules()
                for _ in range(WARM_UP):
                    job(learned, base, spread.draw(randomness))
                for _ in range(100):
                    duration = times * spread.draw(randomness)
                    polls, delay = job(learned, base, duration)
                    score.add(polls, delay)
                    late += duration + delay > promised_s(duration)
                    worst = max(worst, delay / duration)
            parts.append(f"x{times:g}: {100 * late / score.jobs:4.1f} % (worst delay {worst:.2f} of its age)")
        print(f"{spread.name:28} " + "   ".join(parts))


def beginnings(price_s: float = POLL_PRICE_MS / 1000) -> None:
    print("\nWhile learning: polls, delay in s, and the cost as a multiple of the bound optimum's")
    for spread in SPREADS[:3]:
        best = followed(optimum(spread, price_s, bound=True), spread).cost(price_s)
        parts = []
        for begin, end in ((0, 10), (10, 50), (50, 200)):
            score = learning(spread, price_s, warm_up=begin, counted=end - begin)
            parts.append(
                f"jobs {begin + 1}-{end}: {score.each[0]:.1f} {score.each[1]:.1f} {score.cost(price_s) / best:.2f}"
            )
        print(f"{spread.name:28} " + "   ".join(parts))


def stuck() -> None:
    print("\nPolls of a job that never ends, in seven days (fixed 2 s: 302,400)")
    for spread in (None, *SPREADS):
        learned, base, randomness = Learned(), rules(), random.Random(1)
        for _ in range(WARM_UP if spread else 0):
            job(learned, base, spread.draw(randomness))  # type: ignore[union-attr]
        age_ms, polls = first_poll_ms(learned.rules(KIND, base)), 1
        while age_ms < WEEK_MS:
            age_ms += next_poll_ms(learned.rules(KIND, base), age_ms, randomness.uniform(0.8, 1.2))
            polls += 1
        print(f"{spread.name if spread else 'nothing learned':28} {polls:5}")


def calls() -> None:
    """What the service pays."""
    learned, base, randomness = Learned(), rules(), random.Random(1)
    spread, rounds = SPREADS[1], 2_000
    for _ in range(WARM_UP):
        job(learned, base, spread.draw(randomness))
    seen = [(round(age * 950), round(age * 1050)) for age in (spread.draw(randomness) for _ in range(rounds))]
    began = time.perf_counter()
    for running_ms, done_ms in seen:
        learned.record(KIND, base, running_ms, done_ms)
    recorded = time.perf_counter()
    learned.rules(KIND, base)
    planned = time.perf_counter()
    for _ in range(rounds):
        next_poll_ms(learned.rules(KIND, base), 60_000)
    asked = time.perf_counter()
    print(
        f"\nrecord {1e6 * (recorded - began) / rounds:.1f} µs, ask {1e6 * (asked - planned) / rounds:.1f} µs; "
        f"a plan {1e3 * (planned - recorded):.2f} ms, once in 25 records of a kind"
    )


def main() -> None:
    began = time.perf_counter()
    by_price()
    by_delay()
    drifting()
    changes()
    beginnings()
    stuck()
    calls()
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
