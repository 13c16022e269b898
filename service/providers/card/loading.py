"""From a YAML file to a card, or to a list of everything that is wrong with it, each with its line.

Owns YAML and the places of things in it. It must not know which cards exist nor where they lie.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

import yaml
from pydantic import ValidationError

from service.errors import CardInvalid
from service.providers.card.card import Card

_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C takes a tenth of the time
MAX_CHARS: Final = 1_000_000  # a card is written by hand


def load_card(
    text: str, name: str, dialects: Collection[str] = (), adapters: Collection[str] = (), *, shipped: bool = False
) -> Card:
    """The card in a YAML text.

    Args:
        text: The file's content.
        name: What messages call the file.
        dialects: What a card may name as its adapter to speak in its place.
        adapters: What it may name to do what it cannot say.
        shipped: The card is one of ours, whose schemas need no check at every start.

    Raises:
        CardInvalid: With a line `FILE:LINE: path.to.field: reason` for everything that is wrong.
    """
    root, document = _compose(text, name)
    try:
        known = (*dialects, *adapters)
        adapted = isinstance(document, dict) and document.get("adapter") in adapters
        return Card.model_validate(document, context={"adapters": known, "adapted": adapted, "shipped": shipped})
    except ValidationError as error:
        lines = sorted(_placed(entry, root) for entry in error.errors(include_url=False, include_context=False))
        raise CardInvalid("\n".join(f"{name}:{line}: {path}: {reason}" for line, path, reason in lines)) from error


def locate(text: str, location: Sequence[str | int]) -> tuple[int, str]:
    """The line of a thing in a card's text, and its path as messages name it.

    Args:
        text: A text that `load_card` took.
        location: The way to the thing, as `("operations", "generate", "input")`.
    """
    line, path = _find(_compose(text, "card")[0], location)
    return line, ".".join(path) or "card"


def _compose(text: str, name: str) -> tuple[yaml.Node, Any]:
    if len(text) > MAX_CHARS:
        raise CardInvalid(f"{name}:1: card: longer than {MAX_CHARS} characters")
    loader: Any = None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            raise CardInvalid(f"{name}:1: card: the file is no mapping; start with card: 1")
        problems = list(_repeated(root, [], set()))  # before constructing, which writes merged keys into the nodes
        if problems:
            raise CardInvalid("\n".join(f"{name}:{line}: {path}: {reason}" for line, path, reason in problems))
        return root, loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise CardInvalid(f"{name}:{line}: card: {error.problem or error.context or 'is no YAML'}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2026-13-45
        first_line = str(error).partition("\n")[0]
        raise CardInvalid(f"{name}:1: card: cannot be read as YAML: {first_line}") from error
    finally:
        if loader is not None:  # it already reads when it is made, and may fail there
            loader.dispose()


def _repeated(node: yaml.Node, path: list[str], visited: set[int]) -> Iterator[tuple[int, str, str]]:
    """Keys that a mapping has twice, of which YAML would silently take the last."""
    if id(node) in visited:  # an alias: its anchor was looked at already
        return
    visited.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, entry in enumerate(node.value):
            yield from _repeated(entry, [*path, str(index)], visited)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            here = [*path, str(key.value)]
            if str(key.value) in seen:
                yield key.start_mark.line + 1, ".".join(here), "is there twice"
            seen.add(str(key.value))
            yield from _repeated(value, here, visited)


def _placed(entry: Any, root: yaml.Node) -> tuple[int, str, str]:
    """Line, path and reason of one error of the model."""
    location: Sequence[str | int] = entry["loc"]
    line, path = _find(root, location)
    if entry["type"] == "missing":
        reason = "is missing"
    elif entry["type"] == "extra_forbidden":
        reason = "there is no such field in a card"
    else:
        reason = str(entry["msg"]).removeprefix("Value error, ")
    return line, ".".join(path) or "card", reason


def _find(root: yaml.Node, location: Sequence[str | int]) -> tuple[int, list[str]]:
    """The line of the innermost thing on the way that is in the file, and the way without the model's own steps."""
    node, line, path = root, root.start_mark.line + 1, []
    for index, step in enumerate(location):
        found = _step(node, step)
        if found is not None:
            line, node = found
            path.append(str(step))
        elif index == len(location) - 1 and isinstance(node, yaml.MappingNode):
            path.append(str(step))  # the field that is missing
    return line, path


def _step(node: yaml.Node, step: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark.line + 1, node.value[step]
    if isinstance(node, yaml.MappingNode):
        for key, value in reversed(node.value):  # merged keys stand before the mapping's own
            if str(key.value) == str(step):
                return key.start_mark.line + 1, value
    return None
