"""What may come back on a connection: aiohttp's handler of answers, with bounds on all that is no body.

aiohttp refuses heads that browsers read, skips interim answers and blank lines for ever, parses all that came in one
piece at once, and loses an answer when rubbish follows it in the same piece. So what comes is handed to it head by
head, each mended, and piece by piece, and what follows a whole answer is not handed to it at all. Knows nothing of
requests and addresses.
"""

from __future__ import annotations

from typing import Any

from aiohttp import ClientError, StreamReader
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError, RawResponseMessage

from service.egress.heads import HEAD_BYTES, HEADER_LINES, HeadInvalid, end_of_head, mended

INTERIM = 8  # answers 1xx before the final one
PIECE_BYTES = 8 << 10  # parsed between two looks at the bounds: some 3 ms at worst
FRAMING_BYTES = 32 << 10  # of chunk sizes, extensions and trailers, beside
FRAMING_SHARE = 8  # one byte for so many of the body: chunks of 48 bytes and more are welcome without end
KEPT_BYTES = 2 << 10  # of a head, for those who want to know why an answer could not be read
_BLANK = b"\r\n"
_PROTOCOL = b"HTTP/"
_JUNK = 4  # bytes that may stand before it, such as a byte order mark


class BadAnswer(ClientError):
    """The body is no HTTP, or mostly framing. Set on the body; a bad head is aiohttp's own error."""


class OutOfBounds(HttpProcessingError):
    """An answer that is refused by us and not by aiohttp's parser; `message` goes on after "it answered with"."""


class AnswerHandler(ResponseHandler):
    """One connection. Each request on it begins with `set_response_params`."""

    _answered = False  # the final head was parsed
    _over = False  # nothing more is read: the answer was bad, or whole and followed by something
    _chunked = False
    _held = b""  # came while the body's reader was behind
    _begun = b""  # a head that is not whole yet
    _before = 0  # bytes of heads
    _heads = 0  # blank lines before the final head
    _interims = 0
    _framed = 0  # bytes of a chunked body with its framing
    head = b""  # the beginning of the last head, as it came

    def set_response_params(self, **params: Any) -> None:
        """See `ResponseHandler`."""
        self._answered = self._chunked = False
        self._held = self._begun = self.head = b""
        self._before = self._heads = self._interims = self._framed = 0
        # What a mended head may have is bounded here already.
        params["max_line_size"] = params["max_field_size"] = HEAD_BYTES
        params["max_headers"] = HEADER_LINES
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
            self._refuse("a status that means nothing")

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """See `ResponseHandler`: aiohttp does not tell the reader of a body that the rest of it could not be parsed."""
        if isinstance(exc, HttpProcessingError):
            self._over = True
            if self._payload is not None and not self._payload.is_eof():
                self._payload.set_exception(BadAnswer(exc.message if isinstance(exc, OutOfBounds) else ""))
        super().set_exception(exc, *cause)

    def _take_head(self, data: bytes, at: int) -> int:
        """Parse up to the next blank line, so that what follows the final head cannot spoil it."""
        room = HEAD_BYTES - self._before
        if not room:
            self._refuse(f"a head of more than {HEAD_BYTES >> 10} KiB")
            return at
        known = len(self._begun)
        begun = self._begun + data[at : at + min(PIECE_BYTES, room)]
        end = end_of_head(begun, max(0, known - 2))
        head = begun if end < 0 else begun[:end]
        self._before += len(head) - known
        self.head = head[:KEPT_BYTES]
        if end >= 0:
            self._begun = b""
            self._heads += 1
            self._parse_head(head)
        elif _is_foreign(head.lstrip(_BLANK)):
            super().data_received(head)  # nobody waits for the end of it
        else:
            self._begun = head
        if not self._answered and max(self._heads, self._interims) > INTERIM:
            self._refuse(f"more than {INTERIM} interim answers or blank lines")
        return at + len(head) - known

    def _parse_head(self, head: bytes) -> None:
        head = head.lstrip(_BLANK)
        if not head:
            return
        try:
            head, last = mended(head)
        except HeadInvalid as error:
            self._refuse(str(error))
            return
        super().data_received(head)
        if last:
            self._should_close = True

    def connection_lost(self, exc: BaseException | None) -> None:
        """See `ResponseHandler`, which tells the waiting request whether an answer had begun."""
        if self._begun and self._parser is not None and not self._over:
            begun, self._begun = self._begun, b""
            super().data_received(begun)
        super().connection_lost(exc)

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
            self._refuse("a body that is mostly framing")

    def _refuse(self, what: str) -> None:
        if not self._over:
            self.set_exception(OutOfBounds(message=what))
            self._close()

    def _close(self) -> None:
        self._over = self._should_close = True
        if self.transport is not None:
            self.transport.abort()


def _is_foreign(begun: bytes) -> bool:
    """Whether it is clear by now that this is the head of no HTTP."""
    first = begun[: _JUNK + len(_PROTOCOL)]
    return len(first) == _JUNK + len(_PROTOCOL) and _PROTOCOL not in first.upper()
