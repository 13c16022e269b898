"""Beginning in turns: the prompt ones first, the others always a little."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from service.deliveries.lanes.turns import OTHERS, PROMPT, Turns

T = TypeVar("T")


def turns_into(begun: list[T]) -> Turns[T]:
    """What begins is noted, and ends at once."""

    async def run(one: T) -> None:
        begun.append(one)

    return Turns(run)


async def test_thousand_at_once_leave_room_between_rounds() -> None:
    """Whatever else the loop has to do comes in between."""
    begun: list[int] = []
    turns = turns_into(begun)
    for number in range(1_000):
        turns.add("unknown", "unknown", number)
    await asyncio.sleep(0)
    first = len(begun)
    for _ in range(1_001):
        await asyncio.sleep(0)

    assert first <= 2 * OTHERS
    assert begun == list(range(1_000))
    assert len(turns) == 0


async def test_prompt_destination_overtakes_those_that_are_not() -> None:
    """And gives way again when it becomes slow."""
    begun: list[str] = []
    turns = turns_into(begun)
    turns.note("quick", "quick", prompt=True)
    for _ in range(500):
        turns.add("slow", "slow", "slow")
    turns.add("quick", "quick", "quick")
    for _ in range(4):
        await asyncio.sleep(0)
    place = begun.index("quick")
    turns.note("quick", "quick", prompt=False)
    turns.add("quick", "quick", "late")
    for _ in range(500):
        await asyncio.sleep(0)

    assert place <= OTHERS
    assert begun[-1] == "late"


async def test_new_path_counts_as_its_origin_does() -> None:
    """A slow path among prompt ones is not prompt, and says nothing of the others."""
    begun: list[str] = []
    turns = turns_into(begun)
    turns.note("origin/quick", "origin", prompt=True)
    turns.note("origin/slow", "origin", prompt=False)
    for _ in range(100):
        turns.add("elsewhere", "elsewhere", "elsewhere")
    turns.add("origin/slow", "origin", "slow")
    turns.add("origin/new", "origin", "new")
    await turns.settle()

    assert begun.index("new") <= OTHERS
    assert begun[-1] == "slow"


async def test_others_are_not_starved_by_prompt_ones() -> None:
    """Each round has a share for them."""
    begun: list[str] = []
    turns = turns_into(begun)
    turns.note("quick", "quick", prompt=True)
    turns.add("slow", "slow", "slow")
    for _ in range(10 * PROMPT):
        turns.add("quick", "quick", "quick")
    for _ in range(3):
        await asyncio.sleep(0)

    assert "slow" in begun
