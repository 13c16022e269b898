"""Histograms of durations: what they say of quantiles is within five per cent, and adding them is exact."""

from __future__ import annotations

import random

import pytest

from service.usage.histogram import Histogram


def of(*durations_ms: int) -> Histogram:
    made = Histogram()
    for duration_ms in durations_ms:
        made = made.plus(Histogram.of(duration_ms))
    return made


@pytest.mark.parametrize("seed", range(5))
def test_quantiles_are_within_five_per_cent(seed: int) -> None:
    """Against the sorted list itself."""
    chance = random.Random(seed)
    durations = sorted(round(chance.lognormvariate(9, 1.5)) + 1 for _ in range(1_000))
    found = of(*durations).quantiles_ms(0.5, 0.95, 1.0)

    for value, exact in zip(found, (durations[499], durations[949], durations[999]), strict=True):
        assert value == pytest.approx(exact, rel=0.05)


def test_edges() -> None:
    """Nothing, no time at all, a millisecond, and longer than anything may take."""
    assert Histogram().quantiles_ms(0.5) == (None,)
    assert of(0).quantiles_ms(0.5, 1.0) == (0.0, 0.0)
    assert of(1).quantiles_ms(0.5)[0] == pytest.approx(1, rel=0.05)
    assert of(7 * 86_400_000).quantiles_ms(0.95)[0] == pytest.approx(7 * 86_400_000, rel=0.05)
    assert of(10**15).total == 1


@pytest.mark.parametrize("durations", [(), (0,), (5,), (1, 4_000, 604_800_000), (0, 10**15)])
def test_stored_form_is_the_same_histogram(durations: tuple[int, ...]) -> None:
    """Packed and unpacked, and small: the buckets that are not empty and what is between them."""
    made = of(*durations)

    assert Histogram.unpacked(made.packed()) == made
    assert len(of(4_000, 5_000).packed()) <= 1 + 4 * 5


def test_what_is_added_can_be_taken_off() -> None:
    """In any order, to nothing."""
    assert of(1, 2_000, 3_000).minus(of(3_000)).minus(of(1)) == of(2_000)
    assert Histogram().minus(of(9)).plus(of(9)) == Histogram()
    assert (of(*[50] * 70_000)).total == 70_000
