"""What a callback costs the store: its transaction; a read where another process submitted; a guess no more than that read."""

from __future__ import annotations

from pathlib import Path

from tests.simulation.world import World, world


async def _costs(remora: World, token: str) -> tuple[bool, int, int]:
    """Whether the callback was known, and the reads of tokens and the transactions that it took."""
    said: list[str] = []
    remora.raw.set_trace_callback(said.append)
    known = await remora.stages.inbox.receive(token, b"{}", "application/json", {})
    remora.raw.set_trace_callback(None)
    reads = sum("SELECT 1 FROM submissions" in each for each in said)
    return known, reads, sum(each.startswith("BEGIN") for each in said)


async def test_callback_costs_its_transaction_and_a_guess_none(tmp_path: Path) -> None:
    """Those who submit and those who receive share what they know; a new process reads a token once."""
    async with world(tmp_path, 0) as remora:
        remora.network.trouble = 0.0
        await remora.take(1)
        await remora.breathe()
        [task] = remora.network.tasks.values()
        expected, guess = await _costs(remora, task.token), await _costs(remora, "guess")
        await remora.kill()
        await remora.start()
        first, second = await _costs(remora, task.token), await _costs(remora, task.token)

    assert (expected, guess) == ((True, 0, 1), (False, 1, 0))
    assert (first, second) == ((True, 1, 1), (True, 0, 1))
