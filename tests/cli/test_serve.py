"""`remora serve` as a process: what it prints, what stops it, and how it ends."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import stat
from pathlib import Path

import aiohttp
import pytest

from service.db.sqlite.file_lock import DatabaseLock
from tests.cli.commands import PATIENCE_S, read_until, run, start


def secret_in(file: Path) -> tuple[str, int]:
    """A key file's content and mode."""
    return file.read_text().strip(), stat.S_IMODE(file.stat().st_mode)


def modes_in(directory: Path) -> dict[str, int]:
    """What others may do with the files and directories, by name; nothing is 0."""
    return {file.name: stat.S_IMODE(file.stat().st_mode) & 0o077 for file in directory.iterdir()}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_serve_tells_where_it_is_and_ends_cleanly(number: signal.Signals, tmp_path: Path) -> None:
    """The printed address answers with the key from the printed file; a signal ends it with status 0."""
    process = await start("serve", directory=tmp_path, REMORA_PORT="0")
    printed = "\n".join(await read_until(process, "polling."))
    url = re.search(r"listens on (http://127\.0\.0\.1:\d+)", printed)
    key_file = re.search(r"made just now, in (\S+)", printed)
    assert url is not None
    assert key_file is not None
    key, mode = secret_in(Path(key_file[1]))
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession() as session, session.get(f"{url[1]}/v1/providers", headers=headers) as answer:
        assert answer.status == 200
    process.send_signal(number)
    _, stderr = await asyncio.wait_for(process.communicate(), PATIENCE_S)

    assert process.returncode == 0, stderr
    assert mode == 0o600
    assert b"Traceback" not in stderr
    assert key not in printed


async def test_serve_says_loudly_that_it_can_only_poll(tmp_path: Path) -> None:
    """A provider that would call back cannot; one that is not configured yet is no reason to be loud."""
    printed = []
    for given in ({"REMORA_PROVIDERS__APIMODELS__API_KEY": "sk-test"}, {}):
        process = await start("serve", directory=tmp_path, REMORA_PORT="0", **given)
        printed.append("\n".join(await read_until(process, "polling.")))
        process.terminate()
        await asyncio.wait_for(process.communicate(), PATIENCE_S)

    assert "POLLING ONLY: REMORA_PUBLIC_URL is not set" in printed[0]
    assert "✓ sandbox (generate)" in printed[1]
    assert "apimodels: not configured, REMORA_PROVIDERS__APIMODELS__API_KEY is not set" in printed[1]
    assert "POLLING ONLY" not in printed[1]
    assert "LINKS" not in printed[1]


async def test_serve_tells_where_callbacks_go(tmp_path: Path) -> None:
    """With a public address nothing is loud."""
    process = await start("serve", directory=tmp_path, REMORA_PORT="0", REMORA_PUBLIC_URL="https://remora.example")
    printed = "\n".join(await read_until(process, "callbacks to"))
    process.terminate()
    await asyncio.wait_for(process.communicate(), PATIENCE_S)

    assert "https://remora.example/callbacks/" in printed
    assert "POLLING" not in printed


def test_serve_reports_all_wrong_settings_at_once(tmp_path: Path) -> None:
    """One line each, status 2, and nothing was made."""
    result = run(
        "serve", directory=tmp_path, REMORA_PORT="http", REMORA_JOB_TTL="soon", REMORA_ADMIN_KEY="short-secret"
    )

    assert result.returncode == 2
    assert all(name in result.stderr for name in ("REMORA_PORT", "REMORA_JOB_TTL", "REMORA_ADMIN_KEY"))
    assert len(result.stderr.splitlines()) == 4
    assert "short-secret" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_serve_refuses_a_database_in_use(tmp_path: Path) -> None:
    """One line that says who has it, status 3."""
    lock = DatabaseLock(tmp_path / "remora.db")
    lock.acquire()
    try:
        result = run("serve", directory=tmp_path, REMORA_PORT="0")
    finally:
        lock.release()

    assert result.returncode == 3
    assert "in use by another Remora process" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_serve_names_the_database_before_the_port(tmp_path: Path) -> None:
    """A second start with the same settings hears who has the database, not that the port is taken."""
    lock = DatabaseLock(tmp_path / "remora.db")
    lock.acquire()
    try:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            result = run("serve", directory=tmp_path, REMORA_PORT=str(taken.getsockname()[1]))
    finally:
        lock.release()

    assert result.returncode == 3
    assert "in use by another Remora process" in result.stderr


@pytest.mark.parametrize("command", ["serve", "migrate", "doctor"])
def test_database_in_a_directory_that_does_not_exist_is_refused(command: str, tmp_path: Path) -> None:
    """A mistyped path must not become a new database; the setting and the directory are named, and nothing is made."""
    result = run(command, directory=tmp_path, REMORA_PORT="0", REMORA_DATABASE_URL="sqlite:///dta/remora.db")

    assert result.returncode != 0
    assert f"REMORA_DATABASE_URL: there is no directory {tmp_path / 'dta'}" in result.stdout + result.stderr
    assert list(tmp_path.iterdir()) == []


async def test_serve_tells_what_it_made_and_what_it_found(tmp_path: Path) -> None:
    """Database and admin key are new the first time only; nobody else may read the files."""
    printed = []
    for _ in range(2):
        process = await start("serve", directory=tmp_path, REMORA_PORT="0")
        printed.append("\n".join(await read_until(process, "polling.")))
        modes = modes_in(tmp_path)
        process.terminate()
        await asyncio.wait_for(process.communicate(), PATIENCE_S)
        assert set(modes.values()) == {0}, modes
        assert "remora.db-wal" in modes

    assert f"new database   {tmp_path / 'remora.db'}\n" in printed[0]
    assert "made just now, in" in printed[0]
    assert f"  database       {tmp_path / 'remora.db'}\n" in printed[1]
    assert f"admin key      in {tmp_path / 'remora.db.admin-key'}\n" in printed[1]
    assert "just now" not in printed[1]


async def test_serve_says_which_provider_is_out_of_reach(tmp_path: Path) -> None:
    """A private base URL that the gate refuses is named with the setting to add."""
    given = {
        "REMORA_PROVIDERS__APIMODELS__BASE_URL": "http://127.0.0.1:9090",
        "REMORA_PROVIDERS__APIMODELS__API_KEY": "sandbox",
    }
    process = await start("serve", directory=tmp_path, REMORA_PORT="0", **given)
    printed = "\n".join(await read_until(process, "polling."))
    process.terminate()
    await asyncio.wait_for(process.communicate(), PATIENCE_S)

    assert "OUT OF REACH: apimodels" in printed
    assert "add 127.0.0.0/8 to REMORA_EGRESS_ALLOW" in printed


def test_serve_refuses_a_port_in_use(tmp_path: Path) -> None:
    """The setting that changes it is named, status 3, before a database is made."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("serve", directory=tmp_path, REMORA_PORT=str(port))

    assert result.returncode == 3
    assert f"port {port}" in result.stderr
    assert "REMORA_PORT" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "remora.db").exists()


def test_serve_refuses_an_address_that_is_not_ours(tmp_path: Path) -> None:
    """As a taken port."""
    result = run("serve", directory=tmp_path, REMORA_HOST="192.0.2.1")

    assert result.returncode == 3
    assert "REMORA_HOST" in result.stderr
    assert "Traceback" not in result.stderr


def test_serve_refuses_a_bad_card_with_its_line(tmp_path: Path) -> None:
    """File, line and reason, status 2."""
    (tmp_path / "mine.yaml").write_text("card: 1\nname: Mine!\n")
    result = run("serve", directory=tmp_path, REMORA_PORT="0", REMORA_CARDS_DIR=".")

    assert result.returncode == 2
    assert "mine.yaml:2" in result.stderr
    assert "Traceback" not in result.stderr


def test_serve_refuses_a_file_that_is_no_database(tmp_path: Path) -> None:
    """The setting is named, and the file is left as it is."""
    (tmp_path / "remora.db").write_text("certainly no database" * 100)
    result = run("serve", directory=tmp_path, REMORA_PORT="0")

    assert result.returncode == 2
    assert "remora.db" in result.stderr
    assert "Traceback" not in result.stderr
    assert (tmp_path / "remora.db").read_text() == "certainly no database" * 100


def test_command_line_lists_its_commands(tmp_path: Path) -> None:
    """Without an argument the help comes; the version is the package's."""
    shown = run(directory=tmp_path)
    version = run("--version", directory=tmp_path)

    assert all(name in shown.stdout for name in ("serve", "demo", "sandbox", "migrate", "doctor"))
    assert re.fullmatch(r"remora \d+\.\d+\.\d+\n", version.stdout)
