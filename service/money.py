"""Amounts of money: whole micro-USD inside, decimal strings with six places outside. No floating point on the way.

It must not know what is paid for.
"""

from __future__ import annotations

import re
from typing import Final

MICRO: Final = 1_000_000  # micro-USD in a dollar
PLACES: Final = 6  # behind the decimal point
MAX_USD: Final = 1_000_000_000  # of one amount that somebody names
_AMOUNT: Final = re.compile(r"(-?)([0-9]{1,10})(?:\.([0-9]{1,6}))?", re.ASCII)


def usd(micro: int | None) -> str | None:
    """Money as it leaves: a decimal string with six places; None for what is unknown."""
    return None if micro is None else shown(micro)


def shown(micro: int) -> str:
    """As `usd`, of an amount that is known."""
    sign = "-" if micro < 0 else ""
    return f"{sign}{abs(micro) // MICRO}.{abs(micro) % MICRO:06d}"


def parse_usd(given: object) -> int | None:
    """An amount that a caller names, in micro-USD.

    Args:
        given: A decimal string such as `5`, `5.00` or `-0.01`.

    Returns:
        None for anything else: a number, an exponent, more than six places, more than `MAX_USD`.
    """
    found = _AMOUNT.fullmatch(given) if isinstance(given, str) else None
    if found is None:
        return None
    sign, whole, fraction = found.groups()
    micro = int(whole) * MICRO + int((fraction or "").ljust(PLACES, "0"))
    if micro > MAX_USD * MICRO:
        return None
    return -micro if sign else micro
