"""Remora itself as a measured process: what `remora serve` runs, on a core of its own, with a profiler to switch on.

Run by `benchmarks.path`: `python -m benchmarks.service_process --core N`, settings in the environment; prints its address.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import uvloop

from benchmarks.subject import Profiler, arguments
from service.app import Service
from service.settings import load
from service.telemetry import configure_logging


async def _main(profile: str | None) -> int:
    settings = load(os.environ, Path("/nonexistent"))  # no .env and no remora.toml of this directory
    configure_logging(settings.log_format, settings.log_level, sys.stderr)
    service = await Service.open(settings)
    try:
        await service.listen()
        with Profiler(asyncio.get_running_loop(), profile):
            print(service.url, flush=True)
            return await service.wait()
    finally:
        await service.close()


if __name__ == "__main__":
    sys.exit(uvloop.run(_main(arguments(__doc__).profile)))
