"""An operator's list of what no prompt may hold: a word, a phrase or a `/regular expression/` a line, `#` for remarks.

Texts and words are compared without case, in Unicode's compatibility form, and without characters that nobody sees. A word
stands for itself between the boundaries of words; Chinese, Japanese, Korean, Thai, Lao, Khmer and Burmese write without
spaces, so there it is found anywhere. Expressions run on RE2, in time linear in the text whatever they say.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import re2

MAX_BYTES: Final = 2 * 1024 * 1024  # of a list
MAX_LINE: Final = 500  # characters
MAX_TOKENS: Final = 50  # of a phrase: bounds how far is looked from each place of a text
MAX_EXPRESSIONS: Final = 1_000
MAX_TOLD: Final = 20  # lines that are told of one text
_EXPRESSION_BYTES: Final = 1 << 20  # of memory for one

_UNSPACED: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U0002ffff"
)
#: A token is a character of a script without spaces, a run of letters and digits of any other, or a sign.
_TOKEN: Final = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+|[^\w\s]|_")

#: Control characters that are no white space: they would cut words into pieces.
_UNSEEN: Final = dict.fromkeys(code for code in (*range(32), *range(127, 160)) if not chr(code).isspace())
_NOWHERE: Final[dict[str, Any]] = {}
_END: Final = ""  # in the tree of phrases: here one ends, with its line; no token is empty


def folded(text: str) -> str:
    """The text as it is compared."""
    text = text.translate(_UNSEEN)
    if text.isascii():
        return text.lower()
    seen = "".join(char for char in unicodedata.normalize("NFKC", text) if unicodedata.category(char) != "Cf")
    return unicodedata.normalize("NFKC", seen.casefold())


@dataclass(slots=True)
class WordList:
    """What is looked for; `problems` names the lines that are wrong, with their numbers."""

    phrases: dict[str, Any] = field(default_factory=dict)  # a tree of tokens
    expressions: list[tuple[Any, int]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @classmethod
    def parse(cls, text: str) -> WordList:
        """Read a list."""
        made = cls()
        for number, line in enumerate(text.splitlines(), 1):
            entry = line.strip()
            if entry and not entry.startswith("#"):
                problem = made._add(entry, number)
                if problem:
                    made.problems.append(f"line {number}: {problem}")
        return made

    def _add(self, entry: str, number: int) -> str | None:
        if len(entry) > MAX_LINE:
            return f"has more than {MAX_LINE} characters"
        if len(entry) > 1 and entry.startswith("/") and entry.endswith("/"):
            return self._add_expression(entry[1:-1], number)
        tokens = tuple(_TOKEN.findall(folded(entry)))
        if not tokens:
            return "holds nothing that can be seen"
        if len(tokens) > MAX_TOKENS:
            return f"has more than {MAX_TOKENS} words and signs"
        node = self.phrases
        for token in tokens:
            node = node.setdefault(token, {})
        node.setdefault(_END, number)
        return None

    def _add_expression(self, source: str, number: int) -> str | None:
        if len(self.expressions) >= MAX_EXPRESSIONS:
            return f"is one expression too many; {MAX_EXPRESSIONS} are allowed"
        options = re2.Options()
        options.case_sensitive = False
        options.log_errors = False
        options.max_mem = _EXPRESSION_BYTES
        try:
            made = re2.compile(source, options)
        except re2.error as error:
            [reason] = error.args or ("is no expression",)
            return f"is no expression that RE2 knows: {reason.decode() if isinstance(reason, bytes) else reason}"
        if made.search("") is not None:
            return "matches every text, also an empty one"
        self.expressions.append((made, number))
        return None

    def found_in(self, texts: Sequence[str]) -> tuple[int, ...]:
        """The numbers of the lines that one of the texts holds, ascending."""
        lines = {number for text in texts for number in self._lines(folded(text))}
        return tuple(sorted(lines)[:MAX_TOLD])

    def _lines(self, text: str) -> Iterator[int]:
        if self.phrases:
            tokens = _TOKEN.findall(text)
            for at in range(len(tokens)):
                yield from self._phrases_at(tokens, at)
        if self.expressions:
            raw = text.encode(errors="replace")
            for expression, number in self.expressions:
                if expression.search(raw) is not None:
                    yield number

    def _phrases_at(self, tokens: Sequence[str], at: int) -> Iterator[int]:
        node = self.phrases
        while at < len(tokens) and (node := node.get(tokens[at], _NOWHERE)):
            at += 1
            if _END in node:
                yield node[_END]
