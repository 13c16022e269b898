"""Where settings are read from beside the environment: the texts of `.env` and of `remora.toml`, as names and values.

It must not know which settings there are.
"""

from __future__ import annotations

import io
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

from dotenv.parser import parse_stream

Pairs = Iterator[tuple[str, str]]  # names and texts


def read(path: Path, parse: Callable[[str], Pairs], problems: list[str]) -> Pairs:
    """What a file gives; nothing where there is none. A file that cannot be read is a problem."""
    try:
        yield from parse(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        reason = error.strerror if isinstance(error, OSError) else str(error)
        problems.append(f"{path.name}: cannot be read ({reason})")


def dotenv(text: str) -> Pairs:
    """The lines of a `.env`."""
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            raise ValueError(f"line {binding.original.line} is not NAME=value")
        if binding.key is not None:
            yield binding.key, binding.value or ""


def toml(text: str, *, deep: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """The entries of a TOML document, each under its key; below `deep` under three: `deep`, table, key."""
    for key, value in tomllib.loads(text).items():
        if key == deep and isinstance(value, dict):
            for table, rows in value.items():
                for name, entry in rows.items() if isinstance(rows, dict) else [("", rows)]:
                    yield (key, table, name), _text(entry)
        else:
            yield (key,), _text(value)


def _text(value: object) -> str:
    if isinstance(value, dict):
        value = [f"{key}={entry}" for key, entry in value.items()]
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
