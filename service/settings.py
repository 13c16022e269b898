"""The settings: one table of names, forms and defaults, and the frozen values of a process.

`service/environment.py` reads them. This file must not know what the settings are used for, nor which provider cards
exist: the registry checks the names of cards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final, Literal

from pydantic import SecretStr

from service import notation

PREFIX: Final = "REMORA_"
PROVIDERS_PREFIX: Final = "REMORA_PROVIDERS__"
PRICE_CEILING: Final = 1_000_000  # micro-USD, held for a price that only the completion tells


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
    """All settings of a process; made by `environment.load`. Paths are absolute, URLs have no slash at the end."""

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
    drain: timedelta | None  # None: the longest submit deadline in force
    max_connections: int
    max_connections_per_peer: int | None  # None: half of them
    write_timeout: timedelta
    body_memory: int  # bytes
    read_timeout: timedelta
    busy_timeout: timedelta
    wal_max: int  # bytes
    max_keys: int
    max_subscriptions: int
    delivery_memory: int  # bytes
    log_format: Literal["auto", "console", "json"]
    log_level: str  # in small letters
    providers: dict[str, ProviderSettings]  # by card name, as in `sharkapi-v1`

    @property
    def sqlite_path(self) -> Path | None:
        """The database file; None on PostgreSQL."""
        path = self.database_url.removeprefix("sqlite:///")
        return Path(path) if path != self.database_url else None

    @property
    def database_shown(self) -> str:
        """Where everything is kept, as it may be shown and logged."""
        return str(self.sqlite_path or notation.without_password(self.database_url))


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
        "`sqlite:///path` or `postgresql://…`",
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
    Setting(
        "URL",
        "http://127.0.0.1:8080",
        "http(s) URL",
        "where the commands reach a running service; default: as HOST and PORT say",
        _url,
    ),
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
        "DRAIN",
        None,
        "duration",
        "how long a stopping service waits for submissions that are out; default: the longest submit deadline of the configured providers, and 5 s",
        notation.duration,
    ),
    Setting(
        "MAX_CONNECTIONS",
        "8000",
        "from 16",
        "callers' connections at once, fewer where open files are few; at a full house the one idle longest makes room",
        partial(notation.whole, low=16, high=1_000_000),
    ),
    Setting(
        "MAX_CONNECTIONS_PER_PEER",
        None,
        "from 1",
        "of these from one address (IPv6: /64); default: half. A proxy in front is one address",
        partial(notation.whole, low=1, high=1_000_000),
    ),
    Setting(
        "WRITE_TIMEOUT",
        "30s",
        "duration",
        "how long a caller may take nothing of its answer; then it is cut",
        notation.duration,
    ),
    Setting(
        "BODY_MEMORY",
        "64MiB",
        "size",
        "memory for large request bodies, at most half of it for one account; others wait their turn, and after 10 s get 503 with "
        "`Retry-After`. A quarter as much for large answers. Below 32MiB the largest bodies do not fit",
        notation.size,
    ),
    Setting(
        "READ_TIMEOUT",
        "5s",
        "duration",
        "the deadline of one read of the database for a caller, its wait included; then 503",
        notation.duration,
    ),
    Setting(
        "BUSY_TIMEOUT",
        "3s",
        "duration",
        "how long a write waits while another program holds the database; then 503",
        notation.duration,
    ),
    Setting("WAL_MAX", "64MiB", "size", "SQLite's log is cut back as soon as it is larger", notation.size),
    Setting(
        "MAX_KEYS", "1000", "from 1", "keys of an account in force", partial(notation.whole, low=1, high=1_000_000)
    ),
    Setting(
        "MAX_SUBSCRIPTIONS",
        "1000",
        "from 1",
        "subscriptions of an account",
        partial(notation.whole, low=1, high=1_000_000),
    ),
    Setting(
        "DELIVERY_MEMORY",
        "128MiB",
        "size",
        "memory for deliveries that wait for their turn or are out: each event's body once, and 1.6 KB a delivery; the rest "
        "waits in the store",
        notation.size,
    ),
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


def provider_variable(card: str, name: str) -> str:
    """The variable that holds a card's setting: `sharkapi-v1`, `API_KEY` → `REMORA_PROVIDERS__SHARKAPI_V1__API_KEY`."""
    return f"{PROVIDERS_PREFIX}{card.upper().replace('-', '_')}__{name}"
