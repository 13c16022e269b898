"""The documents that are made from code; `python -m tests.generated` writes them, a test says whether they are current."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from service import __version__
from service.api.description import described
from service.api.server import ROUTES
from service.db.tables.jobs import Job
from service.metrics import METRICS
from service.providers.card.schema import card_schema
from service.settings import PREFIX, PROVIDER_SETTINGS, PROVIDERS_PREFIX, SETTINGS, Setting
from service.states import MEANINGS, MOVES, ErrorCode, JobStatus

ROOT = Path(__file__).resolve().parent.parent

_SETTINGS_INTRO = """\
# Settings

<!-- Made from service/settings.py by `python -m tests.generated`; change it there. -->

Settings come from the environment, then from `.env`, then from `remora.toml` (both in the working directory); the first
that has one wins, and an empty value counts as not given. A secret may stand in a file of its own: `REMORA_ADMIN_KEY_FILE`
names the file, as container platforms do it. Relative paths start from the working directory. Everything that is wrong, an
unknown `REMORA_…` name included, is reported at once, before anything listens.

Durations are written `500ms`, `30s`, `5m`, `2h`, `7d`; sizes `512MiB`, `2GiB`, `500KB` or a number of bytes.
"""

_PROVIDERS_INTRO = f"""
## For a provider

`{PROVIDERS_PREFIX}<CARD>__…`, with the card's name in capitals and `-` as `_`: the key for `sharkapi-v1` is
`{PROVIDERS_PREFIX}SHARKAPI_V1__API_KEY`. What is not given is as the card says.
"""

_TOML_OUTRO = """
## As a file

The same in `remora.toml`:

```toml
public_url = "https://remora.example"
egress_allow = ["10.0.0.0/8"]
delivery_schedule = ["5s", "5m", "1h"]

[retention]
payloads = "30d"

[providers.sharkapi-v1]
api_key_file = "/run/secrets/sharkapi"
submit_rate = "20/10s"
```
"""


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), ["---"] * len(list(head)), *map(list, rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _setting_rows(rows: Iterable[Setting], prefix: str) -> str:
    cells = (
        (
            f"`{prefix}{row.name}`" + (" (or `_FILE`)" if row.secret else ""),
            "–" if row.default is None else f"`{row.default}`" if row.default else "empty",
            row.form,
            row.help,
        )
        for row in rows
    )
    return _table(("setting", "default", "form", "meaning"), cells)


def settings_page() -> str:
    """docs/settings.md as the table in the code has it."""
    ours = _setting_rows(SETTINGS, PREFIX)
    cards = _setting_rows(PROVIDER_SETTINGS, "…__")
    cards = cards.replace("| – | US dollars", "| `REMORA_PRICE_CEILING` | US dollars").replace(
        "| – |", "| from the card |"
    )
    return f"{_SETTINGS_INTRO}\n{ours}{_PROVIDERS_INTRO}\n{cards}{_TOML_OUTRO}"


def metrics_table() -> str:
    """The table of metrics in docs/operations.md."""
    cells = ((f"`{row.name}`", row.kind, ", ".join(row.labels) or "–", row.help) for row in METRICS)
    return _table(("metric", "kind", "labels", "what it tells"), cells)


def with_metrics(page: str) -> str:
    """The page with the table of metrics made anew."""
    return _between("metrics", metrics_table(), page)


def packages_table() -> str:
    """The table of packages in docs/architecture.md: what each owns, and which module to open first."""
    rows = []
    for path in sorted((ROOT / "service").rglob("*/__init__.py")):
        told = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        first = re.search(r"Open `(\w+)` first", told)
        name = ".".join(path.parent.relative_to(ROOT / "service").parts)
        rows.append((f"`{name}`", " ".join(told.partition("\n\n")[0].split()), f"`{first[1]}`" if first else ""))
    return _table(("package", "what it owns", "open first"), rows)


def with_packages(page: str) -> str:
    """The page with the table of packages made anew."""
    return _between("packages", packages_table(), page)


_TUNING_INTRO = """\
# What the service is tuned by

<!-- Made from the constants of the modules by `python -m tests.generated`; change them there. -->

Settings are what operators change ([settings.md](settings.md)). What follows is fixed in the code: batch sizes, bounds and intervals,
each at the top of the module that uses it. `_S` and `_MS` are seconds and milliseconds.

"""


def _constants(path: Path) -> Iterable[tuple[str, str, str]]:
    """Name, value and meaning of a module's numbers."""
    text = path.read_text("utf-8")
    lines = text.splitlines()
    for node in ast.parse(text).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if not isinstance(target, ast.Name) or value is None or not re.fullmatch(r"[A-Z][A-Z0-9_]*", target.id):
            continue
        if not all(isinstance(part, _NUMBERS) for part in ast.walk(value)) or not _is_number(value):
            continue
        behind = lines[node.lineno - 1].partition("  # ")[2]
        above = lines[node.lineno - 2].partition("#: ")[2] or lines[node.lineno - 2].partition("# ")[2]
        yield target.id, ast.get_source_segment(text, value) or "", (behind or above).replace("|", "\\|")


_NUMBERS: Final = (ast.Constant, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop)


def _is_number(value: ast.expr) -> bool:
    constants = [part.value for part in ast.walk(value) if isinstance(part, ast.Constant)]
    return all(isinstance(each, int | float) and not isinstance(each, bool) for each in constants)


def tuning_page() -> str:
    """docs/tuning.md: every number that the service is tuned by, and where it stands."""
    packages: dict[str, list[tuple[str, str, str, str]]] = {}
    for path in sorted((ROOT / "service").rglob("*.py")):
        place = path.relative_to(ROOT / "service")
        if place.parts[0] in {"sandbox", "cli"}:
            continue
        package = ".".join(place.parent.parts) or "service"
        packages.setdefault(package, []).extend(
            (f"`{place.stem}`", f"`{name}`", f"`{value}`", meaning) for name, value, meaning in _constants(path)
        )
    tables = (
        f"## {package}\n\n{_table(('module', 'constant', 'value', 'what it is'), rows)}"
        for package, rows in sorted(packages.items())
        if rows
    )
    return _TUNING_INTRO + "\n".join(tables)


def _between(name: str, text: str, page: str) -> str:
    """The page with what stands between two markers replaced."""
    found = re.compile(rf"(<!-- {name} -->\n)(.*?)(<!-- /{name} -->)", re.DOTALL)
    assert found.search(page), name
    return found.sub(lambda match: f"{match[1]}\n{text}\n{match[3]}", page)


_STATES_INTRO = """# The states of a job

<!-- made from service/states.py by `just docs` -->

A job moves along this table and in no other way; every move, its event, its deliveries and its results are one transaction.

"""
_STATES_OUTRO = """
Final states stay. The same one heard again changes nothing; a contradicting one is recorded on the job's timeline as
`job.conflict`. Completion without a file is no completion: the provider is asked again for five minutes, then the job is
`failed` with `result_missing`.

`submit_unknown` is the honest answer to a request whose answer was lost: no provider here has an idempotency key, so sending
again could pay twice. A callback heals it by its token; else `POST /v1/jobs/{id}/resubmit` is an operator's decision,
`POST /v1/jobs/{id}/cancel` with `{"force": true}` gives it up, and the deadline ends it.

`error.code` is one of CODES.
"""


def states_page() -> str:
    """docs/states.md as the tables in the code have it."""
    cells = (
        (
            f"`{status.value}`",
            MEANINGS[status],
            ", ".join(f"`{to.value}`" for to in JobStatus if to in MOVES[status]) or "–",
        )
        for status in JobStatus
    )
    codes = ", ".join(f"`{code.value}`" for code in ErrorCode)
    return _STATES_INTRO + _table(("state", "meaning", "moves to"), cells) + _STATES_OUTRO.replace("CODES", codes)


def api_document() -> str:
    """docs/openapi.json."""
    return json.dumps(described(ROUTES, __version__), indent=2, ensure_ascii=False) + "\n"


def card_schema_text() -> str:
    """docs/card.schema.json, for the editors of those who write cards."""
    return json.dumps(card_schema(), indent=2, ensure_ascii=False) + "\n"


#: Columns that code knows by a narrower type than the table.
_NARROWER: Final = {"status": "JobStatus"}


def job_columns() -> str:
    """The fields of `JobRow`: the columns of the table in their order, those that have no default first."""
    required, others = [], []
    for name, field in Job.model_fields.items():
        kind = str(Job.__annotations__[name])
        if field.is_required():
            required.append(f"    {name}: {_NARROWER.get(name, kind)}\n")
        else:
            others.append(
                f"    {name}: {kind} = {json.dumps(field.default) if isinstance(field.default, str) else field.default}\n"
            )
    return "".join(required + others)


def with_job_columns(module: str) -> str:
    """service/jobs/row.py with the columns made anew."""
    return re.sub(
        r"(?<=    # <columns>\n).*?(?=    # </columns>\n)", lambda _: job_columns(), module, count=1, flags=re.DOTALL
    )


def main() -> None:
    """Write the documents."""
    (ROOT / "docs" / "card.schema.json").write_text(card_schema_text(), "utf-8")
    (ROOT / "docs" / "openapi.json").write_text(api_document(), "utf-8")
    (ROOT / "docs" / "settings.md").write_text(settings_page(), "utf-8")
    (ROOT / "docs" / "states.md").write_text(states_page(), "utf-8")
    (ROOT / "docs" / "tuning.md").write_text(tuning_page(), "utf-8")
    operations = ROOT / "docs" / "operations.md"
    operations.write_text(with_metrics(operations.read_text("utf-8")), "utf-8")
    row = ROOT / "service" / "jobs" / "row.py"
    row.write_text(with_job_columns(row.read_text("utf-8")), "utf-8")
    architecture = ROOT / "docs" / "architecture.md"
    architecture.write_text(with_packages(architecture.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
