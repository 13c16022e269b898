"""What may come back on a connection: aiohttp's handler of answers, with bounds on all that is no body.

aiohttp bounds one head and its lines, but skips interim answers and blank lines for ever, parses all that came in one
piece at once, and loses an answer when rubbish follows it in the same piece. So what comes is handed to it head by head
and piece by piece, and what follows a whole answer is not handed to it at all. Knows nothing of requests and addresses.
"""

from __future__ import annotations

from typing import Any

from aiohttp import ClientError, StreamReader
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError, RawResponseMessage

HEAD_BYTES = 64 << 10  # of the answer's head and all that came before it
INTERIM = 8  # answers 1xx before the final one
PIECE_BYTES = 8 << 10  # parsed between two looks at the bounds: some 3 ms at worst
FRAMING_BYTES = 32 << 10  # of chunk sizes, extensions and trailers, beside
FRAMING_SHARE = 8  # one byte for so many of the body: chunks of 48 bytes and more are welcome without end

_END = b"\r\n\r\n"


class BadAnswer(ClientError):
    """The body is no HTTP, or mostly framing. Set on the body; a bad head is aiohttp's own error."""


class AnswerHandler(ResponseHandler):
    """One connection. Each request on it begins with `set_response_params`."""

    _answered = False  # the final head was parsed
    _over = False  # nothing more is read: the answer was bad, or whole and followed by something
    _chunked = False
    _held = b""  # came while the body's reader was behind
    _last = b""  # the end of a head's beginning, where its blank line may begin
    _before = 0  # bytes of heads
    _heads = 0  # blank lines before the final head
    _interims = 0
    _framed = 0  # bytes of a chunked body with its framing

    def set_response_params(self, **params: Any) -> None:
        """See `ResponseHandler`."""
        self._answered = self._chunked = False
        self._held = self._last = b""
        self._before = self._heads = self._interims = self._framed = 0
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`; with nothing, aiohttp asks to go on after a pause."""
        if self._over:
            return
        if self._parser is None or not data:
            super().data_received(data)  # what comes before the request is kept, and bounded, by aiohttp
        if self._parser is None:
            return
        if self._held:
            data, self._held = self._held + data, b""
        at = 0
        while at < len(data) and not self._over:
            if not self._answered:
                at = self._take_head(data, at)
            elif self._payload is None or self._payload.is_eof():
                self._close()
            elif self._reading_paused:
                self._held = data[at:]
                return
            else:
                at = self._take_body(data, at)

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """See `ResponseHandler`: called with each head that was parsed."""
        head, payload = data
        if self._answered:
            self._close()
        elif 200 <= head.code <= 599:
            self._answered = True
            self._chunked = head.chunked
            if payload is not self._payload and self._payload is not None and not self._payload.is_eof():
                self._should_close = True  # the status allows no body, but the head announces one
            super().feed_data(data, size)
        elif 100 <= head.code <= 199 and head.code != 101:
            self._interims += 1
        else:
            self._refuse()

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """See `ResponseHandler`: aiohttp does not tell the reader of a body that the rest of it could not be parsed."""
        if isinstance(exc, HttpProcessingError):
            self._over = True
            if self._payload is not None and not self._payload.is_eof():
                self._payload.set_exception(BadAnswer())
        super().set_exception(exc, *cause)

    def _take_head(self, data: bytes, at: int) -> int:
        """Parse up to the next blank line, so that what follows the final head cannot spoil it."""
        room = min(PIECE_BYTES, HEAD_BYTES - self._before)
        if not room:
            self._refuse()
            return at
        found = (self._last + data[at : at + room]).find(_END)
        end = at + room if found < 0 else at + found + len(_END) - len(self._last)
        piece = data[at:end]
        self._before += len(piece)
        if found < 0:
            self._last = (self._last + piece)[1 - len(_END) :]
        else:
            self._last = b""
            self._heads += 1
        super().data_received(piece)
        if not self._answered and max(self._heads, self._interims) > INTERIM:
            self._refuse()
        return end

    def _take_body(self, data: bytes, at: int) -> int:
        piece = data[at : at + PIECE_BYTES]
        payload = self._payload
        super().data_received(piece)
        if self._chunked and payload is not None:
            self._framed += len(piece)
            # While the reader is behind, aiohttp holds a piece that is not counted as body yet.
            if not self._reading_paused and not payload.is_eof():
                self._weigh(payload.total_bytes)
        return at + PIECE_BYTES

    def _weigh(self, body_bytes: int) -> None:
        if self._framed - body_bytes > FRAMING_BYTES + body_bytes // FRAMING_SHARE:
            self._refuse()

    def _refuse(self) -> None:
        if not self._over:
            self.set_exception(HttpProcessingError(message="out of bounds"))
            self._close()

    def _close(self) -> None:
        self._over = self._should_close = True
        if self.transport is not None:
            self.transport.abort()
