"""`remora sandbox` as a process and as a command line."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys

import aiohttp
import pytest
import typer
from typer.testing import CliRunner

from service.cli.sandbox import EPILOG, sandbox

ALONE = "import typer; from service.cli.sandbox import sandbox; typer.run(sandbox)"


def invoke(*arguments: str) -> tuple[int, str]:
    app = typer.Typer(rich_markup_mode=None)
    app.command(epilog=EPILOG)(sandbox)
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_sandbox_prints_settings_that_work_and_ends_cleanly(number: signal.Signals) -> None:
    """Every card has its lines, a printed base URL answers; a signal ends it with status 0 and without a traceback."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ALONE, "--port", "0", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    lines: dict[str, str] = {}
    async with asyncio.timeout(20):
        while "REMORA_PUBLIC_URL" not in lines:
            name, _, value = (await process.stdout.readline()).decode().strip().partition("=")
            lines[name] = value
    async with aiohttp.ClientSession() as session:
        headers = {"Authorization": f"Bearer {lines['REMORA_PROVIDERS__APIMODELS__API_KEY']}"}
        url = lines["REMORA_PROVIDERS__APIMODELS__BASE_URL"] + "/api/v1/images/generations"
        async with session.post(url, json={"prompt": "a cat"}, headers=headers) as answer:
            assert answer.status == 200

    assert lines["REMORA_EGRESS_ALLOW"] == "127.0.0.0/8"
    assert lines["REMORA_PUBLIC_URL"] == "http://127.0.0.1:8080"
    assert {name for name in lines if name.startswith("REMORA_PROVIDERS")} == {
        f"REMORA_PROVIDERS__{card}__{what}"
        for card in ("APIMODELS", "SHARKAI", "SHARKAPI", "SHARKAPI_V1")
        for what in ("BASE_URL", "API_KEY")
    }
    process.send_signal(number)
    _, stderr = await asyncio.wait_for(process.communicate(), 10)

    assert (process.returncode, stderr) == (0, b"")


def test_sandbox_refuses_an_unknown_fault() -> None:
    """The bad word is named, with the one that was probably meant."""
    status, output = invoke("--faults", "lost-calback")

    assert status == 2
    assert "did you mean lost-callback?" in " ".join(output.split())


def test_sandbox_says_that_the_port_is_taken() -> None:
    """One line with host and port instead of a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, output = invoke("--port", str(port))

    assert status == 1
    assert f"127.0.0.1 port {port}" in output
    assert "Traceback" not in output


def test_sandbox_help_explains_faults_and_keys() -> None:
    """Every word, how to write it, and which keys are refused."""
    status, output = invoke("--help")

    text = " ".join(output.split())
    assert status == 0
    assert "cut-submit-lost: nothing is created" in text
    assert text.count("cut-submit-lost") == 1
    assert "'bad'" in text
