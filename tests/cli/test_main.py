"""The command line itself: its names, and that nobody waits for what is not used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from service.cli.main import COMMANDS, load
from tests.cli.commands import run


@pytest.mark.parametrize("name", COMMANDS)
def test_line_of_help_is_what_the_command_says_of_itself(name: str) -> None:
    """The list of commands is written apart from them, so that it needs none of them; the words are theirs."""
    _, line = COMMANDS[name]
    said = load(name).help or ""

    assert said.splitlines()[0].startswith(line)


def test_commands_are_imported_when_they_are_called() -> None:
    """The version and the help come at once: neither the service nor a library of it is imported."""
    heavy = "{'service.app', 'litestar', 'sqlalchemy', 'aiohttp', 'PIL'}"
    program = (
        f"import sys, service.cli.main; sys.exit(str({heavy} & set(sys.modules)) if {heavy} & set(sys.modules) else 0)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=90, check=False)

    assert result.returncode == 0, result.stderr


def test_mistyped_command_is_told_with_the_right_one(tmp_path: Path) -> None:
    """Status 2, without a traceback."""
    result = run("doktor", directory=tmp_path)

    assert result.returncode == 2
    assert "Did you mean 'doctor'" in result.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_command_has_its_own_help(name: str, tmp_path: Path) -> None:
    """Under its name, with both ways to ask for it."""
    result = run(name, "-h", directory=tmp_path)

    assert result.returncode == 0, result.stderr
    assert f"Usage: remora {name}" in result.stdout
    assert "completion" not in result.stdout
