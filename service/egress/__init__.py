"""The one door for outbound HTTP, seen from outside: what is asked, what is answered, and the port itself.

Open `door` first, which sends; `gate` says which addresses may be reached. It must not know what is asked for.
The port stands here and not in a module of its own because it is all that the rest of the service may know of this
package; only the composition root also knows `service.egress.door`. Nothing here knows an HTTP client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from service.errors import UNTIMED, EgressCut, Timing


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said: its body ends at the byte cap, and is as it was sent (never unpacked).

    Large ones share a room in memory; a caller that asks for more than 4 MiB calls `close` when it has read the answer.
    """

    status: int
    headers: Mapping[str, str]  # names in lower case, repeated ones joined by ", "
    body: bytes
    truncated: bool  # there was more than the cap; the rest was not read
    duration_ms: int
    timing: Timing = UNTIMED
    head: bytes = field(default=b"", repr=False)  # its beginning, as it came; of a call only
    cut: str | None = None  # why the body broke off, in an `AnswerCut` only
    release: Callable[[], None] | None = field(default=None, repr=False, compare=False)

    def close(self) -> None:
        """Give its room to the next large one."""
        if self.release is not None:
            self.release()


class AnswerCut(EgressCut):
    """The head of an answer came, and only a part of its body: `answer` is what came."""

    def __init__(self, error: EgressCut, answer: Answer) -> None:
        super().__init__(error.reason, str(error))
        self.answer = answer
        self.timing = error.timing
        self.head = answer.head


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a provider. Its headers hold our key, its URL may hold a token: neither is shown by `repr`."""

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)


class Egress(Protocol):
    """The port that the composition root hands in; every method raises `EgressError` and nothing else.

    How long the parts of a request took stands with its answer, and with the error where there is none.
    """

    async def deliver(
        self, url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float, read_bytes: int
    ) -> Answer:
        """POST an event to a subscriber, on a kept-alive connection where there is one.

        The request may be sent twice when a kept-alive connection turns out to be closed: receivers tell repeats by
        the event's id.

        Args:
            url: The subscriber's.
            body: The event as it was signed.
            headers: What is sent beside our own `User-Agent`, `Accept` and `Accept-Encoding`.
            timeout_s: One deadline over looking up, connecting, sending and the whole answer.
            read_bytes: How much of the answer's body is read at most.

        Raises:
            EgressRefused: The URL or its address is not allowed; nothing was sent.
            EgressNotSent: No connection came about; nothing was sent.
            EgressCut: The request may have arrived, a whole answer did not come back.
        """

    async def call(self, call: Call, *, timeout_s: float, read_bytes: int, fresh: bool = False) -> Answer:
        """Ask a provider; errors as for `deliver`.

        Args:
            call: What to ask.
            timeout_s: See `deliver`.
            read_bytes: See `deliver`.
            fresh: Dial a connection for this call alone and send the request once at most.

        Raises:
            AnswerCut: As `EgressCut`, but a part of the body came, which may hold all that was to be said.
        """

    async def check(self, url: str, *, unresolved_ok: bool = False) -> None:
        """Judge a URL that a caller handed in, before it is stored.

        Args:
            url: Anything.
            unresolved_ok: A name that does not exist (yet) is no fault.

        Raises:
            EgressRefused: It is no usable URL, its host does not exist, or its address is not allowed.
        """


class Download(Protocol):
    """A file on its way in; read to its end, then closed. Nothing of it is kept but what the reader keeps."""

    status: int
    headers: Mapping[str, str]  # names in lower case, repeated ones joined by ", "

    async def read(self) -> bytes:
        """The next piece as it was sent (never unpacked); nothing at the end.

        Raises:
            EgressCut: It stalled, took too long, or ended before its announced length.
        """

    def close(self) -> None:
        """Let go of the connection; safe at any moment."""


class Files(Protocol):
    """The part of the door that fetches files from hosts that a provider named: no key and no cookie goes along."""

    async def fetch(self, url: str, *, timeout_s: float, stall_s: float) -> Download:
        """GET a file; a redirect is an answer like any other. Errors as for `Egress.deliver`.

        Args:
            url: What the provider said.
            timeout_s: One deadline over everything, the reading included.
            stall_s: How long the server may say nothing.
        """
