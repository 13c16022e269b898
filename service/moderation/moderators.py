"""The moderators that come along: a list of words in a file, a service that speaks as OpenAI's does, and Python code of others.

Each keeps to its own time limit and tells a fault as silence; what that means is `moderation`'s to say.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
from pydantic import SecretStr

from service.clock import Clock
from service.egress import Answer, Call, Egress
from service.errors import EgressError, SettingsInvalid
from service.moderation.moderation import MAX_CATEGORIES, Asked, Judgement, Moderator, Silent, plain
from service.moderation.wordlist import MAX_BYTES, WordList
from service.providers.documents.reading import beside, read
from service.settings import Settings
from service.telemetry import SparingLog

GROUP: Final = "remora.moderators"
LISTED: Final = "word list"  # the category of what the list holds
LOOK_S: Final = 1.0  # between two looks at the list's file
INLINE_CHARS: Final = 8_192  # of texts that are judged at once; longer ones must not hold up everybody else
MAX_ANSWER_BYTES: Final = 256 * 1024  # of a moderation service's answer
HIDDEN: Final = "[hidden]"
_KEY_PIECE: Final = 12  # characters of our key in a row that nobody may see

_log = structlog.get_logger(__name__)


class ListModerator:
    """Judges by a word list, which is read anew when its file changes; a file that is wrong, empty or gone leaves the last one in force."""

    name = "list"

    def __init__(self, path: Path, clock: Clock) -> None:
        """Read the list.

        Raises:
            SettingsInvalid: It cannot be read, or lines of it are wrong.
        """
        self._path = path
        self._clock = clock
        self._looked = clock.monotonic()
        self._hits = SparingLog(__name__, clock)
        self._told: tuple[object, ...] = ()  # what the log knows already of a file that cannot be read
        try:
            self._stamp = _stamp(path)
            self._words, problems = _read(path)
        except OSError as error:
            problems = [_unreadable(error)]
        if problems:
            raise SettingsInvalid([f"REMORA_MODERATION_LIST: {path}: {problem}" for problem in problems])

    async def judge(self, asked: Asked) -> Judgement | Silent:
        """See `Moderator`."""
        await self._refresh()
        if sum(map(len, asked.texts)) <= INLINE_CHARS:
            lines = self._words.found_in(asked.texts)
        else:
            lines = await asyncio.to_thread(self._words.found_in, asked.texts)
        if lines:
            # Lines are the operator's affair: to a caller they would only say how to feel for the list.
            self._hits.say(
                "info", "moderation_list_hit", account=asked.account_id, provider=asked.provider, lines=lines
            )
        return Judgement(bool(lines), (LISTED,) if lines else ())

    async def _refresh(self) -> None:
        now = self._clock.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        try:
            # The stamp is older than what is read: a file that changes meanwhile is read once more.
            stamp = await asyncio.to_thread(_stamp, self._path)
            if stamp == self._stamp:
                self._told = ()
                return
            words, problems = await asyncio.to_thread(_read, self._path)
        except OSError as error:
            self._tell(error.errno, [_unreadable(error)])  # looked at again next time, whatever its stamp
            return
        self._stamp = stamp
        if words.is_empty and not problems and not self._words.is_empty:
            problems = ["holds no entries any more; restart to go on without any"]
        if problems:
            self._tell(stamp, problems)
            return
        self._words, self._told = words, ()
        _log.info("moderation_list_read", path=str(self._path))

    def _tell(self, about: object, problems: list[str]) -> None:
        if self._told == (about, problems):
            return
        self._told = (about, problems)
        _log.error("moderation_list_wrong", path=str(self._path), problems=problems[:10], in_force="the one before")


def _stamp(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)


def _unreadable(error: OSError) -> str:
    return f"cannot be read ({error.strerror})"


def _read(path: Path) -> tuple[WordList, list[str]]:
    with path.open("rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        return WordList(), [f"has more than {MAX_BYTES} bytes"]
    try:
        words = WordList.parse(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        return WordList(), [f"line {line}: is not UTF-8"]
    return words, words.problems


@dataclass(frozen=True, slots=True)
class HTTPModerator:
    """Asks a service in the manner of OpenAI's `POST /v1/moderations`: one result for each text, any flagged one decides."""

    egress: Egress
    url: str
    key: SecretStr | None
    model: str
    timeout_s: float
    name: str = "http"

    async def judge(self, asked: Asked) -> Judgement | Silent:
        """See `Moderator`."""
        headers = {"Content-Type": "application/json"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key.get_secret_value()}"
        body = msgspec.json.encode({"model": self.model, "input": asked.texts})
        try:
            answer = await self.egress.call(
                Call("POST", self.url, headers, body), timeout_s=self.timeout_s, read_bytes=MAX_ANSWER_BYTES
            )
        except EgressError as error:
            return Silent(f"{error.reason}: {error}")
        if answer.status != 200 or answer.truncated:
            return Silent(f"it answered {answer.status}" + (", too much of it" if answer.truncated else ""))
        said = await beside(answer.body, answer.headers, _judgement, answer, len(asked.texts))
        if said is None:
            return Silent("its answer is none of a moderator")
        return Judgement(said.flagged, tuple(map(self._scrubbed, said.categories)))

    def _scrubbed(self, category: str) -> str:
        """The category, unless it holds our key or much of it: categories are shown to callers."""
        if self.key is None:
            return category
        key, seen = self.key.get_secret_value(), plain(category).casefold()
        size = min(len(key), _KEY_PIECE)
        pieces = {key[at : at + size].casefold() for at in range(len(key) - size + 1)}
        return HIDDEN if any(piece in seen for piece in pieces) else category


def _judgement(answer: Answer, texts: int) -> Judgement | None:
    """What an answer says; None where it is not what the form wants, one result for each text included."""
    document = read(answer.body, answer.headers).document
    results = document.get("results") if isinstance(document, dict) else None
    if not isinstance(results, list) or len(results) != texts:
        return None
    if not all(isinstance(each, dict) and isinstance(each.get("flagged"), bool) for each in results):
        return None
    flagged = [each for each in results if each["flagged"]]
    found = [name for each in flagged for name, is_so in _entries(each.get("categories")) if is_so is True]
    return Judgement(bool(flagged), tuple(dict.fromkeys(found))[:MAX_CATEGORIES])


def _entries(categories: object) -> list[tuple[str, object]]:
    return list(categories.items()) if isinstance(categories, Mapping) else []


@dataclass(frozen=True, slots=True)
class PluginModerator:
    """Code of others: a module or object with `async def moderate(asked: Asked) -> Judgement`. Whatever it does, no job breaks by it."""

    name: str
    moderate: Callable[[Asked], Any]
    timeout_s: float

    async def judge(self, asked: Asked) -> Judgement | Silent:
        """See `Moderator`."""
        try:
            async with asyncio.timeout(self.timeout_s):
                return _checked(await self.moderate(asked))
        except TimeoutError:
            return Silent(f"it did not answer within {self.timeout_s:g} s")
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return Silent("it raised CancelledError")  # by itself: nobody cancelled the job
        except (Exception, SystemExit) as error:  # the code of others may raise anything, and a job must survive it
            return Silent(f"it raised {type(error).__name__}")  # not its text, which may quote a prompt


def _checked(said: object) -> Judgement | Silent:
    """What a plugin gave, copied; what is none of its type's own values is taken for nothing at all."""
    if not isinstance(said, Judgement) or (said.flagged is not True and said.flagged is not False):
        return Silent("it gave no Judgement")
    categories: object = said.categories
    if not isinstance(categories, tuple | list) or not all(isinstance(word, str) for word in categories):
        return Silent("it gave no Judgement")
    return Judgement(said.flagged, tuple(categories))


@functools.cache
def installed() -> dict[str, Callable[[], object]]:
    """What imports the moderators of all packages in this environment, by name."""
    return {point.name: point.load for point in sorted(entry_points(group=GROUP), key=lambda point: point.name)}


def moderators(
    settings: Settings, egress: Egress, clock: Clock, loaders: Mapping[str, Callable[[], object]]
) -> list[Moderator]:
    """All moderators that the settings and the environment name, the cheapest first.

    Raises:
        SettingsInvalid: One of them cannot be used; unmoderated is nothing that a service may quietly be.
    """
    timeout_s = settings.moderation_timeout.total_seconds()
    found: list[Moderator] = []
    if settings.moderation_list is not None:
        found.append(ListModerator(settings.moderation_list, clock))
    found += [_plugin(name, load, timeout_s) for name, load in loaders.items()]
    if settings.moderation_url is not None:
        key, model = settings.moderation_key, settings.moderation_model
        found.append(HTTPModerator(egress, settings.moderation_url, key, model, timeout_s))
    return found


def _plugin(name: str, load: Callable[[], object], timeout_s: float) -> PluginModerator:
    try:
        moderate = getattr(load(), "moderate", None)
    except Exception as error:  # importing runs the code of others, which may raise anything
        message = f"{GROUP}: {name!r} cannot be imported: {type(error).__name__}: {error}"
        raise SettingsInvalid([message]) from error
    if not asyncio.iscoroutinefunction(moderate):
        raise SettingsInvalid([f"{GROUP}: {name!r} has no `async def moderate(asked)`"])
    return PluginModerator(name, moderate, timeout_s)
