"""What is learned from tasks that ended, as production sees them: between two polls, or exactly by a callback."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from service.polling.durations import Durations, Learned, TaskKind, kind_of
from service.polling.pace import Rules, first_poll_ms, next_poll_ms

KIND = TaskKind("sharkapi", "generate", "sparkpix")
CARD = Rules(can_poll=True, poll_every_ms=2_000, typical_ms=120_000)
CALLED_BACK = Rules(can_poll=True, called_back=True, fallback_after_ms=60_000, typical_ms=120_000)
BLIND = Rules(can_poll=False, called_back=True)


def work(learned: Learned, durations_s: list[float]) -> tuple[float, float]:
    """Jobs polled and learned from as the service does; polls per job and the mean delay in s."""
    polls, delay_ms = 0, 0.0
    for duration_s in durations_s:
        running_ms, age_ms = 0, first_poll_ms(learned.rules(KIND, CARD))
        polls += 1
        while age_ms < duration_s * 1000:
            running_ms, age_ms = age_ms, age_ms + next_poll_ms(learned.rules(KIND, CARD), age_ms)
            polls += 1
        learned.record(KIND, CARD, running_ms, age_ms)
        delay_ms += age_ms - duration_s * 1000
    return polls / len(durations_s), delay_ms / 1000 / len(durations_s)


def expects(learned: Learned, kind: TaskKind, age_ms: int) -> bool:
    """Whether the plan reaches as far as this age; the card's typical duration alone reaches 240 s."""
    schedule = learned.rules(kind, CARD).schedule
    return schedule is not None and schedule.covers(age_ms)


def drawn(draw: Callable[[random.Random], float], count: int) -> list[float]:
    randomness = random.Random(20)
    return [draw(randomness) for _ in range(count)]


def test_first_jobs_keep_the_documented_cadence() -> None:
    """Nothing seen, nothing planned: the card's guess must not let short tasks wait for long ones; the fifth job plans."""
    learned = Learned()
    unlearned = learned.rules(KIND, CARD)
    for _ in range(4):
        learned.record(KIND, CARD, 0, 3_000)
    four = learned.rules(KIND, CARD)
    learned.record(KIND, CARD, 0, 3_000)

    assert unlearned.schedule is None
    assert first_poll_ms(unlearned) == CARD.poll_every_ms
    assert four.schedule is None
    assert learned.rules(KIND, CARD).schedule is not None


def test_even_durations_cost_a_third_of_fixed_polling() -> None:
    """30 to 120 s: fixed two-second polling takes 37.9 polls at a delay of 1 s; learned, under a third at 2.5 s."""
    learned = Learned()
    work(learned, drawn(lambda r: r.uniform(30, 120), 200))
    polls, delay_s = work(learned, drawn(lambda r: r.uniform(30, 120), 300))

    assert polls < 0.32 * 37.9
    assert delay_s < 2.5


def test_durations_that_hardly_vary_cost_few_polls() -> None:
    """59 to 61 s, of which polling shows only intervals: three or four polls, at a delay of about a second."""
    learned = Learned()
    work(learned, drawn(lambda r: r.uniform(59, 61), 200))
    polls, delay_s = work(learned, drawn(lambda r: r.uniform(59, 61), 100))

    assert polls < 4.5
    assert delay_s < 2.0


@pytest.mark.parametrize(("before_s", "after_s"), [(30, 90), (90, 30)])
def test_durations_that_change_are_followed(before_s: int, after_s: int) -> None:
    """A provider becomes three times as slow or as fast: after 200 further jobs the price is that of the new time."""
    learned = Learned()
    work(learned, drawn(lambda r: r.uniform(0.8, 1.2) * before_s, 400))
    work(learned, drawn(lambda r: r.uniform(0.8, 1.2) * after_s, 200))
    polls, delay_s = work(learned, drawn(lambda r: r.uniform(0.8, 1.2) * after_s, 100))

    assert polls < 10
    assert delay_s < 3.0


def test_callback_teaches_the_exact_moment() -> None:
    """Equal ages are a moment: all the mass goes where it was."""
    durations = Durations(typical_ms=120_000)
    for _ in range(500):
        durations.record(45_000, 45_000)

    assert 45_000 <= durations.late_ms() <= 48_000


def test_interval_is_taken_by_what_is_known() -> None:
    """Polls that show only 10 to 100 s are read by the exact moments around 45 s that came before."""
    durations = Durations(typical_ms=120_000)
    for _ in range(100):
        durations.record(45_000, 45_000)
    for _ in range(20):
        durations.record(10_000, 100_000)
    near = sum(cell.share for cell in durations.cells() if 38_000 < cell.begin_ms < 52_000)

    assert near > 0.9


def test_cells_never_claim_everything() -> None:
    """Something is left for what was never seen, and cells ascend without overlap."""
    durations = Durations(typical_ms=60_000)
    for _ in range(5_000):  # more than any weight grows before it is brought back
        durations.record(20_000, 25_000)
    cells = durations.cells()

    assert 0.95 < sum(cell.share for cell in cells) < 1.0
    assert all(one.end_ms <= other.begin_ms for one, other in pairwise(cells))


def test_fallback_is_put_off_once_enough_was_seen() -> None:
    """Callbacks that come after 200 s: 19 of them change nothing, the twentieth puts the fallback behind them."""
    learned = Learned()
    learned.warm([(KIND, CALLED_BACK, 200_000, 200_000)] * 19)
    before = first_poll_ms(learned.rules(KIND, CALLED_BACK))
    learned.warm([(KIND, CALLED_BACK, 200_000, 200_000)] * 3)
    after = first_poll_ms(learned.rules(KIND, CALLED_BACK))

    assert before == 60_000
    assert 200_000 <= after <= 250_000


def test_lost_callback_of_a_quick_task_does_not_wait_for_slow_ones() -> None:
    """A third takes ten minutes: a callback that is due after 25 s is missed after a minute and as long again."""
    learned = Learned()
    learned.warm([(KIND, CALLED_BACK, age, age) for age in (25_000, 600_000, 25_000) * 20])
    first_ms = first_poll_ms(learned.rules(KIND, CALLED_BACK))

    assert first_ms <= 60_000 + 2 * 1.1 * 25_000


def test_start_is_warm_with_what_the_store_remembers() -> None:
    """The same observations in the same order make the same plan, whether seen or read back."""
    seen, read = Learned(), Learned()
    rows = [(KIND, CARD, 1_000 * at, 1_000 * at + 4_000) for at in range(40, 80)]
    for row in rows:
        seen.record(*row)
    read.warm(iter(rows))

    assert read.rules(KIND, CARD) == seen.rules(KIND, CARD)
    assert first_poll_ms(read.rules(KIND, CARD)) != first_poll_ms(Learned().rules(KIND, CARD))


def test_kinds_do_not_teach_each_other() -> None:
    """A slow model says nothing of another one."""
    learned = Learned()
    learned.warm([(KIND, CARD, 600_000, 600_000)] * 50)

    assert not expects(learned, KIND._replace(model="flux"), 300_000)
    assert expects(learned, KIND, 590_000)


def test_memory_is_bounded_and_the_least_used_kind_goes() -> None:
    """Names of models come from callers: of a million only as many as are allowed stay, the busy ones among them."""
    learned = Learned(most_kinds=3)
    learned.warm([(KIND, CARD, 600_000, 600_000)] * 50)
    for number in range(20):
        learned.record(KIND._replace(model=f"m{number}"), CARD, 5_000, 5_000)
        learned.rules(KIND, CARD)

    assert len(learned) == 3
    assert expects(learned, KIND, 590_000)


def test_rules_are_the_cards_where_nobody_can_be_asked() -> None:
    """No poll, nothing to learn; nothing is kept either."""
    learned = Learned()
    learned.record(KIND, BLIND, 0, 20_000)

    assert learned.rules(KIND, BLIND) is BLIND
    assert len(learned) == 0


def test_plan_is_kept_until_enough_is_new() -> None:
    """Asking is cheap: the same rules come back until observations have come in."""
    learned = Learned()
    learned.warm([(KIND, CARD, 50_000, 55_000)] * 100)
    first = learned.rules(KIND, CARD)
    learned.record(KIND, CARD, 50_000, 55_000)

    assert learned.rules(KIND, CARD) is first
    learned.warm([(KIND, CARD, 50_000, 55_000)] * 30)
    assert learned.rules(KIND, CARD) is not first


@pytest.mark.parametrize(
    ("running_ms", "done_ms"), [(0, 1), (0, 0), (-5, 250), (9_000, 3_000), (0, 10**12), (249, 251), (250, 500)]
)
def test_odd_ages_are_taken_as_they_can_be(running_ms: int, done_ms: int) -> None:
    """Clocks step and weeks pass: no age breaks the plan."""
    learned = Learned()
    learned.record(KIND, CARD, running_ms, done_ms)

    assert first_poll_ms(learned.rules(KIND, CARD)) >= 2_000


@pytest.mark.parametrize(
    ("job_input", "model"),
    [
        ('{"model": "sparkpix", "prompt": "a cat"}', "sparkpix"),
        ('{"prompt": "a cat"}', ""),
        ('{"model": 7}', ""),
        ('{"model": "' + "x" * 5_000 + '"}', "x" * 100),
    ],
)
def test_kind_of_a_job_is_named_by_its_input(job_input: str, model: str) -> None:
    """The model where there is one, cut to what tells models apart."""
    assert kind_of("sharkapi", "generate", job_input) == TaskKind("sharkapi", "generate", model)
