"""The operator's list: what it finds however it is spelt, what it leaves alone, and what it says of wrong lines."""

from __future__ import annotations

import time
import unicodedata

import pytest

from service.moderation.wordlist import WordList

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


@pytest.mark.parametrize(
    "code",
    [
        *(
            0xFE0F,
            0x034F,
            0x3164,
            0x115F,
            0x1160,
            0xFFA0,
            0x17B4,
            0x180B,
            0x180E,
            0xE0100,
            0x2065,
            0x1D173,
            0xFFF0,
            0xE0FFF,
        ),
        *(
            0x0332,
            0x0301,
            0x0489,
            0x05B8,
            0x064B,
            0x20DD,
            0xFE20,
            0x3099,
            0x0E47,
            0x093F,
            0x1AB0,
        ),  # marks, strange to it
    ],
)
def test_characters_that_nobody_sees_hide_no_word(code: int) -> None:
    """Nor do combining marks, in a word of Latin letters or in a Chinese one."""
    words = WordList.parse("bomb\n裸体\n/\\bki+ll\\b/")

    assert words.found_in([f"a bo{chr(code)}mb{chr(code)}", f"裸{chr(code)}体", f"k{chr(code)}ill"]) == (1, 2, 3)


@pytest.mark.parametrize(
    "word", ["naïve", "Ångström", "İstanbul", "ガス", "หมู", "한글", "हिन्दी", "чёрный", "קָמָץ", "ﬁre", "é"]
)
def test_words_with_marks_match_themselves(word: str) -> None:
    """However their letters are composed, in either case."""
    words = WordList.parse(word)
    forms = [word, word.upper(), *(unicodedata.normalize(form, word) for form in ("NFC", "NFD", "NFKC", "NFKD"))]

    assert [words.found_in([f"a {form} b"]) for form in forms] == [(1,)] * len(forms)


def test_marks_that_make_another_letter_stay() -> None:
    """カラス is a crow, ガラス is glass."""
    assert WordList.parse("ガラス").found_in(["カラス"]) == ()


def test_expressions_see_the_text_as_it_came_and_as_it_is_compared() -> None:
    """Else one of letters that folding changes by escapes would never match, and one of plain letters be fooled."""
    words = WordList.parse("/gr\\x{fc}n/\n/cafe [a-z]+/\n/кот[а-я]*/")

    assert words.found_in(["grün", "Ｃａｆé noir", "КОТИК"]) == (1, 2, 3)


@pytest.mark.parametrize(
    "line", ["/\\bкот\\b/", "/(кот|пёс)\\b/", "/\\w+кот/", "/é/", "/ﬁre/", "/straße/", "/bomb/i", "/a.b/gi"]
)
def test_expressions_that_would_never_match_are_told(line: str) -> None:
    """With the line; flags would make a phrase of it."""
    [problem] = WordList.parse("fine\n" + line).problems

    assert problem.startswith("line 2: h")


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
