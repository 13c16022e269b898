"""What a connection sends, handed on in bounded pieces out of one buffer for all of them.

uvloop reads a quarter of a megabyte at once and cannot be told otherwise, so that some hundred unfinished bodies would take
as many megabytes as all the rest. This file must not know HTTP.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

READ_BYTES: Final = 32 * 1024  # at once, and of a body that nobody asks for yet

_buffer: Final = memoryview(bytearray(READ_BYTES))  # a loop fills it and hands it on before it reads from anybody else


class BoundedReads(asyncio.BufferedProtocol):
    """Stands between a transport and a protocol, whose `data_received` gets views that are only good until it returns."""

    def __init__(self, protocol: Any) -> None:
        self._data_received = protocol.data_received
        for name in ("connection_made", "connection_lost", "eof_received", "pause_writing", "resume_writing"):
            setattr(self, name, getattr(protocol, name))

    def get_buffer(self, sizehint: int) -> memoryview:
        """See asyncio."""
        return _buffer

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio."""
        self._data_received(_buffer[:nbytes])
