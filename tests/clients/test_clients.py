"""What others make of docs/openapi.json: their generators' clients compile and take a job, their linters find no error.

`just clients` runs all; those of openapi-generator need Java, which the ordinary run does without.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.rig import ADMIN_KEY, rig
from tests.generated import ROOT
from tests.verifiers import install_npm, tool

HERE = Path(__file__).resolve().parent
DOCUMENT = ROOT / "docs" / "openapi.json"
PATIENCE_S = 300.0
PYTHON_CLIENT = "openapi-python-client==0.29.1"
GENERATOR = "openapi-generator-cli==7.26.0"
#: The job's status, the jobs that are listed, the results of the first, and how an unknown provider is refused.
TOOK = "completed 1 1 422"


def run(*command: str | Path, at: Path) -> str:
    """What a command says; it must succeed."""
    done = subprocess.run(command, cwd=at, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout.strip()


async def took(directory: Path, *command: str | Path) -> str:
    """What a client says that is run against a real service."""
    (directory / "service").mkdir()
    async with rig(directory / "service") as at:
        return await asyncio.to_thread(run, *command, at.service.url, ADMIN_KEY, at=directory)


def python_with(directory: Path, *packages: str) -> Path:
    """A Python of its own with these packages; skipped where their registry cannot be reached."""
    uv = Path(sys.executable).parent / "uv"
    run(uv, "venv", "-q", "--python", sys.executable, directory / "venv", at=directory)
    python = directory / "venv" / "bin" / "python"
    done = subprocess.run(
        [uv, "pip", "install", "-q", "--python", python, *packages],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    if done.returncode != 0:
        assert "No solution found" not in done.stderr, done.stderr
        pytest.skip(f"the registry of Python packages was not reached: {done.stderr.strip()[-300:]}")
    return python


@pytest.fixture(scope="module")
def npm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generator, the client and the linters of npm."""
    directory = install_npm(tmp_path_factory.mktemp("npm"), HERE)
    shutil.copy(DOCUMENT, directory)
    return directory


async def test_openapi_typescript_makes_types_that_compile(npm: Path) -> None:
    """And `openapi-fetch` takes a job with them."""
    tools = npm / "node_modules" / ".bin"
    run(tools / "openapi-typescript", "openapi.json", "-o", "api.d.ts", at=npm)
    run(tools / "tsc", "-p", ".", at=npm)

    assert await took(npm, tool("node"), "out/take.js") == TOOK


async def test_openapi_python_client_makes_a_client(tmp_path: Path) -> None:
    """Without leaving out any call that answers JSON; it takes a job."""
    python = python_with(tmp_path, PYTHON_CLIENT)
    command = python.parent / "openapi-python-client"
    said = run(command, "generate", "--meta", "none", "--path", DOCUMENT, "--output-path", "remora_client", at=tmp_path)
    shutil.copy(HERE / "take_client.py", tmp_path)

    assert "Endpoint will not be generated" not in said
    assert await took(tmp_path, python, "take_client.py") == TOOK


def test_linters_find_no_error(npm: Path) -> None:
    """Spectral and Redocly with their own recommended rules; a planted fault is found."""
    tools = npm / "node_modules" / ".bin"
    run(tools / "spectral", "lint", "openapi.json", at=npm)
    run(tools / "redocly", "lint", "openapi.json", at=npm)
    planted = DOCUMENT.read_text("utf-8").replace('"operationId": "takeJob"', '"operationId": "listJobs"')
    (npm / "planted.json").write_text(planted, "utf-8")
    for linter in ("spectral", "redocly"):
        with pytest.raises(AssertionError, match=r"(?i)operation-?id"):
            run(tools / linter, "lint", "planted.json", at=npm)


def generated(directory: Path, language: str) -> tuple[Path, Path]:
    """A client of openapi-generator, and the Python that made it."""
    tool("java")
    python = python_with(directory, GENERATOR)
    run(python.parent / "openapi-generator-cli", "generate", "-i", DOCUMENT, "-g", language, "-o", "made", at=directory)
    return directory / "made", python


@pytest.mark.java
async def test_openapi_generator_makes_a_python_client(tmp_path: Path) -> None:
    """It can be imported, and takes a job."""
    made, python = generated(tmp_path, "python")
    run(Path(sys.executable).parent / "uv", "pip", "install", "-q", "--python", python, made, at=tmp_path)
    shutil.copy(HERE / "take_generated.py", tmp_path)

    assert await took(tmp_path, python, "take_generated.py") == TOOK


@pytest.mark.java
async def test_openapi_generator_makes_a_go_client(tmp_path: Path) -> None:
    """It compiles, and takes a job."""
    made, _ = generated(tmp_path, "go")
    (made / "cmd").mkdir()
    shutil.copy(HERE / "take.go", made / "cmd")
    run(tool("go"), "build", ".", at=made)

    assert await took(made, tool("go"), "run", "./cmd") == TOOK


@pytest.mark.java
async def test_openapi_generator_makes_a_typescript_client(tmp_path: Path, npm: Path) -> None:
    """It compiles, and takes a job."""
    made, _ = generated(tmp_path, "typescript-fetch")
    shutil.copy(HERE / "take_fetch.ts", made)
    compiler = npm / "node_modules" / ".bin" / "tsc"
    strict = ("--strict", "--target", "es2022", "--lib", "es2022,dom", "--module", "commonjs")
    run(compiler, "--outDir", "out", *strict, "take_fetch.ts", at=made)

    assert await took(made, tool("node"), "out/take_fetch.js") == TOOK
