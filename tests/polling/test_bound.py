"""How late the end of a task is seen at the worst, whatever was learned before: planned polls leave no hole."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.polling.durations import Learned, TaskKind
from service.polling.pace import Rules, first_poll_ms, next_poll_ms

KIND = TaskKind("sharkapi", "generate", "sparkpix")
WEEK_MS = 7 * 86_400_000
HOUR_MS = 3_600_000
LATEST = 30  # tasks whose quickest says where tasks begin to end


def card(poll_every_ms: int, typical_ms: int) -> Rules:
    return Rules(can_poll=True, poll_every_ms=poll_every_ms, typical_ms=typical_ms)


def waits(learned: Learned, base: Rules, spread: float = 1.0) -> Iterator[tuple[int, int]]:
    """The ages between which nobody asks for a task that does not end."""
    running_ms, age_ms = 0, first_poll_ms(learned.rules(KIND, base))
    while True:
        yield running_ms, age_ms
        running_ms, age_ms = age_ms, age_ms + next_poll_ms(learned.rules(KIND, base), age_ms, spread)


def until(end_ms: float, stretches: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    return takewhile(lambda stretch: stretch[0] < end_ms, stretches)


def found(learned: Learned, base: Rules, duration_ms: int) -> int:
    """The age at which a task is found that ends at this one. Nothing is learned from it."""
    return next(age_ms for _, age_ms in waits(learned, base) if age_ms >= duration_ms)


def work(learned: Learned, base: Rules, durations_ms: list[int]) -> list[int]:
    """Tasks one after the other, polled and learned from as the service does; the ages at which they are found."""
    ages_ms = []
    for duration_ms in durations_ms:
        running_ms, age_ms = next(wait for wait in waits(learned, base) if wait[1] >= duration_ms)
        learned.record(KIND, base, running_ms, age_ms)
        ages_ms.append(age_ms)
    return ages_ms


def allowed(base: Rules, duration_ms: int) -> float:
    """The age by which a task has to be found."""
    return duration_ms + 2 * base.poll_every_ms + 0.2 * duration_ms


#: How durations differ: the factor of the one so far (0 to 1) into a history, some by a large factor.
SHAPES: dict[str, Callable[[random.Random, float, float], float]] = {
    "equal": lambda _chance, _far, _times: 1.0,
    "even": lambda chance, _far, _times: chance.uniform(0.4, 1.6),
    "skewed": lambda chance, _far, _times: chance.lognormvariate(0, 0.5),
    "two humps": lambda chance, _far, times: chance.choice([1.0, times]) * chance.uniform(0.95, 1.05),
    "growing or shrinking": lambda _chance, far, times: times**far,
    "an outlier": lambda chance, _far, times: times if chance.random() < 0.03 else 1.0,
    "suddenly other": lambda _chance, far, times: times if far > 0.5 else 1.0,
}


def history(shape: str, count: int, middle_ms: int, times: float, seed: int) -> list[int]:
    chance = random.Random(seed)
    return [max(1, round(middle_ms * SHAPES[shape](chance, at / count, times))) for at in range(count)]


HISTORIES = st.builds(
    history,
    st.sampled_from(sorted(SHAPES)),
    count=st.sampled_from([5, 8, 20, 70]),
    middle_ms=st.integers(250, 2 * HOUR_MS),
    times=st.sampled_from([0.1, 0.3, 0.5, 3.0, 10.0, 100.0]),
    seed=st.integers(0, 1_000),
)
CARDS = st.builds(card, st.sampled_from([50, 1_000, 2_000, 60_000]), st.integers(250, 24 * HOUR_MS))


@pytest.mark.parametrize(
    ("poll_every_ms", "seen_ms", "then_ms"),
    [(1_000, 400, 5_000), (1_000, 400, 60_000), (2_000, 60_000, 1_000_000), (100, 20_000, 9_000_000)],
)
def test_task_slower_than_all_seen_is_found_in_time(poll_every_ms: int, seen_ms: int, then_ms: int) -> None:
    """Eight quick tasks, then a slow one: it does not wait for the duration that the card calls typical."""
    learned, base = Learned(), card(poll_every_ms, 120_000)
    work(learned, base, [seen_ms] * 8)

    assert found(learned, base, then_ms) <= allowed(base, then_ms)


@settings(max_examples=40, deadline=None)
@given(durations_ms=HISTORIES, base=CARDS)
def test_no_history_leaves_a_hole(durations_ms: list[int], base: Rules) -> None:
    """Every duration from the quickest of the last thirty on is found within two cadences and a fifth of its age."""
    learned = Learned()
    quickest_ms = min(work(learned, base, durations_ms)[-LATEST:])

    holes = [
        (ended_ms, age_ms)
        for running_ms, age_ms in until(10 * max(durations_ms), waits(learned, base))
        if allowed(base, ended_ms := max(running_ms, quickest_ms)) < age_ms and ended_ms < age_ms
    ]

    assert holes == []


@settings(max_examples=40, deadline=None)
@given(
    duration_ms=st.integers(500, 2 * HOUR_MS), count=st.integers(0, 60), times=st.sampled_from([0.5, 3, 10]), base=CARDS
)
def test_sudden_change_is_met_by_the_first_task(duration_ms: int, count: int, times: float, base: Rules) -> None:
    """All tasks took equally long; the first that takes half, three or ten times as long is found in time."""
    learned = Learned()
    work(learned, base, [duration_ms] * count)
    then_ms = round(duration_ms * times)

    assert found(learned, base, then_ms) <= allowed(base, then_ms)


@pytest.mark.parametrize("times", [0.1, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("seed", range(5))
def test_tasks_that_become_quicker_are_late_a_few_times_only(times: float, seed: int) -> None:
    """Durations that differ, and all become shorter at once: one found late has the next ones asked for sooner."""
    learned, base, chance = Learned(), card(2_000, 120_000), random.Random(seed)
    work(learned, base, [round(chance.uniform(30_000, 120_000)) for _ in range(200)])
    then_ms = [round(times * chance.uniform(30_000, 120_000)) for _ in range(100)]
    late = [at > allowed(base, end_ms) for at, end_ms in zip(work(learned, base, then_ms), then_ms, strict=True)]

    assert sum(late) <= 2


@settings(max_examples=25, deadline=None)
@given(durations_ms=HISTORIES, poll_every_ms=st.sampled_from([1_000, 5_000]), spread=st.sampled_from([0.8, 1.2]))
def test_stuck_task_costs_few_polls_whatever_was_learned(
    durations_ms: list[int], poll_every_ms: int, spread: float
) -> None:
    """The bound is kept, and seven days are under 200 polls."""
    learned, base = Learned(), card(poll_every_ms, 120_000)
    work(learned, base, durations_ms)
    polls = sum(1 for _ in until(WEEK_MS, waits(learned, base, spread)))

    assert polls < 200
