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
from service.egress import Call, Egress
from service.errors import EgressError, SettingsInvalid
from service.jobs.moderation import Asked, Judgement, Moderator, Silent
from service.jobs.wordlist import MAX_BYTES, WordList
from service.settings import Settings

GROUP: Final = "remora.moderators"
LOOK_S: Final = 1.0  # between two looks at the list's file
INLINE_CHARS: Final = 8_192  # of texts that are judged at once; longer ones must not hold up everybody else
MAX_ANSWER_BYTES: Final = 256 * 1024

_log = structlog.get_logger(__name__)


class ListModerator:
    """Judges by a word list, which is read anew when its file changes; a file that is wrong or gone leaves the last one in force."""

    name = "list"

    def __init__(self, path: Path, clock: Clock) -> None:
        """Read the list.

        Raises:
            SettingsInvalid: It cannot be read, or lines of it are wrong.
        """
        self._path = path
        self._clock = clock
        self._looked = clock.monotonic()
        self._stamp = _stamp(path)
        self._words, problems = _read(path)
        if problems:
            raise SettingsInvalid([f"REMORA_MODERATION_LIST: {path}: {problem}" for problem in problems])

    async def judge(self, asked: Asked) -> Judgement | Silent:
        """See `Moderator`."""
        await self._refresh()
        if sum(map(len, asked.texts)) <= INLINE_CHARS:
            lines = self._words.found_in(asked.texts)
        else:
            lines = await asyncio.to_thread(self._words.found_in, asked.texts)
        return Judgement(bool(lines), tuple(f"line {number}" for number in lines))

    async def _refresh(self) -> None:
        now = self._clock.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        stamp = await asyncio.to_thread(_stamp, self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        words, problems = await asyncio.to_thread(_read, self._path)
        if problems:
            _log.error("moderation_list_wrong", path=str(self._path), problems=problems[:10], in_force="the one before")
        else:
            self._words = words
            _log.info("moderation_list_read", path=str(self._path))


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _read(path: Path) -> tuple[WordList, list[str]]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            return WordList(), [f"has more than {MAX_BYTES} bytes"]
        words = WordList.parse(raw.decode("utf-8-sig"))
    except OSError as error:
        return WordList(), [f"cannot be read ({error.strerror})"]
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
        return _judgement(answer.body, len(asked.texts)) or Silent("its answer is none of a moderator")


def _judgement(body: bytes, texts: int) -> Judgement | None:
    """What an answer says; None where it is not what the form wants, one result for each text included."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    results = document.get("results") if isinstance(document, dict) else None
    if not isinstance(results, list) or len(results) != texts:
        return None
    if not all(isinstance(each, dict) and isinstance(each.get("flagged"), bool) for each in results):
        return None
    flagged = [each for each in results if each["flagged"]]
    found = [name for each in flagged for name, is_so in _entries(each.get("categories")) if is_so is True]
    return Judgement(bool(flagged), tuple(dict.fromkeys(found)))


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
                said = await self.moderate(asked)
        except TimeoutError:
            return Silent(f"it did not answer within {self.timeout_s:g} s")
        except Exception as error:  # the code of others may raise anything, and a job must survive it
            return Silent(f"it raised {type(error).__name__}")  # not its text, which may quote a prompt
        if not isinstance(said, Judgement) or not all(isinstance(word, str) for word in said.categories):
            return Silent("it gave no Judgement")
        return said


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
