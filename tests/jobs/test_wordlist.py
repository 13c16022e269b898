"""The operator's list: what it finds however it is spelt, what it leaves alone, and what it says of wrong lines."""

from __future__ import annotations

import time

import pytest

from service.jobs.wordlist import WordList

LIST = """\
# what nobody may ask for
naked
blood bath
c++
裸体
Straße
/\\bki+ll(er|ing)?\\b/
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("A Naked man", 2),
        ("NAKED!", 2),
        ("naked_girl", 2),
        ("ｎａｋｅｄ letters of full width", 2),
        ("na\u200bk\u00aded with characters that nobody sees", 2),
        ("na\x00ked", 2),
        ("画naked女", 2),
        ("a blood\n\tbath", 3),
        ("in C++ style", 4),
        ("美丽裸体画", 5),
        ("STRASSE", 6),
        ("a kiiiller", 7),
    ],
)
def test_words_are_found_however_they_are_spelt(text: str, line: int) -> None:
    """Without case, in compatibility form, between the boundaries of words or in scripts that have none."""
    assert WordList.parse(LIST).found_in([text]) == (line,)


@pytest.mark.parametrize("text", ["nakedness", "blood, then a bath", "bloodbath", "c", "裸の体", "skill", "", "\ud800"])
def test_other_words_are_left_alone(text: str) -> None:
    """A part of a word is another word."""
    assert WordList.parse(LIST).found_in([text]) == ()


def test_all_lines_that_fit_are_told() -> None:
    """Over all texts, once each."""
    assert WordList.parse(LIST).found_in(["naked", "a naked blood bath", "kill"]) == (2, 3, 7)


def test_wrong_lines_are_told_with_their_numbers() -> None:
    """What RE2 does not know, what fits everything, what is nothing, what is too long; the rest is read."""
    words = WordList.parse("fine\n/(a)\\1/\n/x*/\n\u200b\n" + "y" * 501 + "\n/(/\n" + "a " * 51)

    assert [problem.partition(":")[0] for problem in words.problems] == [f"line {n}" for n in (2, 3, 4, 5, 6, 7)]
    assert words.found_in(["fine"]) == (1,)


def test_nothing_takes_long() -> None:
    """Expressions that hang other engines, and phrases that begin alike, on the longest text that is judged."""
    words = WordList.parse("/(a+)+$/\n/(x|xx)+y/\n" + "a " * 49 + "b\n")
    started = time.monotonic()
    words.found_in(["a " * 50_000, "a" * 50_000 + "!", "x" * 50_000])

    assert time.monotonic() - started < 10
