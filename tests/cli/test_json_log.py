"""`remora serve` for a machine: whatever it writes, to whichever stream, is a line of JSON, from the first to the last."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.db.sqlite.file_lock import DatabaseLock
from tests.cli.commands import PATIENCE_S, environment, run, start


def lines(output: str) -> list[dict[str, Any]]:
    """Every line, each of which has a time, a level and an event."""
    said = [json.loads(line) for line in output.splitlines()]
    assert all({"time", "level", "event"} <= line.keys() for line in said)
    return said


@pytest.mark.parametrize("log_format", ["json", "auto"])
async def test_every_line_is_json_from_start_to_stop(log_format: str, tmp_path: Path) -> None:
    """Also without a terminal and nothing asked for: where it listens, the key's file, and every warning."""
    given = {
        "REMORA_LOG_FORMAT": log_format,
        "REMORA_HOST": "0.0.0.0",
        "REMORA_PROVIDERS__APIMODELS__API_KEY": "sk-test",
        "REMORA_PROVIDERS__APIMODELS__BASE_URL": "http://127.0.0.1:9",
    }
    process = await start("serve", directory=tmp_path, REMORA_PORT="0", **given)
    assert process.stderr is not None
    said: list[str] = []
    async with asyncio.timeout(PATIENCE_S):
        while not said or "polling_only" not in said[-1]:
            said.append((await process.stderr.readline()).decode())
            assert said[-1], said
    process.terminate()
    out, rest = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    found = {line["event"]: line for line in lines("".join(said) + rest.decode())}

    assert (process.returncode, out) == (0, b"")
    assert found["listening"]["url"].startswith("http://0.0.0.0:")
    assert found["listening"]["admin_key_file"] == str(tmp_path / "remora.db.admin-key")
    assert (found["listening"]["admin_key_is_new"], found["listening"]["database_is_new"]) == (True, True)
    assert found["provider_out_of_reach"]["provider"] == "apimodels"
    assert "http://localhost:" in found["links_lead_to_localhost"]["reason"]
    assert found["polling_only"]["level"] == "warning"


@pytest.mark.parametrize(
    ("given", "status", "word"),
    [
        ({"REMORA_PORT": "http", "REMORA_JOB_TTL": "soon", "REMORA_NO_SUCH": "x"}, 2, "REMORA_JOB_TTL"),
        ({"REMORA_CARDS_DIR": "."}, 2, "mine.yaml:2"),
        ({"REMORA_HOST": "192.0.2.1"}, 3, "REMORA_HOST"),
        ({"REMORA_DATABASE_URL": "sqlite:///dta/remora.db"}, 2, "no directory"),
    ],
)
def test_failed_start_is_one_line_of_json(given: dict[str, str], status: int, word: str, tmp_path: Path) -> None:
    """With everything that is wrong, and the exit status that it has in words, too."""
    (tmp_path / "mine.yaml").write_text("card: 1\nname: Mine!\n")
    result = run("serve", directory=tmp_path, **{"REMORA_PORT": "0", "REMORA_LOG_FORMAT": "json"} | given)

    [line] = lines(result.stdout + result.stderr)
    assert (result.returncode, line["exit_status"], line["event"]) == (status, status, "start_failed")
    assert any(word in problem for problem in line["problems"])


def test_format_is_known_where_the_settings_are_wrong(tmp_path: Path) -> None:
    """Also where a file has it; a format that is wrong itself counts as none."""
    (tmp_path / ".env").write_text("REMORA_LOG_FORMAT=console\n")
    by_file = run("serve", directory=tmp_path, REMORA_PORT="http", REMORA_LOG_FORMAT="")
    wrong = run("serve", directory=tmp_path, REMORA_LOG_FORMAT="xml")

    assert by_file.stderr.startswith("remora: one setting is wrong\n")
    assert "REMORA_LOG_FORMAT='xml'" in lines(wrong.stderr)[0]["problems"][0]


def test_database_in_use_is_told_in_json(tmp_path: Path) -> None:
    """As any other failed start."""
    lock = DatabaseLock(tmp_path / "remora.db")
    lock.acquire()
    try:
        result = run("serve", directory=tmp_path, REMORA_PORT="0", REMORA_LOG_FORMAT="json")
    finally:
        lock.release()

    assert result.returncode == 3
    assert "in use by another Remora process" in lines(result.stderr)[0]["problems"][0]


_CRASHING = """
import asyncio, logging, sys, threading, warnings
from service.cli.crashes import log_crashes
from service.telemetry import configure_logging

configure_logging("json", "info", sys.stderr)
log_crashes()

class Late:
    def __del__(self):
        raise ValueError("in a\\nfinaliser")

def fail(): raise ValueError("in a\\nthread")

thread = threading.Thread(target=fail, name="worker")
thread.start()
thread.join()
Late()
warnings.warn("a warning\\nof two lines")
logging.getLogger("uvicorn.error").error("Exception in\\nASGI application")

async def main():
    asyncio.get_running_loop().create_future().set_exception(ValueError("never\\nlooked at"))
    asyncio.get_running_loop().call_soon(fail)
    await asyncio.sleep(0)
    raise SystemError("nobody\\ncatches this")

asyncio.run(main())
"""


def test_what_nobody_catches_is_json(tmp_path: Path) -> None:
    """In the main thread, another one, a finaliser and the loop; warnings and the server's own lines, too."""
    done = subprocess.run(
        [sys.executable, "-c", _CRASHING],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    said = lines(done.stdout + done.stderr)
    text = "\n".join(str(line) for line in said)

    assert done.returncode == 1
    assert [line["event"] for line in said].count("crashed") == 2
    assert said[0]["thread"] == "worker"
    for word in ("finaliser", "a warning", "ASGI application", "never", "nobody"):
        assert word in text
