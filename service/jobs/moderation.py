"""Moderation before generation: what is judged of an input, who judges it, and what a job's verdict is.

Owns the port of moderators, the texts of an input, the order of judging and what a moderator's silence means. It must not
know how a job goes on: `submit` asks, and `submitting` says what follows. The built-in moderators are in `moderators`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import msgspec
import structlog

from service.clock import Clock, Randomness, iso
from service.providers.breaker import Breaker

MAX_CHARS: Final = 200_000  # of all texts of an input; nobody judges more
MAX_CATEGORIES: Final = 50
MAX_CATEGORY: Final = 100  # characters
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_=\s-]{256,}")
_URL: Final = re.compile(r"(?i)(https?://|data:|s3://|gs://|ipfs://)\S*")
#: Names of fields whose strings are judged whatever they look like, so that no prompt hides as a link.
_PROMPTS: Final = re.compile(r"(?i)prompt|text|caption|instruct|descri|content|message")
_FILES: Final = re.compile(r"(?i)image|mask|file|url|video|audio|photo")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a moderator judges: the texts of one job's input, at least one."""

    account_id: str
    provider: str
    operation: str
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a moderator says; `categories` are its own words for what it found."""

    flagged: bool
    categories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Silent:
    """A moderator gave no judgement; `reason` is for operators and holds no secret."""

    reason: str


class Moderator(Protocol):
    """Somebody who judges. It answers within its own time limit and never raises."""

    @property
    def name(self) -> str:
        """As it is recorded on jobs."""

    async def judge(self, asked: Asked) -> Judgement | Silent:
        """Judge the texts."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What follows for a job.

    Args:
        verdict: `waiting`: nobody can say yet, and the job must not go without.
        by: Who decided; for `passed` all who judged.
    """

    verdict: Literal["passed", "blocked", "skipped", "waiting"]
    by: str
    categories: tuple[str, ...] = ()
    reason: str | None = None

    def record(self, now_ms: int) -> str:
        """As it is kept on the job, and shown."""
        shown = {"verdict": self.verdict, "by": self.by, "categories": self.categories, "at": iso(now_ms)}
        return msgspec.json.encode(shown).decode()


def is_ruled(record: str | None) -> bool:
    """Whether a recorded verdict is one to go by: it is not asked for again."""
    return record is not None and msgspec.json.decode(record)["verdict"] != "waiting"


class Observer(Protocol):
    """Who counts verdicts (telemetry)."""

    def moderated(self, verdict: str) -> None:
        """A job was judged."""


class Moderation:
    """All moderators, asked in turn; the first that objects decides.

    Args:
        moderators: The cheapest first.
        fail_open: A job goes on where a moderator is silent; else it waits for it until its deadline.
        clock: For breakers.
        randomness: For breakers.
        observer: Told of every verdict.
    """

    def __init__(
        self,
        moderators: Sequence[Moderator],
        *,
        fail_open: bool,
        clock: Clock,
        randomness: Randomness,
        observer: Observer,
    ) -> None:
        # A moderator that is down is asked now and then only: its time limit would hold up every job.
        self._moderators = [(moderator, Breaker(clock, randomness)) for moderator in moderators]
        self._fail_open = fail_open
        self._observer = observer

    async def rule(self, account_id: str, provider: str, operation: str, given: Mapping[str, Any]) -> Ruling:
        """Judge an input."""
        texts = tuple(texts_of(given))
        ruling = await self._rule(Asked(account_id, provider, operation, texts))
        self._observer.moderated(ruling.verdict)
        return ruling

    async def _rule(self, asked: Asked) -> Ruling:
        names = ",".join(moderator.name for moderator, _ in self._moderators)
        if not asked.texts:
            return Ruling("passed", names)
        if sum(map(len, asked.texts)) > MAX_CHARS:
            verdict: Literal["skipped", "blocked"] = "skipped" if self._fail_open else "blocked"
            return Ruling(verdict, names, ("too_long",), f"the input has more than {MAX_CHARS} characters to judge")
        silent: tuple[str, str] | None = None
        for moderator, breaker in self._moderators:
            said = await _judged(moderator, breaker, asked)
            if isinstance(said, Silent):
                silent = silent or (moderator.name, said.reason)
            elif said.flagged:
                return Ruling("blocked", moderator.name, said.categories)
        if silent is None:
            return Ruling("passed", names)
        return Ruling("skipped" if self._fail_open else "waiting", silent[0], (), silent[1])


async def _judged(moderator: Moderator, breaker: Breaker, asked: Asked) -> Judgement | Silent:
    if not breaker.allows():
        return Silent(f"it is down: {breaker.last_error}")
    breaker.begin()
    said = await moderator.judge(asked)
    was_open = breaker.is_open
    if isinstance(said, Silent):
        breaker.failed(said.reason)
        if breaker.is_open and not was_open:
            _log.warning("moderator_down", moderator=moderator.name, error=said.reason)
        return said
    breaker.worked()
    if was_open:
        _log.warning("moderator_back", moderator=moderator.name)
    categories = tuple(word[:MAX_CATEGORY] for word in said.categories[:MAX_CATEGORIES])
    return Judgement(said.flagged, categories)


def texts_of(given: Mapping[str, Any]) -> Iterator[str]:
    """The strings of an input that may be prompts: all at any depth but links and files, and those too where the field's name speaks of text."""
    for name, value in given.items():
        yield from _texts(str(name), value)


def _texts(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, str):
        is_prompt = _PROMPTS.search(name) is not None and _FILES.search(name) is None
        if value.strip() and (is_prompt or not (_URL.fullmatch(value) or _BASE64.fullmatch(value))):
            yield value
    elif isinstance(value, dict):
        for inner, entry in value.items():
            yield from _texts(str(inner), entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _texts(name, entry)
