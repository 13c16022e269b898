"""Reads the settings: from the environment before `.env` before `remora.toml` before the default.

In each of them a secret's own value counts before its `*_FILE`. Everything wrong is reported at once.
"""

from __future__ import annotations

import io
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal, Self

from dotenv.parser import parse_stream

from service import notation
from service.errors import SettingsInvalid
from service.settings import (
    PREFIX,
    PROVIDER_SETTINGS,
    PROVIDERS_PREFIX,
    SETTINGS,
    ProviderSettings,
    Setting,
    Settings,
    provider_variable,
)

_FILE: Final = "_FILE"
_Pairs = Iterator[tuple[str, str]]  # names and texts

_NEEDED_BESIDE_POSTGRESQL: Final = {
    "SECRET_KEY": "set it to 32 random characters or more, and keep them as safe as the database",
    "ADMIN_KEY": "set it to 24 random characters or more",
    "STORAGE_URL": "set a place for results that outlives this machine (s3://…, gs://…, az://…), file:/path, or none",
}

_BY_NAME: Final = {PREFIX + row.name: row for row in SETTINGS}
_BY_FIELD: Final = {row.name: row for row in PROVIDER_SETTINGS}


def load(environ: Mapping[str, str], directory: Path) -> Settings:
    """Read all settings; an empty value counts as not given.

    Args:
        environ: The process's environment, or what stands for it.
        directory: Where `.env` and `remora.toml` are, and what relative paths start from.

    Raises:
        SettingsInvalid: With a line for everything that is wrong.
    """
    directory = directory.absolute()
    problems: list[str] = []
    values = _Values.read(environ, directory, problems)
    found = {row.name.lower(): values.get(PREFIX + row.name, row) for row in SETTINGS}
    providers = {card: values.provider(card) for card in sorted(values.cards)}
    problems.extend(_contradictions(found, values, directory))
    if problems:
        raise SettingsInvalid(problems)
    return Settings(**_placed(found, values, directory), providers=providers)


def log_format(environ: Mapping[str, str], directory: Path) -> Literal["auto", "console", "json"]:
    """The form of the log, also where other settings are wrong: what is wrong is to be told in that form."""
    name = PREFIX + "LOG_FORMAT"
    found: Literal["auto", "console", "json"] | None = _Values.read(environ, directory, []).get(name, _BY_NAME[name])
    return found or "auto"


def _contradictions(found: dict[str, Any], values: _Values, directory: Path) -> Iterator[str]:
    """What is only wrong together with something else."""
    if (found["database_url"] or "").startswith("postgresql:"):
        # With SQLite these are made beside the file; a server has no such place, and a key on this machine would be one machine's.
        if find_spec("asyncpg") is None:
            yield "REMORA_DATABASE_URL: the driver for PostgreSQL is missing: pip install 'remora[postgres]'"
        for name, fix in _NEEDED_BESIDE_POSTGRESQL.items():
            if not values.given(PREFIX + name):
                yield f"{PREFIX}{name}: is needed with PostgreSQL: {fix}"
    if found["cards_dir"] is not None and not (directory / found["cards_dir"]).is_dir():
        yield f"REMORA_CARDS_DIR={notation.shown(str(found['cards_dir']))}: there is no such directory; make it, or leave it out"
    if found["moderation_key"] is not None and found["moderation_url"] is None:
        yield "REMORA_MODERATION_KEY: there is no moderator to use it at; set REMORA_MODERATION_URL, or leave the key out"


def _placed(found: dict[str, Any], values: _Values, directory: Path) -> dict[str, Any]:
    """Make relative paths absolute; results go beside the database where nothing else is said."""
    url = found["database_url"]
    database = directory / url.removeprefix("sqlite:///") if url.startswith("sqlite:") else None
    if database is not None:
        found["database_url"] = f"sqlite:///{database}"
    if not values.given("REMORA_STORAGE_URL"):
        beside = database or directory / "remora"
        found["storage_url"] = f"file:{beside.with_name(beside.name + '.results')}"
    if not values.given("REMORA_URL") and found["port"]:
        # The commands of this directory look for the service of this directory.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(found["host"], found["host"])
        found["url"] = f"http://{f'[{host}]' if ':' in host else host}:{found['port']}"
    for name in ("cards_dir", "moderation_list"):
        if found[name] is not None:
            found[name] = directory / found[name]
    return found


class _Values:
    """What the sources gave, the strongest first."""

    def __init__(self, directory: Path, problems: list[str]) -> None:
        self._directory = directory
        self._problems = problems
        self._texts: dict[str, tuple[str, str]] = {}  # name → text, source
        self.cards: set[str] = set()

    @classmethod
    def read(cls, environ: Mapping[str, str], directory: Path, problems: list[str]) -> Self:
        """From all sources, the strongest first."""
        values = cls(directory, problems)
        values.add("the environment", ((name, text) for name, text in environ.items() if name.startswith(PREFIX)))
        values.add(".env", _read(directory / ".env", _dotenv, problems))
        values.add("remora.toml", _read(directory / "remora.toml", _toml, problems))
        return values

    def add(self, source: str, pairs: _Pairs) -> None:
        """Take what a stronger source has not given; complain about names that mean nothing."""
        given = {name: text.strip() for name, text in pairs if text.strip()}
        for name in sorted(given):  # a name sorts before the same with _FILE, so that the value itself wins
            target = name if _row(name) else name.removesuffix(_FILE)
            row = _row(target)
            if row is None or (target != name and not row.secret):
                self._problems.append(_unknown(name, source))
                continue
            if name.startswith(PROVIDERS_PREFIX):
                self.cards.add(_card(name).lower().replace("_", "-"))
            if target in self._texts:
                continue
            text = given[name] if target == name else self._file(name, given[name])
            if text is not None:
                self._texts[target] = (text, source if target == name else f"the file that {name} names")

    def given(self, name: str) -> bool:
        """Whether any source has it."""
        return name in self._texts

    def get(self, name: str, row: Setting) -> Any:
        """The parsed value; None where there is none or it is wrong, which is noted."""
        text, source = self._texts.get(name, (row.default, ""))
        if text is None:
            return None
        try:
            if not text.isprintable():
                raise ValueError("it holds control characters; take them out")
            return row.parse(text)
        except ValueError as error:
            shown = "" if row.secret else f"={notation.shown(text)}"
            self._problems.append(f"{name}{shown} (from {source}): {error}")
            return None

    def provider(self, card: str) -> ProviderSettings:
        """The settings of one card."""
        found = {name.lower(): self.get(provider_variable(card, name), row) for name, row in _BY_FIELD.items()}
        return ProviderSettings(webhook_secrets=found.pop("webhook_secret") or (), **found)

    def _file(self, name: str, path: str) -> str | None:
        try:
            text = (self._directory / path).read_text("utf-8-sig").strip()
        except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a NUL in the path
            self._problems.append(
                f"{name}={notation.shown(path)}: cannot be read ({getattr(error, 'strerror', None) or 'no UTF-8 text'})"
            )
            return None
        if not text:
            self._problems.append(f"{name}={notation.shown(path)}: the file is empty; write the secret into it")
        return text or None


def _card(name: str) -> str:
    return name.removeprefix(PROVIDERS_PREFIX).partition("__")[0]


def _row(name: str) -> Setting | None:
    if not name.startswith(PROVIDERS_PREFIX):
        return _BY_NAME.get(name)
    known_form = re.fullmatch(r"[A-Z0-9]+(_[A-Z0-9]+)*", _card(name))
    return _BY_FIELD.get(name.removeprefix(f"{PROVIDERS_PREFIX}{_card(name)}__")) if known_form else None


def _unknown(name: str, source: str) -> str:
    known = [*_BY_NAME, *(key + _FILE for key, row in _BY_NAME.items() if row.secret)]
    if name.startswith(PROVIDERS_PREFIX):
        known = [f"{PROVIDERS_PREFIX}{_card(name).upper() or '<CARD>'}__{ending}" for ending in _BY_FIELD]
    elif re.fullmatch(rf"{PREFIX}(SERVICE_HOST|SERVICE_PORT.*|PORT_[0-9]+_.*)", name):
        return f"{name} (from {source}): Kubernetes sets it for a service of this name: set enableServiceLinks to false"
    return f"{name} (from {source}): there is no such setting{notation.did_you_mean(name, known) or '; remove it'}"


def _read(path: Path, parse: Callable[[str], _Pairs], problems: list[str]) -> _Pairs:
    """What a file gives; nothing where there is none. A file that cannot be read is a problem."""
    try:
        yield from parse(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        reason = error.strerror if isinstance(error, OSError) else str(error)
        problems.append(f"{path.name}: cannot be read ({reason})")


def _dotenv(text: str) -> _Pairs:
    """The REMORA_ part of a `.env`, which other programs may share."""
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            raise ValueError(f"line {binding.original.line} is not NAME=value")
        if binding.key is not None and binding.key.startswith(PREFIX):
            yield binding.key, binding.value or ""


def _toml(text: str) -> _Pairs:
    """`database_url = …`, `[retention]`, `[providers.sharkapi-v1]` as if they were variables."""
    for key, value in tomllib.loads(text).items():
        if key == "providers" and isinstance(value, dict):
            for card, rows in value.items():
                for name, entry in rows.items() if isinstance(rows, dict) else [("", rows)]:
                    yield provider_variable(card, name.upper()), _text(entry)
        else:
            yield PREFIX + key.upper(), _text(value)


def _text(value: object) -> str:
    if isinstance(value, dict):
        value = [f"{key}={entry}" for key, entry in value.items()]
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
