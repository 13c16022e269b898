"""What `remora doctor` says, check by check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Mark(StrEnum):
    """How a check went."""

    FINE = "✓"
    UNUSED = "–"  # not set up, and nobody misses it
    HINT = "!"  # works, but is probably not what is wanted
    WRONG = "✗"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    mark: Mark
    about: str
    says: str
