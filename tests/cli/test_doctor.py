"""`remora doctor`: what it finds, what it advises, and that it changes nothing."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from pathlib import Path

import pytest

from service.cli.doctor import Mark, findings
from service.clock import SystemClock, SystemRandomness
from service.db.examine import bring_up_to_date
from service.db.opening import open_store
from tests.cli.commands import run


def said(directory: Path, **environ: str) -> dict[str, list[tuple[Mark, str]]]:
    """The findings by what they are about; any free port, so that nothing on this machine matters."""
    found: dict[str, list[tuple[Mark, str]]] = {}
    for each in findings({"REMORA_PORT": "0"} | environ, directory):
        found.setdefault(each.about, []).append((each.mark, each.says))
    return found


async def make_database(directory: Path) -> Path:
    """A database that a service has used."""
    path = directory / "remora.db"
    store = await open_store(path, None, SystemClock(), SystemRandomness())
    store.writer.start()
    await store.close()
    return path


def test_doctor_changes_nothing_where_nothing_is(tmp_path: Path) -> None:
    """A check before the first start is fine and leaves no file behind."""
    result = run("doctor", directory=tmp_path, REMORA_PORT="0")

    assert result.returncode == 0
    assert "not there yet" in result.stdout
    assert "polling only" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_doctor_repeats_every_wrong_setting(tmp_path: Path) -> None:
    """Status 1, a ✗ line each."""
    result = run("doctor", directory=tmp_path, REMORA_PORT="http", REMORA_JOB_TTL="soon")

    assert result.returncode == 1
    assert result.stdout.count("✗") == 2
    assert "REMORA_JOB_TTL" in result.stdout


async def test_doctor_finds_a_sound_database_and_its_key(tmp_path: Path) -> None:
    """What a service left behind is fine, and stays as it was."""
    path = await make_database(tmp_path)
    before = path.read_bytes()
    found = await asyncio.to_thread(said, tmp_path)

    assert found["database"][0][0] is Mark.FINE
    assert "sound and up to date" in found["database"][0][1]
    assert found["secret key"] == [(Mark.FINE, "fits the database")]
    assert path.read_bytes() == before


async def test_doctor_finds_a_key_that_does_not_fit(tmp_path: Path) -> None:
    """The key is named, not shown."""
    await make_database(tmp_path)
    found = await asyncio.to_thread(said, tmp_path, REMORA_SECRET_KEY="another-key-of-more-than-32-characters")

    [(mark, says)] = found["secret key"]
    assert mark is Mark.WRONG
    assert "REMORA_SECRET_KEY" in says
    assert "another-key" not in says


async def test_doctor_looks_at_a_database_in_use(tmp_path: Path) -> None:
    """A running service is no obstacle, and its port is its own."""
    store = await open_store(tmp_path / "remora.db", None, SystemClock(), SystemRandomness())
    store.writer.start()
    try:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            found = await asyncio.to_thread(said, tmp_path, REMORA_PORT=str(taken.getsockname()[1]))
    finally:
        await store.close()

    assert "in use by a running service" in found["database"][0][1]
    assert "listening" not in found


def test_doctor_names_a_rule_that_a_database_breaks(tmp_path: Path) -> None:
    """The rule, what it says and the row at fault."""
    bring_up_to_date(tmp_path / "remora.db")
    with sqlite3.connect(tmp_path / "remora.db") as raw:
        raw.execute(
            "INSERT INTO idempotency (account_id, key, body_hash, job_id, answer, expires_at) VALUES ('a', 'k', x'00', 'j', x'00', 1)"
        )
    raw.close()
    found = said(tmp_path)

    assert any(mark is Mark.WRONG and "I4" in says for mark, says in found["database"])


def test_doctor_finds_a_port_that_is_taken(tmp_path: Path) -> None:
    """The setting that changes it is named."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = said(tmp_path, REMORA_PORT=str(taken.getsockname()[1]))

    [(mark, says)] = found["listening"]
    assert mark is Mark.WRONG
    assert "REMORA_PORT" in says


def test_doctor_names_file_and_line_of_a_bad_card(tmp_path: Path) -> None:
    """An operator's own card is checked like a start would."""
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "mine.yaml").write_text("card: 1\nname: Mine!\n")
    found = said(tmp_path, REMORA_CARDS_DIR="cards")

    assert all(mark is Mark.WRONG for mark, _ in found["cards"])
    assert any("mine.yaml:2" in says for _, says in found["cards"])


def test_doctor_judges_providers_by_the_gate(tmp_path: Path) -> None:
    """A base URL that requests may not go to is wrong, and the setting to add is named; with it all is well."""
    given = {
        "REMORA_PROVIDERS__APIMODELS__BASE_URL": "http://127.0.0.1:9090",
        "REMORA_PROVIDERS__APIMODELS__API_KEY": "sandbox",
    }
    [without] = [each for each in said(tmp_path, **given)["provider"] if "apimodels" in each[1]]
    [allowed] = [
        each
        for each in said(tmp_path, **given, REMORA_EGRESS_ALLOW="127.0.0.0/8")["provider"]
        if "apimodels" in each[1]
    ]

    assert without[0] is Mark.WRONG
    assert "add 127.0.0.0/8 to REMORA_EGRESS_ALLOW" in without[1]
    assert allowed[0] is Mark.FINE


def test_doctor_reads_the_moderation_list(tmp_path: Path) -> None:
    """Its wrong lines are told before a start would refuse them; without a moderator there is nothing to say."""
    (tmp_path / "right").write_text("dragon\n", "utf-8")
    (tmp_path / "wrong").write_text("fine\n/(/\n", "utf-8")
    right = said(tmp_path, REMORA_MODERATION_LIST="right", REMORA_MODERATION_FAIL="open")["moderation"]
    [(mark, says)] = said(tmp_path, REMORA_MODERATION_LIST="wrong")["moderation"]

    assert right == [(Mark.FINE, "by list; where one is silent, jobs go on without it")]
    assert mark is Mark.WRONG
    assert "wrong: line 2: is no expression" in says
    assert "moderation" not in said(tmp_path)


@pytest.mark.parametrize(
    ("url", "mark", "word"),
    [
        ("https://remora.example", Mark.FINE, "remora.example"),
        ("http://remora.example", Mark.HINT, "use https"),
        ("http://127.0.0.1:8080", Mark.HINT, "private address"),
        ("https://10.1.2.3", Mark.HINT, "private address"),
        ("https://localhost", Mark.HINT, "private address"),
        ("https://remora", Mark.HINT, "private address"),
    ],
)
def test_doctor_judges_the_public_url(url: str, mark: Mark, word: str, tmp_path: Path) -> None:
    """Nothing that providers cannot reach passes silently."""
    [(found, says)] = said(tmp_path, REMORA_PUBLIC_URL=url)["public URL"]

    assert found is mark
    assert word in says


@pytest.mark.parametrize(
    ("allowed", "mark"), [("10.0.0.0/8", Mark.FINE), ("0.0.0.0/0", Mark.HINT), ("::/0", Mark.HINT)]
)
def test_doctor_warns_of_an_egress_allowance_for_everything(allowed: str, mark: Mark, tmp_path: Path) -> None:
    """Private networks may be opened, the whole world is a mistake."""
    [(found, _)] = said(tmp_path, REMORA_EGRESS_ALLOW=allowed)["egress"]

    assert found is mark


def test_doctor_tells_what_a_provider_lacks(tmp_path: Path) -> None:
    """The setting for the key is named; with it the operations are."""
    without = said(tmp_path)["provider"]
    given = {
        "REMORA_PROVIDERS__APIMODELS__API_KEY": "sk-apimodels-secret",
        "REMORA_PROVIDERS__APIMODELS__BASE_URL": "https://8.8.8.8",  # an address needs no name server
    }
    with_key = said(tmp_path, **given)["provider"]

    assert (Mark.HINT, "REMORA_PROVIDERS__APIMODELS__API_KEY") in [
        (mark, word) for mark, says in without for word in says.split() if word.startswith("REMORA_")
    ]
    assert any("apimodels: generate" in says and mark is Mark.FINE for mark, says in with_key)
    assert "sk-apimodels-secret" not in str(with_key)
