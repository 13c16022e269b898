"""Callback tokens: those of late are known from memory, older ones from the store, and strangers' guesses are not kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from service.clock import SeededRandomness
from service.jobs.tokens import MAX_TOKEN, CallbackTokens, hash_of


class Submissions:
    """A reader of submissions with these tokens; it counts what it is asked."""

    def __init__(self, *tokens: str) -> None:
        self.hashes = {hash_of(token) for token in tokens}
        self.asked = 0

    async def row(self, sql: str, params: Mapping[str, Any] | None = None) -> Any:
        """One row or none."""
        self.asked += 1
        assert params is not None
        return (1,) if params["hash"] in self.hashes else None

    async def rows(self, sql: str, params: Mapping[str, Any] | None = None) -> list[Any]:
        """Nobody asks for sets."""
        raise AssertionError(sql)

    async def close(self) -> None:
        """Nothing to close."""


async def test_new_token_is_known_without_a_read() -> None:
    """A callback that is expected costs nothing but its transaction."""
    store = Submissions()
    tokens = CallbackTokens(store, SeededRandomness(1))
    made = [tokens.new() for _ in range(100)]

    assert len(set(made)) == 100
    assert {len(token) for token in made} == {43}
    assert [await tokens.find(token) for token in made] == list(map(hash_of, made))
    assert store.asked == 0


async def test_token_of_another_process_is_read_once() -> None:
    """After a restart, or beside another replica, the store knows; a provider that calls ten times costs one read."""
    store = Submissions("theirs")
    tokens = CallbackTokens(store, SeededRandomness(1))

    assert [await tokens.find("theirs") for _ in range(10)] == [hash_of("theirs")] * 10
    assert store.asked == 1


async def test_guess_is_not_remembered() -> None:
    """It may be made true later, by another process; and guesses push nothing out of memory."""
    store = Submissions()
    tokens = CallbackTokens(store, SeededRandomness(1), remembered=2)
    mine = tokens.new()
    guesses = [await tokens.find(f"guess-{number}") for number in range(10)]
    store.hashes.add(hash_of("guess-1"))

    assert guesses == [None] * 10
    assert await tokens.find("guess-1")
    asked = store.asked
    assert await tokens.find(mine)
    assert store.asked == asked


@pytest.mark.parametrize("token", ["", "x" * (MAX_TOKEN + 1), "x" * 60_000])
async def test_what_is_no_token_costs_nothing(token: str) -> None:
    """Neither a hash nor a read, however long it is."""
    store = Submissions(token)

    assert await CallbackTokens(store, SeededRandomness(1)).find(token) is None
    assert store.asked == 0


async def test_memory_is_bounded() -> None:
    """The oldest is forgotten first, and then read."""
    store = Submissions()
    tokens = CallbackTokens(store, SeededRandomness(1), remembered=2)
    first, second, third = (tokens.new() for _ in range(3))

    assert [await tokens.find(token) for token in (second, third)] == [hash_of(second), hash_of(third)]
    assert store.asked == 0
    assert await tokens.find(first) is None
    assert store.asked == 1
