"""The settings: one table, read once at start, frozen afterwards.

Owns names, forms, defaults and where values come from: the environment before `.env` before `remora.toml` before the
default, and in each of them a secret's own value before its `*_FILE`. Everything wrong is reported at once. It must
not know what the settings are used for, nor which provider cards exist: the registry checks the names of cards.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import SecretStr

from service import notation, sources
from service.errors import SettingsInvalid

PREFIX: Final = "REMORA_"
PROVIDERS_PREFIX: Final = "REMORA_PROVIDERS__"
PRICE_CEILING: Final = 1_000_000  # micro-USD, held for a price that only the completion tells
_FILE: Final = "_FILE"
_Pairs = Iterator[tuple[str, str]]  # names and texts


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """What the operator says about one card; None: as the card says."""

    api_key: SecretStr | None = None
    base_url: str | None = None
    callbacks: Literal["auto", "off"] | None = None
    verify: Literal["fetch", "trust"] | None = None
    fallback_after: timedelta | None = None
    poll_every: timedelta | None = None
    max_in_flight: int | None = None
    max_submits: int | None = None
    submit_rate: notation.SubmitRate | None = None
    webhook_secrets: tuple[SecretStr, ...] = ()  # one that fits is enough; the first is told to the provider
    price_ceiling: int | None = None  # micro-USD


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of a process; made by `load`. Paths are absolute, URLs have no slash at the end."""

    database_url: str = field(repr=False)  # a PostgreSQL URL holds a password
    host: str
    port: int  # 0: any free one
    public_url: str | None
    admin_key: SecretStr | None
    secret_key: SecretStr | None
    egress_allow: tuple[IPv4Network | IPv6Network, ...]
    storage_url: str | None  # None: results are not copied
    result_ttl: timedelta
    job_ttl: timedelta
    result_max_bytes: int
    link_ttl: timedelta
    delivery_timeout: timedelta
    delivery_schedule: tuple[timedelta, ...]
    retention: notation.Retention
    url: str
    api_key: SecretStr | None
    cards_dir: Path | None
    price_ceiling: int  # micro-USD
    moderation_list: Path | None
    moderation_url: str | None
    moderation_key: SecretStr | None
    moderation_model: str
    moderation_fail: Literal["closed", "open"]
    moderation_timeout: timedelta
    log_format: Literal["auto", "console", "json"]
    log_level: str  # in small letters
    providers: dict[str, ProviderSettings]  # by card name, as in `sharkapi-v1`

    @property
    def sqlite_path(self) -> Path | None:
        """The database file; None on PostgreSQL."""
        path = self.database_url.removeprefix("sqlite:///")
        return Path(path) if path != self.database_url else None


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table. `parse` raises ValueError with what would be right; `form` says the same in the docs."""

    name: str
    default: str | None
    form: str
    help: str
    parse: Callable[[str], object]
    secret: bool = False


_ttl = partial(notation.duration, low=timedelta(seconds=1))
_storage = notation.storage_url
_STORAGE_FORM: Final = "`file:/path`, `s3://…`, `gs://…`, `az://…`; `none`: not copied"
_url = partial(notation.http_url, path=True)
_origin = partial(notation.http_url, path=False)

#: The table, in the order of contract 6; a field of `Settings` has the name in small letters.
SETTINGS: Final[tuple[Setting, ...]] = (
    Setting(
        "DATABASE_URL",
        "sqlite:///remora.db",
        "`sqlite:///path`; coming: `postgresql://…`",
        "where everything is kept",
        notation.database_url,
        secret=True,
    ),
    Setting("HOST", "127.0.0.1", "address", "the address to listen on", notation.host),
    Setting(
        "PORT", "8080", "0–65535", "the port to listen on; 0: any free one", partial(notation.whole, low=0, high=65535)
    ),
    Setting("PUBLIC_URL", None, "http(s) URL", "where providers reach us; none: polling only", _url),
    Setting(
        "ADMIN_KEY",
        None,
        "≥ 24 characters",
        "an admin key to accept; none on an empty database: one is made and written beside it, mode 0600",
        partial(notation.secret, at_least=24),
        secret=True,
    ),
    Setting(
        "SECRET_KEY",
        None,
        "≥ 32 characters",
        "encrypts secrets at rest; none with SQLite: made once beside the database",
        partial(notation.secret, at_least=32),
        secret=True,
    ),
    Setting(
        "EGRESS_ALLOW",
        "",
        "CIDRs, commas between",
        "private ranges that requests may go to; for subscribers and a sandbox on this machine `127.0.0.0/8`",
        notation.networks,
    ),
    Setting("STORAGE_URL", None, _STORAGE_FORM, "where results are copied to; default: beside the database", _storage),
    Setting("RESULT_TTL", "7d", "duration, from 1s", "how long a result lives", _ttl),
    Setting("JOB_TTL", "7d", "duration, from 1s", "how long an unfinished job lives", _ttl),
    Setting("RESULT_MAX_BYTES", "512MiB", "size", "the largest result that is kept", notation.size),
    Setting("LINK_TTL", "1h", "duration, from 1s", "life of a short-lived signed link", _ttl),
    Setting("DELIVERY_TIMEOUT", "15s", "duration", "total deadline of one delivery attempt", notation.duration),
    Setting(
        "DELIVERY_SCHEDULE",
        "5s, 5m, 30m, 2h, 5h, 10h, 14h, 20h, 24h",
        "durations, commas between",
        "the waits after the first, second … failed attempt of a delivery",
        notation.schedule,
    ),
    Setting(
        "RETENTION",
        notation.RETENTION_DEFAULT,
        "`jobs=…, payloads=…, attempts=…`",
        "what is kept how long",
        notation.retention,
    ),
    Setting("URL", "http://127.0.0.1:8080", "http(s) URL", "where the commands reach a running service", _url),
    Setting("API_KEY", None, "key", "the key that the commands use", notation.secret, secret=True),
    Setting("CARDS_DIR", None, "directory", "the operator's own provider cards", Path),
    Setting(
        "PRICE_CEILING",
        "1.00",
        "US dollars",
        "what is held for a job whose price only its completion tells (`price: unknown` in the card)",
        notation.usd,
    ),
    Setting("MODERATION_LIST", None, "file", "words and `/expressions/` that no prompt may hold, one a line", Path),
    Setting("MODERATION_URL", None, "http(s) URL", "a moderator of prompts that speaks as OpenAI's does", _url),
    Setting("MODERATION_KEY", None, "key", "our key at that moderator", notation.secret, secret=True),
    Setting("MODERATION_MODEL", "omni-moderation-latest", "text", "the model that is asked for there", str),
    Setting(
        "MODERATION_FAIL",
        "closed",
        "`closed`, `open`",
        "a moderator does not answer: jobs wait for it until their deadline, or go on without a verdict",
        notation.one_of("closed", "open"),
    ),
    Setting("MODERATION_TIMEOUT", "5s", "duration", "how long a moderator is waited for", notation.duration),
    Setting(
        "LOG_FORMAT",
        "auto",
        "`auto`, `console`, `json`",
        "`auto`: `console` on a terminal, else `json`",
        notation.one_of("auto", "console", "json"),
    ),
    Setting(
        "LOG_LEVEL",
        "info",
        "`debug`, `info`, `warning`, `error`, `critical`",
        "the least that is logged",
        notation.one_of("debug", "info", "warning", "error", "critical"),
    ),
)

#: What follows `REMORA_PROVIDERS__<CARD>__`; a field of `ProviderSettings` has the name in small letters.
PROVIDER_SETTINGS: Final[tuple[Setting, ...]] = (
    Setting(
        "API_KEY",
        None,
        "key",
        "our key at the provider; none: the card is not configured",
        notation.secret,
        secret=True,
    ),
    Setting("BASE_URL", None, "`scheme://host:port`", "what the documents' paths hang on", _origin),
    Setting("CALLBACKS", None, "`auto`, `off`", "`off`: never ask for a callback", notation.one_of("auto", "off")),
    Setting(
        "VERIFY",
        None,
        "`fetch`, `trust`",
        "`fetch`: an unsigned callback is only a hint and the provider is asked for the truth",
        notation.one_of("fetch", "trust"),
    ),
    Setting(
        "FALLBACK_AFTER", None, "duration", "how long a callback may stay out before the first poll", notation.duration
    ),
    Setting("POLL_EVERY", None, "duration", "the wait between polls at first", notation.duration),
    Setting(
        "MAX_IN_FLIGHT",
        None,
        "from 1",
        "tasks unfinished at the provider at once; jobs beyond stay `queued`, where they can be cancelled. A task that is overdue no longer counts",
        partial(notation.whole, low=1, high=1_000_000),
    ),
    Setting("MAX_SUBMITS", None, "from 1", "submit requests at once", partial(notation.whole, low=1, high=10_000)),
    Setting("SUBMIT_RATE", None, "`N/s`, `N/10s`", "submissions per time", notation.rate),
    Setting(
        "WEBHOOK_SECRET",
        "",
        "secrets, commas between",
        "what callbacks are verified with",
        notation.secrets,
        secret=True,
    ),
    Setting(
        "PRICE_CEILING",
        None,
        "US dollars",
        "what is held for a job of this provider whose price only its completion tells",
        notation.usd,
    ),
)

_BY_NAME: Final = {PREFIX + row.name: row for row in SETTINGS}
_BY_FIELD: Final = {row.name: row for row in PROVIDER_SETTINGS}


def provider_variable(card: str, name: str) -> str:
    """The variable that holds a card's setting: `sharkapi-v1`, `API_KEY` → `REMORA_PROVIDERS__SHARKAPI_V1__API_KEY`."""
    return f"{PROVIDERS_PREFIX}{card.upper().replace('-', '_')}__{name}"


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
    values = _Values(directory, problems)
    values.add("the environment", ((name, text) for name, text in environ.items() if name.startswith(PREFIX)))
    values.add(".env", sources.read(directory / ".env", _dotenv, problems))
    values.add("remora.toml", sources.read(directory / "remora.toml", _toml, problems))
    found = {row.name.lower(): values.get(PREFIX + row.name, row) for row in SETTINGS}
    providers = {card: values.provider(card) for card in sorted(values.cards)}
    problems.extend(_contradictions(found, values, directory))
    if problems:
        raise SettingsInvalid(problems)
    return Settings(**_placed(found, values, directory), providers=providers)


def _contradictions(found: dict[str, Any], values: _Values, directory: Path) -> Iterator[str]:
    """What is only wrong together with something else."""
    if (found["database_url"] or "").startswith("postgresql:"):
        yield "REMORA_DATABASE_URL: PostgreSQL is not served by this version; use sqlite:///path"
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


def _dotenv(text: str) -> _Pairs:
    """The REMORA_ part of a `.env`, which other programs may share."""
    return ((name, value) for name, value in sources.dotenv(text) if name.startswith(PREFIX))


def _toml(text: str) -> _Pairs:
    """`database_url = …`, `[retention]`, `[providers.sharkapi-v1]` as if they were variables."""
    for (key, *below), value in sources.toml(text, deep="providers"):
        yield provider_variable(below[0], below[1].upper()) if below else PREFIX + key.upper(), value
