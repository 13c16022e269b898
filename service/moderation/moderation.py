"""Moderation before generation: what is judged of an input, who judges it, and what a job's verdict is.

Owns the port of moderators, the texts of an input, the order of judging and what a moderator's silence means. It must not
know how a job goes on: `workers.submit` asks, and `transitions.submission` says what follows. The built-in moderators are in `moderators`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import msgspec
import structlog

from service.clock import Clock, Randomness, iso
from service.providers.breaker import Breaker

MAX_CHARS: Final = 200_000  # of all texts of an input; nobody judges more
MAX_CATEGORIES: Final = 50  # of a verdict that are kept
MAX_CATEGORY: Final = 100  # characters
MAX_URL: Final = 8_192  # characters; what is longer is judged
_MIN_FILE: Final = 256  # characters of base64; what is shorter may as well be judged
#: Lines of 60 characters or more, so that no words between blanks look like a file; the last may be shorter.
_BASE64: Final = re.compile(
    r"(?:(?:[A-Za-z0-9+/]{60,}+\r?\n)*+[A-Za-z0-9+/]*+|(?:[A-Za-z0-9_-]{60,}+\r?\n)*+[A-Za-z0-9_-]*+)={0,2}(?:\r?\n)?"
)
_DATA_URL: Final = re.compile(
    r"(?i)data:(?:image|video|audio|application)/[\w.+-]{1,60}(?:;[\w.+=-]{1,60}){0,5};base64,"
)
_URL: Final = re.compile(r"(?i)(https?|s3|gs|ipfs)://\S+")
#: How files begin that providers take: their offset and their bytes.
_MAGIC: Final = (
    *((0, b"\xff\xd8\xff" + bytes([marker])) for marker in (0xDB, 0xEE, 0xFE, *range(0xE0, 0xEE))),  # JPEG
    (0, b"\x89PNG\r\n\x1a\n"),
    (0, b"GIF87a"),
    (0, b"GIF89a"),
    (0, b"II*\x00"),  # TIFF
    (0, b"MM\x00*"),
    (6, b"\x00\x00\x00\x00"),  # BMP, after BM and its size
    (8, b"WEBP"),
    (8, b"WAVE"),
    (8, b"AVI "),
    (4, b"ftyp"),  # MP4, MOV, AVIF, HEIC
    (0, b"\x1a\x45\xdf\xa3"),  # WebM
    (0, b"OggS"),
    (0, b"ID3"),
    (0, b"fLaC"),
    (0, b"%PDF-"),
    (0, b"PK\x03\x04"),
    (0, b"glTF"),
)
_MAGIC_LEADS: Final = {6: b"BM", 8: b"RIFF"}  # what stands at the beginning besides, by offset
#: Names of fields whose strings are judged whatever they look like, so that no prompt hides as a link.
_PROMPTS: Final = re.compile(r"(?i)prompt|text|caption|instruct|descri|content|message")
_FILES: Final = re.compile(r"(?i)(?<![a-z])(image|img|picture|photo|mask|file|ur[li]|video|audio)(s|\d*)(?![a-z])")
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
#: Names of fields that say nothing of what is wanted, whatever a card calls its own.
_USUAL: Final = re.compile(
    r"model|prompt|negative_prompt|images?|image_urls?|mask|messages|role|content|type|text|url|width|height|size|aspect_ratio"
    r"|n|seed|steps|quality|style|format|output_format"
)

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
        self._down: set[str] = set()  # of whom the log says so

    async def rule(
        self, account_id: str, provider: str, operation: str, given: Mapping[str, Any], known: Collection[str] = ()
    ) -> Ruling:
        """Judge an input; `known` are the fields that the provider's card describes."""
        texts = tuple(texts_of(given, known))
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
            said = await self._judged(moderator, breaker, asked)
            if isinstance(said, Silent):
                silent = silent or (moderator.name, said.reason)
            elif said.flagged:
                return Ruling("blocked", moderator.name, said.categories)
        if silent is None:
            return Ruling("passed", names)
        return Ruling("skipped" if self._fail_open else "waiting", silent[0], (), silent[1])

    async def _judged(self, moderator: Moderator, breaker: Breaker, asked: Asked) -> Judgement | Silent:
        if not breaker.allows():
            return Silent(f"it is down: {breaker.last_error}")
        breaker.begin()
        said = await moderator.judge(asked)
        if isinstance(said, Silent):
            breaker.failed(said.reason)
            self._tell_down(moderator.name, breaker, said.reason)
            return said
        breaker.worked()
        if moderator.name in self._down:
            self._down.discard(moderator.name)
            _log.warning("moderator_back", moderator=moderator.name)
        words = dict.fromkeys(
            plain(word[: 2 * MAX_CATEGORY])[:MAX_CATEGORY] for word in said.categories[:MAX_CATEGORIES]
        )
        return Judgement(said.flagged, tuple(filter(None, words)))

    def _tell_down(self, name: str, breaker: Breaker, reason: str) -> None:
        """Once until it is back: when jobs wait for it, and at the first job that nobody judged where they go on."""
        if name in self._down or not (self._fail_open or breaker.is_open):
            return
        self._down.add(name)
        _log.warning("moderator_down", moderator=name, error=reason, jobs="go unjudged" if self._fail_open else "wait")


def plain(word: str) -> str:
    """A moderator's word as it can be stored and shown: nothing that does not print."""
    return "".join(char for char in word if char.isprintable())


def texts_of(given: Mapping[str, Any], known: Collection[str] = ()) -> Iterator[str]:
    """All that may be a prompt in an input, at any depth: its strings but links and files, and the names that no card gave.

    Args:
        given: The input.
        known: The fields that the provider's card describes.
    """
    names: dict[str, None] = {}
    for name, value in given.items():
        if str(name) not in known:
            names[str(name)] = None
        yield from _texts(str(name), value, names, within=False)
    asked = [name for name in names if name.strip() and _USUAL.fullmatch(name) is None]
    if asked:
        yield "\n".join(asked)  # one text, since some services are paid by the text


def _texts(name: str, value: Any, names: dict[str, None], *, within: bool) -> Iterator[str]:
    """The texts of a field.

    Args:
        name: The innermost.
        value: What it holds.
        names: Where those of inner fields are gathered.
        within: Whether an outer field's name speaks of prompts: then the inner ones cannot say otherwise.
    """
    if isinstance(value, str):
        if value.strip() and not _is_elsewhere(name, value, within=within):
            yield value
    elif isinstance(value, dict):
        within = within or _PROMPTS.search(name) is not None
        for inner, entry in value.items():
            names[str(inner)] = None
            yield from _texts(str(inner), entry, names, within=within)
    elif isinstance(value, list):
        for entry in value:
            yield from _texts(name, entry, names, within=within)


def _is_elsewhere(name: str, value: str, *, within: bool) -> bool:
    """Whether the string is a link or a file, in a place where one belongs: its words, if any, are not in the string.

    Pictures stand in messages and in fields like `image_prompt` too, but only their own bytes tell them from words there.
    """
    holds_files = _FILES.search(_CAMEL.sub("_", name)) is not None
    speaks = within or _PROMPTS.search(name) is not None
    prefix = _DATA_URL.match(value[:500])
    if prefix is not None:
        return (holds_files or not speaks) and _is_file(value[prefix.end() :], sure=not holds_files or speaks)
    if speaks and not holds_files:
        return False
    if _URL.fullmatch(value, endpos=MAX_URL + 1) is not None and len(value) <= MAX_URL:
        return holds_files and not speaks
    return len(value) >= _MIN_FILE and _is_file(value, sure=True)


def _is_file(encoded: str, *, sure: bool) -> bool:
    """Whether this is base64, and where that must be sure also of a file that we know."""
    if _BASE64.fullmatch(encoded) is None:
        return False
    letters = len(encoded) - sum(map(encoded.count, "\r\n="))
    head = encoded[:32].translate(_STANDARD).rstrip("=\r\n")
    return letters % 4 != 1 and (not sure or _has_magic(base64.b64decode(head[: len(head) // 4 * 4])))


_STANDARD: Final = str.maketrans("-_", "+/")


def _has_magic(head: bytes) -> bool:
    return any(head.startswith(_MAGIC_LEADS.get(at, b"")) and head.startswith(magic, at) for at, magic in _MAGIC)
