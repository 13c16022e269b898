"""Settings: where they come from, what they become, and how wrong ones are reported."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import SecretStr

from service.environment import load
from service.errors import SettingsInvalid
from service.notation import Retention, SubmitRate
from service.settings import (
    PROVIDER_SETTINGS,
    SETTINGS,
    ProviderSettings,
    Settings,
    provider_variable,
)

ADMIN_KEY = "rmk_an-admin-key-of-some-length"


def problems(environ: dict[str, str], directory: Path) -> list[str]:
    with pytest.raises(SettingsInvalid) as caught:
        load(environ, directory)
    return caught.value.problems


def test_names_are_the_contracts() -> None:
    """The names of contract 6, those of moderation, the price ceiling and the bounds, no more and no fewer."""
    names = {row.name for row in SETTINGS}

    assert names == {
        *("DATABASE_URL", "HOST", "PORT", "PUBLIC_URL", "ADMIN_KEY", "SECRET_KEY", "EGRESS_ALLOW", "STORAGE_URL"),
        *("RESULT_TTL", "JOB_TTL", "RESULT_MAX_BYTES", "LINK_TTL", "DELIVERY_TIMEOUT", "DELIVERY_SCHEDULE"),
        *("DRAIN", "MAX_CONNECTIONS", "MAX_CONNECTIONS_PER_PEER", "WRITE_TIMEOUT", "BODY_MEMORY", "READ_TIMEOUT"),
        *("BUSY_TIMEOUT", "WAL_MAX", "MAX_KEYS", "MAX_SUBSCRIPTIONS", "DELIVERY_MEMORY"),
        *("RETENTION", "URL", "API_KEY", "CARDS_DIR", "LOG_FORMAT", "LOG_LEVEL"),
        *("MODERATION_LIST", "MODERATION_URL", "MODERATION_KEY", "MODERATION_MODEL", "MODERATION_FAIL"),
        *("MODERATION_TIMEOUT", "PRICE_CEILING"),
    }
    assert {row.name for row in PROVIDER_SETTINGS} == {
        *("API_KEY", "BASE_URL", "CALLBACKS", "VERIFY", "FALLBACK_AFTER", "POLL_EVERY", "MAX_IN_FLIGHT"),
        *("MAX_SUBMITS", "SUBMIT_RATE", "WEBHOOK_SECRET", "PRICE_CEILING"),
    }


def test_every_row_is_a_field() -> None:
    """The table and the frozen objects cannot drift apart."""
    fields = {field.name for field in dataclasses.fields(Settings)}

    assert fields == {row.name.lower() for row in SETTINGS} | {"providers"}
    several = {"webhook_secret": "webhook_secrets"}
    assert [field.name for field in dataclasses.fields(ProviderSettings)] == [
        several.get(row.name.lower(), row.name.lower()) for row in PROVIDER_SETTINGS
    ]


def test_defaults_are_the_contracts(tmp_path: Path) -> None:
    """Nothing set: the defaults of contract 6, with paths made absolute and results beside the database."""
    settings = load({}, tmp_path)

    assert settings.sqlite_path == tmp_path / "remora.db"
    assert (settings.host, settings.port, settings.url) == ("127.0.0.1", 8080, "http://127.0.0.1:8080")
    assert settings.storage_url == f"file:{tmp_path}/remora.db.results"
    assert settings.result_ttl == settings.job_ttl == timedelta(days=7)
    assert (settings.link_ttl, settings.delivery_timeout) == (timedelta(hours=1), timedelta(seconds=15))
    assert settings.result_max_bytes == 536_870_912
    assert [wait.total_seconds() for wait in settings.delivery_schedule] == [
        *(5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
    ]
    assert settings.retention == Retention(timedelta(days=365), timedelta(days=90), timedelta(days=30))
    assert (settings.log_format, settings.log_level) == ("auto", "info")
    assert (settings.egress_allow, settings.providers) == ((), {})
    assert (settings.moderation_fail, settings.moderation_timeout) == ("closed", timedelta(seconds=5))
    for name in ("public_url", "admin_key", "secret_key", "api_key", "cards_dir", "moderation_list", "moderation_url"):
        assert getattr(settings, name) is None


def test_everything_set_arrives(tmp_path: Path) -> None:
    """Each setting is parsed into the type that the service works with."""
    settings = load(
        {
            "REMORA_DATABASE_URL": "sqlite:////data/x.db",
            "REMORA_HOST": "[::1]",
            "REMORA_PORT": "0",
            "REMORA_PUBLIC_URL": "https://hooks.example/remora/",
            "REMORA_EGRESS_ALLOW": "10.0.0.0/8, fd00::/8,192.0.2.7",
            "REMORA_STORAGE_URL": "none",
            "REMORA_JOB_TTL": "1s",
            "REMORA_DELIVERY_SCHEDULE": "500ms, 2m",
            "REMORA_RETENTION": "payloads=10d",
            "REMORA_CARDS_DIR": ".",
            "REMORA_LOG_LEVEL": "WARNING",
        },
        tmp_path,
    )

    assert settings.sqlite_path == Path("/data/x.db")
    assert (settings.host, settings.port) == ("::1", 0)
    assert settings.public_url == "https://hooks.example/remora"
    assert settings.egress_allow == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("192.0.2.7/32"))
    assert settings.storage_url is None
    assert settings.job_ttl == timedelta(seconds=1)
    assert settings.delivery_schedule == (timedelta(milliseconds=500), timedelta(minutes=2))
    assert settings.retention == Retention(timedelta(days=365), timedelta(days=10), timedelta(days=30))
    assert settings.cards_dir == tmp_path
    assert settings.log_level == "warning"


def test_provider_settings_are_found_by_card_name(tmp_path: Path) -> None:
    """Capitals and underscores of a variable become the small letters and dashes of a card."""
    prefix = "REMORA_PROVIDERS__SHARKAPI_V1__"
    settings = load(
        {
            f"{prefix}API_KEY": "k",
            f"{prefix}BASE_URL": "http://127.0.0.1:9000/",
            f"{prefix}CALLBACKS": "off",
            f"{prefix}VERIFY": "trust",
            f"{prefix}FALLBACK_AFTER": "30s",
            f"{prefix}POLL_EVERY": "2s",
            f"{prefix}MAX_IN_FLIGHT": "5",
            f"{prefix}SUBMIT_RATE": "20/10s",
            "REMORA_PROVIDERS__APIMODELS__VERIFY": "fetch",
        },
        tmp_path,
    )

    assert settings.providers["sharkapi-v1"] == ProviderSettings(
        api_key=SecretStr("k"),
        base_url="http://127.0.0.1:9000",
        callbacks="off",
        verify="trust",
        fallback_after=timedelta(seconds=30),
        poll_every=timedelta(seconds=2),
        max_in_flight=5,
        submit_rate=SubmitRate(20, 10.0),
    )
    assert settings.providers["apimodels"] == ProviderSettings(verify="fetch")
    assert provider_variable("sharkapi-v1", "API_KEY") == "REMORA_PROVIDERS__SHARKAPI_V1__API_KEY"


def test_precedence_is_environment_dotenv_toml_default(tmp_path: Path) -> None:
    """The strongest source that has a setting wins; an empty value is not there."""
    (tmp_path / ".env").write_text('OTHER=1\nexport REMORA_PORT=2\nREMORA_HOST="::"\nREMORA_LINK_TTL=\n')
    (tmp_path / "remora.toml").write_text('port = 3\nhost = "x"\nlink_ttl = "3m"\njob_ttl = "4m"\n')
    settings = load({"REMORA_PORT": "1", "REMORA_JOB_TTL": " "}, tmp_path)

    assert (settings.port, settings.host) == (1, "::")
    assert (settings.link_ttl, settings.job_ttl) == (timedelta(minutes=3), timedelta(minutes=4))


def test_toml_takes_lists_tables_and_providers(tmp_path: Path) -> None:
    """What is a list in words is a list in TOML, too."""
    (tmp_path / "key").write_text("from-a-file\n")
    (tmp_path / "remora.toml").write_text(
        'egress_allow = ["10.0.0.0/8", "fd00::/8"]\ndelivery_schedule = ["1s", "2s"]\n'
        '[retention]\njobs = "1d"\n[providers.sharkapi-v1]\napi_key_file = "key"\nmax_in_flight = 7\n'
    )
    settings = load({}, tmp_path)

    assert settings.egress_allow == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert settings.delivery_schedule == (timedelta(seconds=1), timedelta(seconds=2))
    assert settings.retention.jobs == timedelta(days=1)
    assert settings.providers["sharkapi-v1"] == ProviderSettings(api_key=SecretStr("from-a-file"), max_in_flight=7)


def test_secret_is_read_from_its_file(tmp_path: Path) -> None:
    """`*_FILE` names a file with the secret, without the line's end; the value itself comes before it."""
    (tmp_path / "secret").write_text(f"{ADMIN_KEY}\n")
    from_file = load({"REMORA_ADMIN_KEY_FILE": str(tmp_path / "secret")}, tmp_path)
    both = load({"REMORA_ADMIN_KEY_FILE": "gone", "REMORA_ADMIN_KEY": f"{ADMIN_KEY}-2"}, tmp_path)

    assert from_file.admin_key == SecretStr(ADMIN_KEY)
    assert both.admin_key == SecretStr(f"{ADMIN_KEY}-2")


def test_database_url_may_come_from_a_file_with_its_key(tmp_path: Path) -> None:
    """A URL may hold a password, so it is a secret and never shown."""
    (tmp_path / "url").write_text("sqlite:////data/precious.db\n")
    settings = load({"REMORA_DATABASE_URL_FILE": "url", "REMORA_SECRET_KEY": "k" * 32}, tmp_path)

    assert settings.sqlite_path == Path("/data/precious.db")
    assert "sqlite:" not in repr(settings)


def test_everything_wrong_is_reported_at_once(tmp_path: Path) -> None:
    """One line for each wrong setting, with name, value, source and fix."""
    (tmp_path / "remora.toml").write_text('result_max_bytes = "12 parsecs"\n')
    lines = problems(
        {
            "REMORA_PORT": "eighty",
            "REMORA_JOB_TTL": "10ms",
            "REMORA_EGRESS_ALLOW": "10.0.0.1/8",
            "REMORA_PROVIDERS__APIMODELS__SUBMIT_RATE": "0/s",
        },
        tmp_path,
    )

    assert lines == [
        "REMORA_PORT='eighty' (from the environment): write a whole number from 0 to 65535",
        (
            "REMORA_EGRESS_ALLOW='10.0.0.1/8' (from the environment): "
            "'10.0.0.1/8' has bits set behind its prefix; did you mean 10.0.0.0/8?"
        ),
        (
            "REMORA_JOB_TTL='10ms' (from the environment): "
            "write a duration such as 500ms, 30s, 5m, 2h, 7d, from 1s to 3650d"
        ),
        (
            "REMORA_RESULT_MAX_BYTES='12 parsecs' (from remora.toml): "
            "write a size such as 512MiB, 2GiB, 500KB or a number of bytes"
        ),
        (
            "REMORA_PROVIDERS__APIMODELS__SUBMIT_RATE='0/s' (from the environment): "
            "write submissions per time, such as 5/s, 20/10s or 100/m"
        ),
    ]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("REMORA_PROT", "did you mean REMORA_PORT?"),
        ("REMORA_ADMINKEY", "did you mean REMORA_ADMIN_KEY?"),
        ("REMORA_PORT_FILE", "did you mean REMORA_PORT?"),  # no secret
        ("REMORA_PROVIDERS__APIMODELS__APIKEY", "did you mean REMORA_PROVIDERS__APIMODELS__API_KEY?"),
        ("REMORA_PROVIDERS__SHARKAPI-V1__API_KEY", "there is no such setting"),
        ("REMORA_PROVIDERS__API_KEY", "there is no such setting"),
        ("REMORA_PROVIDERS", "there is no such setting"),
        ("REMORA_SERVICE_HOST", "enableServiceLinks"),
        ("REMORA_XYZZY", "remove it"),
    ],
)
def test_unknown_name_is_an_error(name: str, hint: str, tmp_path: Path) -> None:
    """A typing error is reported instead of being silently without effect, and its value is not repeated."""
    lines = problems({name: "valuable"}, tmp_path)

    assert len(lines) == 1
    assert lines[0].startswith(f"{name} (from the environment): ")
    assert hint in lines[0]
    assert "valuable" not in lines[0]


def test_secrets_are_never_repeated(tmp_path: Path) -> None:
    """No message holds a secret, also not a password within a URL; nor does the object's text."""
    given = {
        "REMORA_ADMIN_KEY": "hunter2",
        "REMORA_SECRET_KEY": "hunter2 hunter2 hunter2 hunter2 hunter2",
        "REMORA_API_KEY": "hunter2\x00",
        "REMORA_DATABASE_URL": "postgresql://u:hunter2@[db/x",
        "REMORA_PUBLIC_URL": "https://u:hunter2@host",
        "REMORA_PROVIDERS__APIMODELS__API_KEY": "hunter2 ",
    }
    lines = problems(given, tmp_path)
    settings = load({"REMORA_ADMIN_KEY": ADMIN_KEY, "REMORA_PROVIDERS__X__API_KEY": "hunter2"}, tmp_path)

    assert len(lines) == 5  # the last one is right once its blank is gone
    assert "hunter2" not in "\n".join(lines)
    assert "hunter2" not in repr(settings)
    assert ADMIN_KEY not in str(settings)


def test_what_lies_beside_a_file_must_be_said_with_postgresql(tmp_path: Path) -> None:
    """Keys and results are not made up on a machine that is one of several, or gone tomorrow."""
    url = {"REMORA_DATABASE_URL": "postgresql://u:hunter2@db/remora?sslmode=require"}
    given = {"REMORA_SECRET_KEY": "k" * 32, "REMORA_ADMIN_KEY": "a" * 24, "REMORA_STORAGE_URL": "none"}
    lines = problems(url, tmp_path)
    settings = load(url | given, tmp_path)

    assert [line.partition(":")[0] for line in lines] == list(given)
    assert all("is needed with PostgreSQL" in line for line in lines)
    assert settings.database_url == "postgresql://u:hunter2@db/remora?sslmode=require"
    assert settings.sqlite_path is None
    assert settings.database_shown == "postgresql://u@db/remora"


@pytest.mark.parametrize(
    ("file", "content", "line"),
    [
        ("remora.toml", b"port = = 1", "remora.toml: cannot be read (Invalid value (at line 1, column 8))"),
        ("remora.toml", b"\xff", "remora.toml: cannot be read ('utf-8' codec can't decode byte 0xff"),
        (".env", b"REMORA_PORT=1\n'''\n", ".env: cannot be read (line 2 is not NAME=value)"),
        ("remora.toml", b"providers.x = 3", "REMORA_PROVIDERS__X__ (from remora.toml): there is no such setting"),
        ("remora.toml", b"port = true", "REMORA_PORT='True' (from remora.toml): write a whole number"),
    ],
)
def test_broken_file_is_a_problem_of_its_own(file: str, content: bytes, line: str, tmp_path: Path) -> None:
    """A file that cannot be read is named with the place in it."""
    (tmp_path / file).write_bytes(content)

    assert problems({}, tmp_path)[0].startswith(line)


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe"])
def test_unusable_secret_file_is_reported(content: bytes | None, tmp_path: Path) -> None:
    """A secret's file that is missing, empty or no text is named; nothing falls back to another value."""
    if content is not None:
        (tmp_path / "f").write_bytes(content)
    lines = problems({"REMORA_ADMIN_KEY_FILE": "f"}, tmp_path)

    assert len(lines) == 1
    assert lines[0].startswith("REMORA_ADMIN_KEY_FILE='f': ")


def test_missing_cards_directory_is_reported(tmp_path: Path) -> None:
    """The operator's cards are looked for at start, not when the first job fails."""
    lines = problems({"REMORA_CARDS_DIR": "nowhere"}, tmp_path)

    assert lines == ["REMORA_CARDS_DIR='nowhere': there is no such directory; make it, or leave it out"]


def test_webhook_secrets_are_read_apart(tmp_path: Path) -> None:
    """Commas stand between secrets, also in a file; what cannot be one is refused without being shown."""
    (tmp_path / "secret").write_text("new-1, old-2\n")
    named = {"REMORA_PROVIDERS__KIE__WEBHOOK_SECRET_FILE": "secret", "REMORA_PROVIDERS__BFL__API_KEY": "key"}

    providers = load(named, tmp_path).providers

    assert [secret.get_secret_value() for secret in providers["kie"].webhook_secrets] == ["new-1", "old-2"]
    assert providers["bfl"].webhook_secrets == ()
    with pytest.raises(SettingsInvalid) as caught:
        load({"REMORA_PROVIDERS__KIE__WEBHOOK_SECRET": "fine, with a blank"}, tmp_path)
    (problem,) = caught.value.problems
    assert problem.startswith("REMORA_PROVIDERS__KIE__WEBHOOK_SECRET (")
    assert "blank" not in problem.partition(":")[0]
