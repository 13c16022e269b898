"""What docs/operations.md says of the log is complete: every event with its level and its fields, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "critical": "critical"} | {
    "exception": "error"
}
#: Calls whose event is made elsewhere: where the events of those are written down is found by name below.
ELSEWHERE = {"service/telemetry.py", "service/jobs/track.py", "service/cli/serve.py"}
Said = tuple[str, str, set[str]]  # event, level, fields


def said_in(tree: ast.AST, file: str = "") -> Iterator[Said]:
    """Every line of the log that a module writes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from _said(node, file)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "_TOLD":
            for entry in node.value.values if isinstance(node.value, ast.Dict) else ():
                if isinstance(entry, ast.Tuple):  # level and event, as `track` has them
                    level, event = (each.value for each in entry.elts if isinstance(each, ast.Constant))
                    yield str(event), str(level), set()


def _said(call: ast.Call, file: str) -> Iterator[Said]:
    function, given = call.func, list(call.args)
    if isinstance(function, ast.Name) and function.id == "partial" and given and _level(given[0]):
        function = given.pop(0)
    fields = {each.arg for each in call.keywords if each.arg} - {"exc_info"}
    if isinstance(function, ast.Name) and function.id == "_Warning":
        level = next((_texts(each)[0] for each in (*given[3:], *call.keywords) if _texts(each)), "warning")
        yield _texts(given[0])[0], level if level in LEVELS else "warning", {"reason"}
    elif logged := _level(function):
        for event in _events(given[0], file):
            yield event, logged, fields
    elif isinstance(function, ast.Attribute) and function.attr == "say" and len(given) == 2 and "screen" not in file:
        events = _events(given[1], file)
        levels = _texts(given[0]) or ["?"] * len(events)
        for event, level in zip(events, levels, strict=True):
            yield event, level, fields


def _level(function: ast.expr) -> str | None:
    of_a_log = isinstance(function, ast.Attribute) and ast.unparse(function.value) in {"_log", "self._log"}
    return LEVELS.get(function.attr) if of_a_log and isinstance(function, ast.Attribute) else None


def _events(expression: ast.expr, file: str) -> list[str]:
    found = _texts(expression)
    assert found or file in ELSEWHERE, f"{file}: {ast.unparse(expression)}: name the event where it is logged"
    return found


def _texts(expression: ast.AST) -> list[str]:
    """A text, or both of `a if b else c`."""
    if isinstance(expression, ast.IfExp):
        return [*_texts(expression.body), *_texts(expression.orelse)]
    if isinstance(expression, ast.keyword):
        return _texts(expression.value)
    known = isinstance(expression, ast.Constant) and isinstance(expression.value, str)
    return [str(ast.literal_eval(expression))] if known and isinstance(expression, ast.expr) else []


def described() -> dict[str, tuple[set[str], set[str]]]:
    """The tables: levels and fields by event."""
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    tables = re.findall(r"^<!-- events[^\n]*-->\n\n((?:\|.*\n)+)", text, re.MULTILINE)
    found: dict[str, tuple[set[str], set[str]]] = {}
    for row in "".join(tables).splitlines():
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        levels, fields = cells[1].split(", "), set(re.findall(r"`([a-z_]+)`", cells[2]))
        events = re.findall(r"`([a-z_]+)`", cells[0])
        paired = len(events) == len(levels) > 1
        for place, event in enumerate(events):
            assert event not in found, f"{event} stands there twice"
            found[event] = ({levels[place]} if paired else set(levels), fields)
    return found


def test_every_line_of_the_log_is_described() -> None:
    """Its event, its level and its fields; and what is described is logged."""
    files = [
        file for file in (ROOT / "service").rglob("*.py") if "sandbox" not in file.parts and "demo" not in file.parts
    ]
    said = [each for file in files for each in said_in(ast.parse(file.read_text("utf-8")), str(file.relative_to(ROOT)))]
    known = described()
    missing = {event for event, _, _ in said} - known.keys()
    wrong_level = {
        (event, level) for event, level, _ in said if event in known and level not in known[event][0] | {"?"}
    }
    fields = {(event, field) for event, _, names in said if event in known for field in names - known[event][1]}

    assert len(said) > 50
    assert missing == set(), "add a row to docs/operations.md"
    assert wrong_level == set()
    assert fields == set()
    assert known.keys() - {event for event, _, _ in said} == set(), "nobody logs these any more"


def test_checker_finds_a_line_that_is_not_described() -> None:
    """However it is written."""
    program = """
_log.warning("one", job=1)
self._lines.say("info" if a else "warning", "two" if a else "three", url=2)
partial(_log.error, "four")
_log.exception("five")
_Warning("six", "HEAD", says, "info")
"""
    assert list(said_in(ast.parse(program))) == [
        ("one", "warning", {"job"}),
        ("two", "info", {"url"}),
        ("three", "warning", {"url"}),
        ("four", "error", set()),
        ("five", "error", set()),
        ("six", "info", {"reason"}),
    ]
