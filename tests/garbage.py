"""What is left for the collector: objects that refer to each other, and stay until it stops everybody to look for them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def uncollected(*packages: str) -> Iterator[Callable[[], list[str]]]:
    """Without the collector; what it gives names the classes of these packages that are garbage by then."""

    def found() -> list[str]:
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kinds = [f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.garbage]
        return [kind for kind in kinds if kind.startswith(packages)]

    gc.collect()
    gc.disable()
    try:
        yield found
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
