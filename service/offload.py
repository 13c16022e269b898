"""Work on large values beside the event loop, in two threads: more would only take the interpreter from the loop in turns.

It must not know what the work is. A thread helps only where no single step keeps the interpreter to itself for long; see
`providers.documents.longtexts`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

QUICK_BYTES: Final = 64 << 10  # what is not larger is done at once: it takes a few milliseconds at most
_VALUE_BYTES: Final = 8  # that a value counts beside its text
_THREADS: Final = ThreadPoolExecutor(2, "offload")


async def beside(large: bool, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:  # noqa: FBT001 - the question comes first
    """Do the work at once, or in a thread where it is large, so that the loop goes on."""
    if not large:
        return work(*args, **kwargs)
    bound = partial(copy_context().run, work, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_THREADS, bound)


def is_large(value: object, most: int = QUICK_BYTES) -> bool:
    """Whether a decoded JSON value may be larger than so many bytes; no more of it is looked at than that takes."""
    pending = [value]
    for each in pending:  # which grows meanwhile; types as they are compared here, since every job asks three times
        if type(each) is str:
            most -= len(each)
        elif type(each) is dict:
            most -= _VALUE_BYTES * len(each)
            if most >= 0:
                pending += each
                pending += each.values()
        elif type(each) is list:
            most -= _VALUE_BYTES * len(each)
            if most >= 0:
                pending += each
        if most < 0:
            return True
    return False
