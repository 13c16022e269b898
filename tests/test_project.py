"""The project's own promises: its layers, its documents, its wheel, its image."""

from __future__ import annotations

import ast
import json
import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.db.tables.jobs import Job
from service.jobs.row import COLUMNS, WRITTEN_ONCE
from service.metrics import METRICS
from tests.generated import (
    ROOT,
    card_schema_text,
    settings_page,
    states_page,
    tuning_page,
    with_job_columns,
    with_metrics,
    with_packages,
)

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
SCRIPTS = Path(sys.executable).parent


def lint_imports(directory: Path) -> subprocess.CompletedProcess[str]:
    command = [str(SCRIPTS / "lint-imports"), "--config", str(directory / "pyproject.toml"), "--no-cache"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the service to plant a violation in."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "service", tmp_path / "service", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_sockets_beyond_loopback_are_refused() -> None:
    """A test that would leave the machine fails instead, whichever client it uses."""
    with socket.socket() as sock, pytest.raises(RuntimeError, match=r"tests stay on 127\.0\.0\.1"):
        sock.connect(("192.0.2.1", 80))


def test_sockets_on_loopback_are_allowed() -> None:
    """Servers on 127.0.0.1 are what tests talk to."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert client.getpeername() == server.getsockname()


@pytest.mark.parametrize("packed", [time.time_ns().to_bytes(8, "big"), b"\x1f\x8b"])
def test_parametrized_bytes_are_not_in_a_tests_name(packed: bytes, request: pytest.FixtureRequest) -> None:
    """Every worker collects the same names, although bytes that a gzip header or a signature begins hold the time."""
    assert packed
    assert request.node.name in {f"{request.node.originalname}[packed{number}]" for number in range(2)}


def test_import_contracts_hold() -> None:
    """The house is built as docs and design say."""
    result = lint_imports(ROOT)

    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("states.py", "import service.ids", "Layers, high to low"),
        ("backoff.py", "import service.settings", "Layers, high to low"),
        ("surplus.py", "", "Layers, high to low"),  # a module that has no place
        ("ids.py", "import litestar", "Litestar only in app, api, dashboard, sandbox"),
        ("settings.py", "import httpx", "HTTP clients only in egress and the sandbox"),
        ("telemetry.py", "import sqlalchemy", "SQL only in db, store.py and queries.py"),
        ("telemetry.py", "import apscheduler", "APScheduler only in scheduler"),
        ("accounts/planted.py", "import service.jobs.store", "jobs.store and deliveries.store only"),
        ("api/planted.py", "import service.deliveries.ending_store", "jobs.store and deliveries.store only"),
        ("sandbox/planted.py", "import service.providers.card.card", "The sandbox knows nothing"),
        ("states.py", "import socket", "states, backoff, ids, notation"),
    ],
)
def test_planted_violation_is_caught(file: str, line: str, contract: str, copy: Path) -> None:
    """A contract that nothing can break would prove nothing."""
    target = copy / "service" / file
    text = target.read_text("utf-8") if target.exists() else '"""Planted."""\n'
    target.write_text(f"{text}\n{line}\n", "utf-8")
    result = lint_imports(copy)

    assert result.returncode == 1, result.stdout + result.stderr
    assert re.search(rf"{contract}.* BROKEN", result.stdout)


def test_every_ruff_exception_has_its_reason() -> None:
    """`ALL` minus a list, each line with its reason."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    listed = re.search(r"^ignore = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)

    assert PYPROJECT["tool"]["ruff"]["lint"]["select"] == ["ALL"]
    assert listed is not None
    for line in listed[1].splitlines():
        assert re.fullmatch(r'    "[A-Z0-9]+", +# .{8,}', line), line


def test_modules_and_functions_stay_small() -> None:
    """No module above 400 lines, no function above 60: where one grows, it is time to split it."""
    too_large = []
    for path in (ROOT / "service").rglob("*.py"):
        text = path.read_text("utf-8")
        if text.count("\n") > 400:
            too_large.append(f"{path.name}: {text.count(chr(10))} lines")
        too_large += [
            f"{path.name}: {node.name} has {(node.end_lineno or 0) - node.lineno + 1} lines"
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and (node.end_lineno or 0) - node.lineno + 1 > 60
        ]

    assert too_large == []


def test_catching_everything_has_its_reason() -> None:
    """Only an outermost guard catches `Exception` and does not raise it again, and it says so on the line."""
    for path in (ROOT / "service").rglob("*.py"):
        text = path.read_text("utf-8")
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.ExceptHandler) or any(isinstance(inner, ast.Raise) for inner in ast.walk(node)):
                continue
            if node.type is None or (
                isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}
            ):
                line = text.splitlines()[node.lineno - 1]
                assert re.search(r"# (noqa: BLE001 - )?\w.{15,}", line), f"{path.name}: {line.strip()}"


def test_every_module_says_what_it_owns() -> None:
    """A module opens with a docstring, and none is called utils, common, helpers or manager."""
    for path in (ROOT / "service").rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), path
        assert path.stem not in {"utils", "common", "helpers", "manager"}


def test_settings_page_is_current() -> None:
    """docs/settings.md is what the table in the code says; `just docs` makes it so."""
    assert (ROOT / "docs" / "settings.md").read_text("utf-8") == settings_page()


def test_states_page_is_current() -> None:
    """docs/states.md is what the tables in the code say; `just docs` makes it so."""
    assert (ROOT / "docs" / "states.md").read_text("utf-8") == states_page()


def test_columns_of_a_job_are_its_tables() -> None:
    """`JobRow` has them all, in one order; `just docs` makes it so. What is written once is said of columns that there are."""
    module = (ROOT / "service" / "jobs" / "row.py").read_text("utf-8")

    assert with_job_columns(module) == module
    assert set(COLUMNS) == set(Job.model_fields)
    assert set(COLUMNS) > WRITTEN_ONCE


def test_card_schema_is_current() -> None:
    """docs/card.schema.json is the format that the code reads; `just docs` makes it so."""
    assert (ROOT / "docs" / "card.schema.json").read_text("utf-8") == card_schema_text()


def test_operations_page_lists_every_metric() -> None:
    """docs/operations.md has the table of metrics between its markers; `just docs` makes it so."""
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")

    assert with_metrics(page) == page
    assert all(f"`{row.name}`" in page for row in METRICS)


def test_files_that_a_project_owes_its_users_exist() -> None:
    """Readme, changelog, licence, gate."""
    assert "Unreleased" in (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert "Apache License" in (ROOT / "LICENSE").read_text("utf-8")
    assert (ROOT / "README.md").stat().st_size > 0
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


@pytest.mark.parametrize("name", ["setup", "test"])
def test_readme_marks_the_block_that_the_gate_runs(name: str) -> None:
    """The commands that a reader copies are those that the gate checks."""
    readme = (ROOT / "README.md").read_text("utf-8")

    assert re.search(rf"^<!-- gate: {name} -->\n```\w*\n.+?\n```$", readme, re.MULTILINE | re.DOTALL)


def test_wheel_carries_everything_it_needs(tmp_path: Path) -> None:
    """A wheel alone can migrate a database, knows the built-in cards and serves its pages."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120, check=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        packed = set(wheel.namelist())
    kinds = {".yaml", ".html", ".css", ".js", ".png", ".svg", ".map", ".typed", ".py"}
    ours = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "service").rglob("*")
        if path.is_file() and path.suffix in kinds
    }

    assert ours <= packed
    for path in [*(ROOT / "migrations").rglob("*.py"), *(ROOT / "migrations").rglob("*.sql")]:
        assert f"service/_migrations/{path.relative_to(ROOT / 'migrations').as_posix()}" in packed
    assert "service/_migrations/env.py" in packed
    assert "service/providers/cards/apimodels.yaml" in packed
    assert not any(name.startswith(("tests/", "migrations/")) for name in packed)


def test_image_is_built_from_what_is_there() -> None:
    """Every path that the Dockerfile copies exists and is let through by .dockerignore; nothing is fetched by URL."""
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    let_through = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    sources = [
        path for line in re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile, re.MULTILINE) for path in line.split()
    ]

    assert "migrations" in sources
    for path in sources:
        assert (ROOT / path).exists(), path
        assert f"!{path}" in let_through
    assert not re.search(r"^ADD ", dockerfile, re.MULTILINE)
    assert "curl" not in dockerfile


def test_image_runs_without_root_and_checks_its_health() -> None:
    """The last stage drops root, keeps its data in a volume, and is asked for its health by Python alone."""
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    last = dockerfile[dockerfile.rindex("\nFROM ") :]
    check = re.search(r"^HEALTHCHECK .*CMD (\[.*\])$", last, re.MULTILINE)

    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert re.search(r"^VOLUME /data$", last, re.MULTILINE)
    assert "REMORA_HOST=0.0.0.0" in last
    assert "REMORA_DATABASE_URL=sqlite:////data/remora.db" in last
    assert check is not None
    program = json.loads(check[1])
    assert program[:2] == ["python", "-c"]
    assert "/healthz" in program[2]
    ast.parse(program[2])


def test_packages_say_what_they_own() -> None:
    """What it is, what it must not know, and which module to open first, which there is."""
    for path in (ROOT / "service").rglob("*/__init__.py"):
        told = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        first = re.search(r"Open `(\w+)` first", told)

        assert first is not None, path
        assert (path.parent / f"{first[1]}.py").exists(), f"{path}: {first[1]}"
        assert re.search(r"[Ii]t must not\s\w+", told), path


def test_table_of_packages_is_current() -> None:
    """docs/architecture.md has every package; `just docs` makes it so."""
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")

    assert with_packages(page) == page


def test_tuning_page_is_current_and_tells_what_each_number_is() -> None:
    """docs/tuning.md lists the numbers of all modules, each with its meaning; `just docs` makes it so."""
    page = (ROOT / "docs" / "tuning.md").read_text("utf-8")

    assert tuning_page() == page
    assert page.count("\n| `") > 300
    assert re.findall(r"^\| `\w+` \| `(\w+)` \| `[^`]+` \|  \|$", page, re.MULTILINE) == []


def test_packages_stay_small() -> None:
    """A package of one concept has about fifteen modules."""
    counts = {
        ".".join(path.parent.relative_to(ROOT / "service").parts): len(list(path.parent.glob("*.py"))) - 1
        for path in (ROOT / "service").rglob("*/__init__.py")
    }

    assert {name: count for name, count in counts.items() if count > 16} == {}


def _missing(page: str, root: Path) -> list[str]:
    """Rows of "Where is …?" whose file does not define the name."""
    rows = re.findall(r"^\| [^|]+\? \| `(service/[\w/]+\.py)` \| `(\w+)` \|$", page, re.MULTILINE)
    assert len(rows) >= 24
    found = []
    for file, name in rows:
        path = root / file
        body = ast.parse(path.read_text("utf-8")).body if path.exists() else []
        defined = {
            each.name for each in body if isinstance(each, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        }
        for each in body:
            targets = (
                each.targets
                if isinstance(each, ast.Assign)
                else [each.target]
                if isinstance(each, ast.AnnAssign)
                else []
            )
            defined |= {target.id for target in targets if isinstance(target, ast.Name)}
        if name not in defined:
            found.append(f"{file}: {name}")
    return found


def test_whoever_asks_where_something_is_finds_it() -> None:
    """The answers of docs/architecture.md exist and define what they name; a planted wrong one is seen."""
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")

    assert _missing(page, ROOT) == []
    assert _missing(page.replace("`Tracker` |", "`Trackers` |"), ROOT) == ["service/jobs/track.py: Trackers"]


def test_module_names_tell_modules_apart() -> None:
    """Two modules share a name only where they play the same part, each in its package. The sandbox is a program of its own."""
    parts = {"store", "queries", "retention_store"}  # of a package's own tables
    edges = {"api.routes", "cli", "db.tables"}  # routes, commands and tables of the same thing
    places: dict[str, list[str]] = {}
    for path in (ROOT / "service").rglob("*.py"):
        package = ".".join(path.parent.relative_to(ROOT / "service").parts)
        if path.stem != "__init__" and not package.startswith("sandbox"):
            places.setdefault(path.stem, []).append(package)
    shared = {
        name: found
        for name, found in places.items()
        if len(found) > 1 and name not in parts and len([each for each in found if each not in edges]) > 1
    }

    assert shared == {}


def test_wiring_hands_everything_in_by_constructor() -> None:
    """Nothing is set on an object after it was made: who has the object has all of it."""
    for path in (ROOT / "service" / "wiring").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            targets = node.targets if isinstance(node, ast.Assign) else []
            flat = [part for each in targets for part in (each.elts if isinstance(each, ast.Tuple) else [each])]

            assert not any(isinstance(part, ast.Attribute) for part in flat), path


def test_class_names_tell_classes_apart() -> None:
    """Two classes share a name only where they play the same part: `Observer` is what a module tells telemetry, and tables are their rows."""
    places: dict[str, list[str]] = {}
    for path in (ROOT / "service").rglob("*.py"):
        parts = path.relative_to(ROOT / "service").parts
        if parts[0] == "sandbox" or parts[:2] == ("db", "tables"):
            continue
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and node.name != "Observer":
                places.setdefault(node.name, []).append("/".join(parts))

    assert {name: found for name, found in places.items() if len(found) > 1} == {}


_SQL = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE FROM|WITH|REPLACE)\b.*\b(FROM|INTO|SET|SELECT)\b", re.DOTALL)


def _with_sql(root: Path) -> set[str]:
    """Modules outside `db`, `store`s and `queries` that hold text of a statement."""
    found = set()
    for path in (root / "service").rglob("*.py"):
        name = path.relative_to(root / "service").as_posix()
        if name.startswith("db/") or re.search(r"(^|_)(store|queries)$", path.stem):
            continue
        if any(_SQL.match(text) for text in _texts(ast.parse(path.read_text("utf-8")))):
            found.add(name)
    return found


def _texts(tree: ast.AST) -> Iterator[str]:
    """Every text of a module; of one with parts that are put in, all the rest of it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)


def test_statements_stand_where_one_looks_for_them(tmp_path: Path) -> None:
    """In `db`, a `store` or `queries`, and nowhere else."""
    planted = {
        "constant.py": 'SQL = "SELECT 1 FROM jobs"',
        "put_in.py": 'SQL = f"SELECT {COLUMNS} FROM jobs"',
        "prose.py": 'TEXT = "Select what you like"',
        "store.py": 'SQL = "SELECT 1 FROM jobs"',
    }
    (tmp_path / "service").mkdir()
    for name, line in planted.items():
        (tmp_path / "service" / name).write_text(f'"""Planted."""\n{line}\n', "utf-8")

    assert _with_sql(ROOT) == set()
    assert _with_sql(tmp_path) == {"constant.py", "put_in.py"}


def test_documents_name_files_that_exist() -> None:
    """A path in a document leads somewhere, from the top or from `service/`."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    named = {
        (page.name, name)
        for page in pages
        for name in re.findall(r"(?<![\w/.])(?:[a-z_0-9]+/)+[a-z_0-9]+\.py\b", page.read_text("utf-8"))
    }

    assert len(named) > 100
    assert {each for each in named if not any((top / each[1]).exists() for top in (ROOT, ROOT / "service"))} == set()
