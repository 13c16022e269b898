"""The books over arbitrary histories; ten thousand of them run with `just books`."""

from __future__ import annotations

from tests.accounts import machine


def test_arbitrary_histories_keep_the_books() -> None:
    """Every transfer balances, no job is charged twice, nothing stays held, no take goes below a limit."""
    machine.check(histories=80, steps=20)
