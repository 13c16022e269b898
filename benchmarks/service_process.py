"""Remora itself as a measured process: what `remora serve` runs, on a core of its own, with a profiler to switch on.

Run by `benchmarks.path`: `python -m benchmarks.service_process --core N`, settings in the environment; prints its address.
With `--clean` (`benchmarks.million`) it cleans up all the time, not only every minute.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from benchmarks.subject import Profiler, arguments
from service.app import Service
from service.environment import load
from service.runner import runner
from service.telemetry import configure_logging

CLEAN_S = 1.0  # from the end of a clean-up, or less, to the next


async def _clean(service: Service) -> None:
    """The tick of the clean-up, more often than its own."""
    [cleaner] = [duty for duty in service._stages.duties if duty.name == "cleaner"]  # noqa: SLF001 - nobody else needs it
    while True:
        service._ticker._begin(cleaner)  # noqa: SLF001 - as above; does nothing while it runs
        await asyncio.sleep(CLEAN_S)


async def _main(profile: str | None, *, clean: bool) -> int:
    settings = load(os.environ, Path("/nonexistent"))  # no .env and no remora.toml of this directory
    configure_logging(settings.log_format, settings.log_level, sys.stderr)
    service = await Service.open(settings)
    try:
        service.stopping.catch_signals()
        await service.listen()
        with Profiler(asyncio.get_running_loop(), profile):
            print(service.url, flush=True)
            cleaning = asyncio.create_task(_clean(service)) if clean else None
            status = await service.wait()
            if cleaning is not None:
                cleaning.cancel()
            return status
    finally:
        await service.close()


if __name__ == "__main__":
    given = arguments(__doc__)
    with runner() as running:
        sys.exit(running.run(_main(given.profile, clean=given.clean)))
