"""Text from elsewhere on a terminal or in a log: nothing in it may move a cursor, turn a line around or begin a new one.

Owns which characters are escaped. It must not know where the text is shown.
"""

from __future__ import annotations


def one_line(text: str, keep: str = "") -> str:
    r"""The text with everything that shows nothing by itself written as an escape: `\n`, `\x1b`, `\u202e`.

    That is what `str.isprintable` says no to: control and format characters (bidi, zero width, tags), line and paragraph
    separators, half surrogates, private and unassigned characters, and blanks that look like a space.

    Args:
        text: Any text.
        keep: Characters that stay as they are all the same.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else _escape(char) for char in text)


def shown_json(text: str) -> str:
    """JSON that says the same without such characters; the line feeds of its layout stay."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else _json_escape(char) for char in text)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()


def _json_escape(char: str) -> str:
    # Characters beyond the first 65,536 are two units in JSON.
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
