"""`remora doctor`: what it finds, what it advises, and that it changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sqlite3
from pathlib import Path

import pytest

from service.cli.doctor import findings
from service.cli.findings import Mark
from service.cli.tonight import machine
from service.clock import SystemClock, SystemRandomness
from service.db.inspection.examine import bring_up_to_date
from service.db.opening import open_store
from service.environment import load
from service.errors import SettingsInvalid
from tests.api.conftest import ADMIN_KEY, serve
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


async def make_trouble(directory: Path) -> dict[str, str]:
    """A database in which something of each kind waits for somebody; answers with the ids."""
    async with serve(directory) as served:
        jobs = [(await served.take())["id"] for _ in range(3)]
        done = (await served.completed())["id"]
        made = (await served.client.post("/v1/subscriptions", json={"url": "http://127.0.0.1:9/"})).json()["id"]
        away = (await served.client.post("/v1/subscriptions", json={"url": "http://127.0.0.1:9/x"})).json()["id"]
        await served.sql("UPDATE jobs SET status = 'submit_unknown', due_at = expires_at WHERE id = :id", id=jobs[0])
        await served.sql("UPDATE results SET error = 'result_gone', due_at = NULL WHERE job_id = :id", id=done)
        await served.sql(
            "UPDATE subscriptions SET status = 'disabled', disabled_reason = '410' WHERE id = :id", id=away
        )
        pings = [(await served.client.post(f"/v1/subscriptions/{made}/test")).json()["id"] for _ in range(2)]
        now = served.service.clock.now_ms()
        await served.sql(
            "UPDATE jobs SET status = 'failed', error_code = 'provider_auth', finished_at = :now, due_at = NULL WHERE id = :id",
            id=jobs[2],
            now=now,
        )
        await served.sql("UPDATE deliveries SET attempt_count = 7 WHERE id = :id", id=pings[0])
        await served.sql(
            "UPDATE deliveries SET status = 'dead', due_at = NULL, finished_at = :now, lease_owner = NULL, lease_until = NULL "
            "WHERE id = :id",
            id=pings[1],
            now=now,
        )
    return {"unknown": jobs[0], "done": done, "away": away, "failing": pings[0], "dead": pings[1]}


async def test_doctor_tells_what_waits_for_somebody(tmp_path: Path) -> None:
    """Jobs that nobody knows of, given up and failing deliveries, disabled subscriptions, lost results: with what to do."""
    ids = await make_trouble(tmp_path)
    found = await asyncio.to_thread(said, tmp_path)
    told = {about: " ".join(says for mark, says in found[about] if mark is Mark.HINT) for about in found}

    assert f"1 in submit_unknown, {ids['unknown']}" in told["jobs"]
    assert "1 jobs failed in the last 24 hours because a provider does not take our key" in told["provider"]
    assert "apimodels (provider_auth)" in told["provider"]
    assert "remora jobs export --status submit_unknown" in told["jobs"]
    assert f"1 were given up in the last 24 hours, {ids['dead']}" in told["deliveries"]
    assert f"1 destinations fail again and again, and their events wait, {ids['failing']}" in told["deliveries"]
    assert f"1 subscriptions are disabled, {ids['away']} (410)" in told["deliveries"]
    assert f"1 have no copy, {ids['done']} (result_gone)" in told["results"]
    assert "work" not in found


async def test_doctor_says_that_a_night_is_quiet(tmp_path: Path) -> None:
    """One line for all of it, and the room on the disk."""
    await make_database(tmp_path)
    found = await asyncio.to_thread(said, tmp_path)

    assert found["work"] == [(Mark.FINE, "no job waits for a decision, and nothing was given up in the last 24 hours")]
    assert any("free for the database" in says for _, says in found["disk"])


async def test_doctor_asks_the_service_that_runs(tmp_path: Path) -> None:
    """Who is down or paused is known to it alone; with the key that lies beside the database, or none."""
    async with serve(tmp_path) as served:
        given = {"REMORA_PORT": served.service.url.rpartition(":")[2], "REMORA_ADMIN_KEY": ADMIN_KEY}
        for _ in range(5):
            served.service._stages.breakers.of("apimodels").failed("apimodels.app refused the connection")
        served.service._stages.sender.lanes.breakers.suspect("sub_1")
        found = await asyncio.to_thread(said, tmp_path, **given)
        elsewhere = await asyncio.to_thread(said, tmp_path, REMORA_URL="http://127.0.0.1:9")

    providers = " ".join(says for _, says in found["provider"])
    assert found["service"] == [(Mark.FINE, f"{served.service.url} is ready")]
    assert "apimodels is down since" in providers
    assert "apimodels.app refused the connection" in providers
    assert "apimodels asked for a pause" in providers
    assert any("destination_down" in says for _, says in found["deliveries"])
    assert elsewhere["service"][0][0] is Mark.WRONG
    assert "REMORA_URL" in elsewhere["service"][0][1]


async def test_doctor_finds_a_database_that_is_ahead_of_the_clock(tmp_path: Path) -> None:
    """A clock that was set back delays everything that is due."""
    async with serve(tmp_path) as served:
        job = await served.take()
        ahead = served.service.clock.now_ms() + 3_600_000
        await served.sql("UPDATE jobs SET created_at = :ahead WHERE id = :id", ahead=ahead, id=job["id"])
    [(mark, says)] = (await asyncio.to_thread(said, tmp_path))["clock"]

    assert mark is Mark.WRONG
    assert "ahead of this machine's clock" in says


@pytest.mark.parametrize(
    ("free", "inodes", "mark", "word"),
    [
        (500 << 20, 10, Mark.HINT, "only 500 MiB"),
        (50 << 20, 10, Mark.WRONG, "no room"),
        (0, 10, Mark.WRONG, "no room"),
        (500 << 30, 0, Mark.WRONG, "no inode"),
        (500 << 30, 10, Mark.FINE, "free for the database"),
    ],
)
def test_doctor_finds_a_full_disk(free: int, inodes: int, mark: Mark, word: str, tmp_path: Path) -> None:
    """Blocks or inodes, with what to do; what is left is told in any case."""
    disk = os.statvfs_result((4096, 4096, 1 << 28, free // 4096, free // 4096, 1000, inodes, inodes, 0, 255))
    [room] = machine(load({}, tmp_path), lambda _: disk)

    assert room.mark is mark
    assert word in room.says


def test_doctor_finds_a_log_that_has_grown(tmp_path: Path) -> None:
    """Larger than it may be: somebody reads for long."""
    path = tmp_path / "remora.db"
    bring_up_to_date(path)
    (tmp_path / "remora.db-wal").write_bytes(b"x" * 2_000_000)
    found = [each for each in machine(load({"REMORA_WAL_MAX": "1MiB"}, tmp_path)) if "REMORA_WAL_MAX" in each.says]

    assert [each.mark for each in found] == [Mark.HINT]


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

    assert (Mark.UNUSED, "REMORA_PROVIDERS__APIMODELS__API_KEY") in [
        (mark, word) for mark, says in without for word in says.split() if word.startswith("REMORA_")
    ]
    assert any("apimodels: generate" in says and mark is Mark.FINE for mark, says in with_key)
    assert "sk-apimodels-secret" not in str(with_key)


def test_doctor_knows_a_database_of_a_newer_version(tmp_path: Path) -> None:
    """As after a deployment that was taken back: to migrate it would not help, and a start leaves it alone."""
    path = tmp_path / "remora.db"
    bring_up_to_date(path)
    with contextlib.closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("UPDATE alembic_version SET version_num = '9000'")
    [(mark, says)] = said(tmp_path)["database"]
    with pytest.raises(SettingsInvalid, match="a newer one has used it"):
        bring_up_to_date(path)

    assert mark is Mark.WRONG
    assert "start that one, or restore a backup" in says
