"""Adapters: Python functions for what a card cannot say, installed beside Remora under the entry point group `remora.adapters`.

Owns what an adapter is told and gives back, how it is found, and that nothing it does breaks a job. Requests, waiting,
limits and the egress gate stay Remora's: an adapter only computes. It must not know jobs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from typing import Any, Final, Literal, Self, TypeVar

from service.egress import Answer, Call
from service.errors import AdapterFailed
from service.providers import guard
from service.providers.client import PollOutcome, SubmitOutcome
from service.providers.documents.reading import UNPACKED_CALLBACK_BYTES, read, read_callback
from service.providers.documents.unpacking import MOST_BYTES, is_packed, unpacked
from service.providers.mapping import Observation
from service.providers.signatures import Judged

GROUP: Final = "remora.adapters"
FUNCTIONS: Final = ("build", "parse_submit", "parse_poll", "parse_callback", "verify")

_Kept = TypeVar("_Kept")
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Ask:
    """What `build` makes a request for.

    Args:
        given: The caller's input; empty but for `submit`.
        call: The request that the card describes; None where it describes none.
        base_url: The card's, with the operator's setting applied.
        secret: Our key at the provider.
    """

    purpose: Literal["submit", "poll", "result", "cancel"]
    operation: str
    given: Mapping[str, object]
    task_id: str | None
    callback_url: str | None
    call: Call | None
    base_url: str
    secret: str | None


@dataclass(frozen=True, slots=True)
class Heard:
    """What the other functions read: an answer or a callback.

    Args:
        status: Of an answer; 0 for a callback.
        headers: Names in lower case.
        body: As it came to `verify`; for the others without its content codings.
        url: What a callback asked for, with the query; empty for an answer.
        now_ms: The time, for tolerances.
    """

    operation: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str = ""
    now_ms: int = 0

    @property
    def document(self) -> Any:
        """The body as JSON, read as leniently as a card's; None when it is none."""
        reading = read(self.body, self.headers) if self.status else read_callback(self.body, self.headers)
        return reading.document


class Adapter:
    """The functions of one adapter, each optional, called so that none of them can break a job.

    Args:
        provider: Whose card names it, for the log.
    """

    def __init__(self, name: str, functions: object, provider: str = "") -> None:
        self.name = name
        self._provider = provider
        self._functions = {called: getattr(functions, called, None) for called in FUNCTIONS}
        wrong = [called for called, found in self._functions.items() if found is not None and not callable(found)]
        if wrong:
            raise AdapterFailed(f"{wrong[0]} of adapter {name!r} is no function")
        if not any(self._functions.values()):
            raise AdapterFailed(f"adapter {name!r} has none of the functions {', '.join(FUNCTIONS)}")

    def has(self, called: str) -> bool:
        """Whether the adapter has this function; what it lacks the card does."""
        return self._functions[called] is not None

    def build(self, ask: Ask) -> Call | None:
        """The request for what is asked."""
        return self._given("build", ask.operation, ask.call, Call, ask)

    def parse_submit(self, heard: Heard, by_card: SubmitOutcome) -> SubmitOutcome:
        """What the answer to a submission means, given what the card makes of it."""
        return self._given("parse_submit", heard.operation, by_card, SubmitOutcome, heard, by_card)

    def parse_poll(self, heard: Heard, by_card: PollOutcome) -> PollOutcome:
        """What the answer to a poll means, given what the card makes of it."""
        return self._given("parse_poll", heard.operation, by_card, PollOutcome, heard, by_card)

    def parse_callback(self, heard: Heard, by_card: Observation) -> Observation:
        """What a callback says, given what the card makes of it."""
        return self._given("parse_callback", heard.operation, by_card, Observation, heard, by_card)

    def verify(self, heard: Heard, secrets: tuple[str, ...]) -> Judged:
        """Who sent a callback."""
        return self._given(
            "verify", heard.operation, Judged(None, False, "nothing verifies it"), Judged, heard, secrets
        )

    def _given(
        self, called: str, operation: str, by_card: _Kept, kind: type[_Found], *arguments: object
    ) -> _Kept | _Found:
        function = self._functions[called]
        if function is None:
            return by_card
        step = guard.Step(self._provider, operation, called, self.name)
        return guard.checked(step, guard.run(step, function, *arguments), kind)


class Adapters:
    """The adapters that cards may name; none is imported before a card names it.

    Args:
        loaders: By name, what imports and gives the module or object with the functions.
    """

    def __init__(self, loaders: Mapping[str, Callable[[], object]]) -> None:
        self._loaders = loaders

    @classmethod
    def installed(cls) -> Self:
        """The entry points of all packages in this environment."""
        return cls({point.name: point.load for point in _points()})

    @property
    def names(self) -> Collection[str]:
        """What a card can write as its `adapter`."""
        return self._loaders.keys()

    def load(self, name: str, provider: str = "") -> Adapter:
        """Import an adapter.

        Args:
            name: What a card writes.
            provider: The card's own name.

        Raises:
            AdapterFailed: There is none of this name, it cannot be imported, or it has no function to use.
        """
        loader = self._loaders.get(name)
        if loader is None:
            raise AdapterFailed(f"there is no adapter {name!r}")
        try:
            functions = loader()
        except (Exception, SystemExit) as error:  # importing runs the code of others, which may raise anything
            raise AdapterFailed(f"adapter {name!r} cannot be imported: {type(error).__name__}: {error}") from error
        return Adapter(name, functions, provider)


@functools.cache
def _points() -> tuple[Any, ...]:
    """Looking through all installed packages takes a while, and they do not change while a process lives."""
    return tuple(entry_points(group=GROUP))


def answered(operation: str, answer: Answer) -> Heard:
    """An answer, as an adapter reads it."""
    return unpacked_for(Heard(operation, answer.status, answer.headers, b"" if answer.truncated else answer.body))


def unpacked_for(heard: Heard) -> Heard:
    """What was heard without its content codings, where they can be undone."""
    encoding = heard.headers.get("content-encoding")
    if not is_packed(heard.body, encoding):
        return heard
    made = unpacked(heard.body, encoding, MOST_BYTES if heard.status else UNPACKED_CALLBACK_BYTES)
    if made.fault is not None:
        return heard
    headers = {name: value for name, value in heard.headers.items() if name != "content-encoding"}
    return replace(heard, headers=headers, body=made.data)
