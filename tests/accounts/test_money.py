"""Amounts: exact both ways, and nothing but a plain decimal string is one."""

from __future__ import annotations

import pytest

from service.money import parse_usd, usd


@pytest.mark.parametrize(
    ("text", "micro"),
    [
        ("5", 5_000_000),
        ("5.00", 5_000_000),
        ("0.000001", 1),
        ("0.1", 100_000),
        ("-0.01", -10_000),
        ("-0", 0),
        ("0000000007.5", 7_500_000),
        ("9999.999999", 9_999_999_999),
        ("1000000000", 10**15),
    ],
)
def test_amount_is_read_exactly(text: str, micro: int) -> None:
    """To the last of six places."""
    assert parse_usd(text) == micro


@pytest.mark.parametrize(
    "given",
    [
        *("", " ", "5 ", "+5", "5.", ".5", "5,00", "$5", "5 USD", "1e3", "NaN", "Infinity", "-", "--5", "0x10", "١"),
        *("0.0000001", "1000000000.000001", "9" * 11, "9" * 10_000, "5\n", "1_000"),
        *(5, 5.0, True, None, ["5"], {"amount": "5"}, float("nan"), 10**400),
    ],
)
def test_anything_else_is_no_amount(given: object) -> None:
    """No number, no exponent, no seventh place, nothing beyond a billion."""
    assert parse_usd(given) is None


@pytest.mark.parametrize(
    ("micro", "text"),
    [
        (0, "0.000000"),
        (1, "0.000001"),
        (-1, "-0.000001"),
        (-10_000_001, "-10.000001"),
        (10**18, "1000000000000.000000"),
    ],
)
def test_amount_is_shown_with_six_places(micro: int, text: str) -> None:
    """Also below zero."""
    assert usd(micro) == text
    assert usd(None) is None
