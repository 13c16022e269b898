"""Text for a terminal, where words stay whole: a terminal itself breaks a long line anywhere, also inside a path.

Owns how lines are folded. It must not know what they say. In a pipe every line stays one line, for those who search it.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import TextIO


def terminal_width(stream: TextIO | None = None) -> int | None:
    """The columns of the terminal on a stream, standard output unless told otherwise; None for a pipe or a file."""
    return shutil.get_terminal_size().columns if (stream or sys.stdout).isatty() else None


def folded(head: str, text: str, width: int | None) -> list[str]:
    """A line that begins with `head`; what does not fit goes on below, behind the same indent.

    Args:
        head: The beginning, as wide as the indent.
        text: Words; one that is longer than a line stands alone on its line.
        width: Columns; None: all on one line.
    """
    if width is None:
        return [head + text]
    return textwrap.wrap(
        text,
        width,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )
