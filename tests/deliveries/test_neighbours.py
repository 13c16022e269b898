"""One dead path, origin or tenant delays nothing beside it: good destinations beside bad ones, against the same without them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deliveries.desk import THEIRS
from tests.deliveries.neighbours import BEHAVIOURS, SHOP, Neighbour, hold, mixture, p95s, street

LIVE = [Neighbour(f"{SHOP}/live", since_s=2)]


@pytest.mark.parametrize("name", list(BEHAVIOURS))
async def test_bad_paths_do_not_delay_a_live_one_at_their_origin(tmp_path: Path, name: str) -> None:
    """They come first, with a backlog, and the live one is new: its events take as long as if it were alone."""
    bad = [Neighbour(f"{SHOP}/bad/{number}", BEHAVIOURS[name], burst=3, backlog=40) for number in range(12)]
    beside = await p95s(tmp_path, LIVE, bad, seconds=30)

    assert beside == [pytest.approx(0.02, abs=0.001)]


@pytest.mark.parametrize("name", ["hanging", "not found"])
async def test_paths_of_single_jobs_that_fail_do_not_delay_those_that_do_not(tmp_path: Path, name: str) -> None:
    """Each event has a path of its own, hundreds of them fail and wait for their next attempts, and new ones come."""
    bad = Neighbour(f"{SHOP}/bad", BEHAVIOURS[name], every_s=1, unique=True, backlog=10 if name == "hanging" else 500)
    good = [*LIVE, Neighbour(f"{SHOP}/job", every_s=0.5, unique=True, since_s=5)]
    beside = await p95s(tmp_path, good, [bad], seconds=60)

    assert beside == [pytest.approx(0.02, abs=0.001)] * 2


async def test_path_that_is_well_is_not_displaced_by_any_number_of_new_ones(tmp_path: Path) -> None:
    """Ten new paths a second hang, far more than are told apart: the one that is known goes on."""
    bad = Neighbour(f"{SHOP}/bad", BEHAVIOURS["hanging"], every_s=0.1, unique=True, since_s=5)
    async with street(tmp_path) as made:
        await made.run([Neighbour(f"{SHOP}/live"), bad], 60)
        waited_s = made.p95_s([f"{SHOP}/live"])
        peak = made.web.peak["shop.example"]

    assert waited_s < 0.021
    assert peak <= 628


async def test_tenant_that_fills_the_sockets_leaves_others_theirs(tmp_path: Path) -> None:
    """Hundreds of hanging destinations of both kinds, and a hundred sockets in all; the other account feels nothing."""
    bad = [
        Neighbour(
            f"https://bad{number % 7}.example/{number}",
            BEHAVIOURS["hanging"],
            every_s=0,
            backlog=5,
            account_id=THEIRS,
            standing=number % 5 > 0,
        )
        for number in range(250)
    ]
    beside = await p95s(tmp_path, [Neighbour("https://well.example/hook", since_s=1)], bad, seconds=20, sockets=100)

    assert beside == [pytest.approx(0.02, abs=0.001)]


@pytest.mark.parametrize("seed", range(4))
async def test_arbitrary_mixture_changes_little_for_the_good_ones(tmp_path: Path, seed: int) -> None:
    """Slow, hanging, dead, refusing, limited or coming and going, as paths or subscriptions, with backlogs of thousands."""
    good, bad = mixture(seed)
    alone = await p95s(tmp_path / "alone", good, seconds=40)
    beside = await p95s(tmp_path / "beside", good, bad, seconds=40)

    assert hold(alone, beside), (alone, beside)
