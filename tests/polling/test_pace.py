"""The pace of polling: what the card says, what was learned, and what holds whatever was learned."""

from __future__ import annotations

from dataclasses import replace

import pytest

from service.polling.pace import Rules, first_poll_ms, next_poll_ms
from service.polling.plan import Cell, plan

WEEK_MS = 7 * 86_400_000
CARD = Rules(can_poll=True, poll_every_ms=2_000, typical_ms=100_000)
SURE = plan([Cell(59_000.0, 60_000.0, 0.99)], floor_ms=2_000, price_ms=3_000)
LEARNED = replace(CARD, schedule=SURE)
CALLED_BACK = replace(CARD, called_back=True, fallback_after_ms=60_000)


def polls_in_a_week(rules: Rules, spread: float) -> int:
    """Of a job that never ends."""
    age_ms, polls = first_poll_ms(rules), 1
    while age_ms < WEEK_MS:
        age_ms += next_poll_ms(rules, age_ms, spread)
        polls += 1
    return polls


def test_without_history_the_card_is_followed() -> None:
    """The documented cadence through the typical duration, then an eighth of the age."""
    assert first_poll_ms(CARD) == 2_000
    assert next_poll_ms(CARD, 98_000) == 2_000
    assert next_poll_ms(CARD, 160_000) == 20_000


def test_learned_moment_is_met_exactly() -> None:
    """A planned wait is not spread: the plan would be off by a fifth of the duration."""
    assert first_poll_ms(LEARNED) == 60_000
    assert next_poll_ms(LEARNED, 10_000, spread=1.2) == 50_000
    assert next_poll_ms(LEARNED, 10_000, spread=0.8) == 50_000


def test_wait_beyond_the_plan_is_spread() -> None:
    """Jobs that are stuck together are not asked for together."""
    assert next_poll_ms(LEARNED, 800_000, spread=1.2) == 120_000
    assert next_poll_ms(LEARNED, 800_000, spread=0.8) == 80_000


@pytest.mark.parametrize("spread", [0.8, 1.0, 1.2])
@pytest.mark.parametrize("poll_every_ms", [1, 1_000, 60_000])
@pytest.mark.parametrize("typical_ms", [1_000, 120_000, 6 * 3_600_000, 30 * 86_400_000])
def test_long_typical_duration_lets_no_short_task_wait(typical_ms: int, poll_every_ms: int, spread: float) -> None:
    """Before anything was learned, too, an end is seen within two documented cadences and a fifth of the age."""
    rules = Rules(can_poll=True, poll_every_ms=poll_every_ms, typical_ms=typical_ms)
    ages_ms = [round(1.05**power) for power in range(420)]

    assert all(next_poll_ms(rules, age_ms, spread) <= 2 * poll_every_ms + 0.2 * age_ms for age_ms in ages_ms)


def test_cadence_of_days_is_kept() -> None:
    """Where the provider wants to be asked once a day, the rule of three hours does not make it more often."""
    assert next_poll_ms(replace(CARD, poll_every_ms=86_400_000), 86_400_000) == 86_400_000


@pytest.mark.parametrize("rules", [CARD, LEARNED, replace(CALLED_BACK, fallback_after_ms=0)])
def test_floor_holds_whatever_the_spread(rules: Rules) -> None:
    """Nobody is asked more often than documented."""
    assert min(next_poll_ms(rules, age_ms, spread=0.8) for age_ms in range(0, 100_000, 500)) >= 2_000


def test_callback_is_waited_for() -> None:
    """With callbacks polling is the fallback, after `FALLBACK_AFTER`, then at a quarter of the age."""
    assert first_poll_ms(CALLED_BACK) == 60_000
    assert next_poll_ms(CALLED_BACK, 20_000) == 40_000
    assert next_poll_ms(CALLED_BACK, 400_000) == 100_000


def test_callback_of_slow_tasks_is_waited_for_longer() -> None:
    """Where nearly all tasks take up to 300 s, asking before is in vain; a shorter habit never hastens the fallback."""
    slow, fast = replace(CALLED_BACK, late_ms=300_000), replace(CALLED_BACK, late_ms=20_000)

    assert first_poll_ms(slow) == 300_000
    assert next_poll_ms(slow, 100_000) == 200_000
    assert first_poll_ms(fast) == 60_000


@pytest.mark.parametrize("spread", [0.8, 1.0, 1.2])
@pytest.mark.parametrize(
    "rules",
    [CARD, LEARNED, CALLED_BACK, replace(CARD, typical_ms=1_800_000), replace(CARD, poll_every_ms=1_000)],
    ids=["card", "learned", "callbacks", "slow", "eager"],
)
def test_stuck_job_costs_few_polls(rules: Rules, spread: float) -> None:
    """Under 200 polls in seven days, where asking every two seconds would take 302,400; yet every three hours at least."""
    assert 56 <= polls_in_a_week(rules, spread) < 200
