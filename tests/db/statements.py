"""All statements of the service: read from the values and the source of its modules, so that none has to be registered.

A statement that a function puts together is known by a sample: what the function gave when it was called. Every text in the
source that looks like a statement must be one of those that are known, or a part of one.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from service.db.leases import TAKEN, VOID, Leased
from tests.generated import ROOT

STATEMENT: Final = re.compile(
    r"\s*(SELECT\s+\S|INSERT\s+(OR\s+\w+\s+)?INTO\b|UPDATE\s+\S+\s.*\bSET\b|DELETE\s+FROM\b|WITH\b.*\bAS\b)", re.DOTALL
)
_GAP: Final = "\0"  # in a pattern: what only runs of the code would tell


@dataclass(frozen=True)
class Literal:
    """A text in the source that looks like a statement, with gaps for what is put in."""

    where: str
    pattern: str

    def is_in(self, statements: Iterable[str]) -> bool:
        """Whether it is a statement that is known, or a part of one."""
        parts = [re.escape(part) for part in re.split(rf"{_GAP}|\{{\w*\}}", self.pattern)]
        found = re.compile(".*?".join(parts), re.DOTALL)
        return any(found.search(each) for each in statements)


def modules(root: Path = ROOT / "service", package: str = "service") -> Iterator[tuple[ModuleType, str]]:
    """Every module that may hold statements, with its source; the sandbox has a store of its own, and no SQL."""
    for path in sorted(root.rglob("*.py")):
        text = path.read_text("utf-8")
        name = ".".join([package, *path.relative_to(root).with_suffix("").parts]).removesuffix(".__init__")
        if STATEMENT.search(text) and not name.startswith(
            ("service.sandbox", "service.cli", "service.db.tables", "service.db.alembic")
        ):
            yield importlib.import_module(name), text


def literals(module: ModuleType, source: str) -> list[Literal]:
    """What looks like a statement in the source; not docstrings."""
    found = []
    for node, _ in _strings(ast.parse(source)):
        pattern = str(node.value) if isinstance(node, ast.Constant) else "".join(map(_part, node.values))
        if STATEMENT.match(pattern):
            found.append(Literal(f"{module.__name__}:{node.lineno}", pattern.strip()))
    return found


def _part(part: ast.expr) -> str:
    return str(part.value) if isinstance(part, ast.Constant) else _GAP


def _strings(tree: ast.Module) -> Iterator[tuple[ast.Constant | ast.JoinedStr, ast.AST]]:
    """The texts of a module, f-strings as a whole, each with the function or module in which it stands; not docstrings."""
    waiting: list[tuple[ast.AST, ast.AST]] = [(tree, tree)]
    while waiting:
        node, scope = waiting.pop()
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str)):
            yield node, scope
        elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            inside = node if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else scope
            waiting += [(child, inside) for child in ast.iter_child_nodes(node)]


def values(module: ModuleType, source: str) -> Iterator[str]:
    """The statements that a module's source and values tell without a call of its functions."""
    for value in vars(module).values():
        yield from (text.strip() for text in _texts(value) if is_whole(text))
    for node, scope in _strings(ast.parse(source)):
        text = _value(node, _names(module, scope))
        if isinstance(text, str) and is_whole(text):
            yield text.strip()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for each in value.values() for text in _texts(each))
    elif isinstance(value, tuple | list):
        yield from (text for each in value for text in _texts(each))
    elif isinstance(value, Leased):
        yield from (value._update(TAKEN), value._update(VOID))


def _names(module: ModuleType, scope: ast.AST) -> dict[str, Any]:
    """What names stand for in a function, as far as its source tells: what it is given, and what it works out, is not known."""
    known = dict(vars(module))
    if isinstance(scope, ast.Module):
        return known
    for node in ast.walk(scope):
        if isinstance(node, ast.arg):
            known.pop(node.arg, None)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            known.pop(node.id, None)
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = _value(node.value, known)
            if value is not None:
                known[node.targets[0].id] = value
    return known


def _value(node: ast.expr, names: dict[str, Any]) -> Any:
    """What an expression of texts comes to; None where it needs more than the names."""
    names_in = [part for part in ast.walk(node) if isinstance(part, ast.Name)]
    own = {part.id for part in names_in if isinstance(part.ctx, ast.Store)}  # of a comprehension
    calls = [part.func for part in ast.walk(node) if isinstance(part, ast.Call)]
    plain = all(isinstance(each, ast.Name) or isinstance(getattr(each, "value", None), ast.Constant) for each in calls)
    if (
        not isinstance(node, ast.JoinedStr | ast.Constant)
        or not plain
        or not {part.id for part in names_in} - own <= names.keys()
    ):
        return None
    try:
        return eval(compile(ast.Expression(node), "<text>", "eval"), dict(names))
    except (AttributeError, NameError, TypeError):  # a name that stands for something else where the text is made
        return None


def is_whole(text: str) -> bool:
    """Whether a text is a statement by itself: nothing is to be put in any more."""
    return STATEMENT.match(text) is not None and not re.search(r"\{\w*\}", text.replace("'{}'", ""))
