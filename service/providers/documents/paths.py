"""Looking into documents of a provider: the JMESPath expressions of cards.

Nothing here raises for anything that a document holds: what is not there is None. It must not know what is looked for, nor
how a body becomes a document (reading).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions, signature

from service.providers.documents.reading import read_text


class _CardFunctions(Functions):
    @signature({"types": []})
    def _func_json(self, value: Any) -> object:
        """Open JSON that came inside a string; anything else stays what it is."""
        return read_text(value) if isinstance(value, str) else value


_OPTIONS: Final = jmespath.Options(custom_functions=_CardFunctions())


#: `data.taskId`: names and dots only, which most paths of most cards are.
_NAMES: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


class Expression:
    """A compiled JMESPath expression, with the function `json` for JSON inside strings."""

    __slots__ = ("_names", "_parsed")

    def __init__(self, text: str) -> None:
        self._parsed = jmespath.compile(text)
        # Walking names by hand gives what JMESPath gives, in a tenth of the time; every callback pays for several paths.
        self._names = text.split(".") if _NAMES.fullmatch(text) else None

    def read(self, document: object) -> Any:
        """What the expression finds; None when there is nothing or the document is of another shape."""
        if self._names is not None:
            for name in self._names:
                document = document.get(name) if isinstance(document, dict) else None
            return document
        try:
            return self._parsed.search(document, options=_OPTIONS)
        # A function or a comparison met another type than it takes: JMESPath has no error of its own for most of them.
        except (JMESPathError, TypeError, ValueError, ArithmeticError, RecursionError):
            return None


def compiled(text: str | None) -> Expression | None:
    """The expression, if there is one."""
    return None if text is None else Expression(text)


def check_expression(text: str) -> str:
    """Give the text back if it is an expression that can work.

    Raises:
        ValueError: It is no JMESPath, or calls a function that does not exist.
    """
    try:
        parsed = jmespath.compile(text)
    except JMESPathError as error:
        first_line = str(error).partition("\n")[0]
        raise ValueError(f"is no JMESPath expression: {first_line}") from error
    unknown = sorted(set(_called(parsed.parsed)) - set(_CardFunctions.FUNCTION_TABLE))
    if unknown:
        raise ValueError(f"calls {unknown[0]}(), which does not exist")
    return text


def _called(node: Any) -> Iterator[str]:
    """The names of all functions that a parsed expression calls."""
    if not isinstance(node, dict):
        return
    if node.get("type") == "function_expression":
        yield str(node["value"])
    for child in node.get("children", ()):
        yield from _called(child)
