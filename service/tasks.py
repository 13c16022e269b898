"""Ending tasks: those that run come to their end in time, or are cancelled. It must not know what they do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any


async def finish(running: Iterable[asyncio.Task[Any]], timeout_s: float) -> list[str]:
    """Wait for tasks, and cancel those that take longer.

    Returns:
        The names of those that were cancelled.
    """
    tasks = set(running)
    if not tasks:
        return []
    _, late = await asyncio.wait(tasks, timeout=timeout_s)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    return sorted(task.get_name() for task in late)
