"""Beginning in turns: the prompt ones first, the others always a little."""

from __future__ import annotations

import asyncio

from service.deliveries.turns import OTHERS, PROMPT, Turns


async def test_thousand_at_once_leave_room_between_rounds() -> None:
    """Whatever else the loop has to do comes in between."""
    begun: list[int] = []
    turns = Turns[int](begun.append)
    for number in range(1_000):
        turns.add("unknown", number)
    await asyncio.sleep(0)
    first = len(begun)
    for _ in range(1_000):
        await asyncio.sleep(0)

    assert first <= 2 * OTHERS
    assert begun == list(range(1_000))
    assert len(turns) == 0


async def test_prompt_destination_overtakes_those_that_are_not() -> None:
    """And gives way again when it becomes slow."""
    begun: list[str] = []
    turns = Turns[str](begun.append)
    turns.note("quick", prompt=True)
    for _ in range(500):
        turns.add("slow", "slow")
    turns.add("quick", "quick")
    for _ in range(3):
        await asyncio.sleep(0)
    place = begun.index("quick")
    turns.note("quick", prompt=False)
    turns.add("quick", "late")
    for _ in range(500):
        await asyncio.sleep(0)

    assert place <= OTHERS
    assert begun[-1] == "late"


async def test_others_are_not_starved_by_prompt_ones() -> None:
    """Each round has a share for them."""
    begun: list[str] = []
    turns = Turns[str](begun.append)
    turns.note("quick", prompt=True)
    turns.add("slow", "slow")
    for _ in range(10 * PROMPT):
        turns.add("quick", "quick")
    for _ in range(2):
        await asyncio.sleep(0)

    assert "slow" in begun
