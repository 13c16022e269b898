"""Lines for a terminal: words stay whole."""

from __future__ import annotations

import pytest

from service.cli.printing import folded

TEXT = (
    "– apimodels: not configured, REMORA_PROVIDERS__APIMODELS__API_KEY is not set: put your key at apimodels.app there"
)


@pytest.mark.parametrize("width", [60, 80, 100])
def test_lines_fit_and_keep_their_words(width: int) -> None:
    """No line is wider than the terminal, no word is broken, and what goes on stands under what began."""
    lines = folded("  providers      ", TEXT, width)

    assert max(map(len, lines)) <= width
    assert " ".join(line[17:] for line in lines) == TEXT
    assert lines[0].startswith("  providers      – apimodels")
    assert all(line.startswith(" " * 17) for line in lines[1:])


def test_word_that_is_wider_than_the_terminal_stays_whole() -> None:
    """A path can be copied."""
    path = "/srv/" + "directory/" * 12 + "remora.db"

    assert folded("  database  ", f"made in {path} just now", 80)[1].strip() == path


def test_pipe_gets_whole_lines() -> None:
    """What searches them should not have to put them together."""
    assert folded("  ", TEXT, None) == [f"  {TEXT}"]
