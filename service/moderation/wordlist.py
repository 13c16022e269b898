"""An operator's list of what no prompt may hold: a word, a phrase or a `/regular expression/` a line, `#` for remarks.

Texts and words are compared without case, in Unicode's compatibility form, without accents and without characters that nobody
sees. A word stands for itself between the boundaries of words; Chinese, Japanese, Korean, Thai, Lao, Khmer and Burmese write
without spaces, so there it is found anywhere. Expressions run on RE2, in time linear in the text whatever they say; they are
tried on the text as it came and as it is compared.
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
MAX_EXPRESSIONS: Final = 1_000  # in a word list
MAX_TOLD: Final = 20  # lines that are told of one text
_EXPRESSION_BYTES: Final = 1 << 20  # of memory for one

_UNSPACED: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U0002ffff"
)
#: A token is a character of a script without spaces, a run of letters and digits of any other, or a sign.
_TOKEN: Final = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+|[^\w\s]|_")

#: Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties.txt of Unicode 15): nothing is drawn for them.
_IGNORABLE: Final = (
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x061C, 0x061C),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFF8),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
)
#: These and control characters that are no white space would cut words into pieces.
_UNSEEN: Final = dict.fromkeys(
    [code for code in (*range(32), *range(127, 160)) if not chr(code).isspace()]
    + [code for first, last in _IGNORABLE for code in range(first, last + 1)]
)
#: Marks below are accents and vowel points, which words are written with or without; those above may be letters' own.
_OWN_MARKS_FROM: Final = 0x0700
#: Combining marks for any script: never a letter's own.
_COMMON_MARKS: Final = re.compile("[\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]")
#: An expression as other languages write it: it would be taken for a phrase.
_FLAGS: Final = re.compile(r"/.+/[dgimsuvxyADJSUX]{1,8}")
#: RE2 knows no letters beyond ASCII in these, brackets and repetitions in between or not.
_ASCII_CLASS: Final = re.compile(
    r"(?<!\\)(?:\\\\)*\\[bBwW][+*?]*[(\[]*(?:\?:)?[^\x00-\x7f]|[^\x00-\x7f][)\]+*?]*\\[bBwW]"
)
_NOWHERE: Final[dict[str, Any]] = {}
_END: Final = ""  # in the tree of phrases: here one ends, with its line; no token is empty


def folded(text: str) -> str:
    """The text as it is compared."""
    text = text.translate(_UNSEEN)
    if text.isascii():
        return text.lower()
    seen = "".join(_seen(unicodedata.normalize("NFKD", text).translate(_UNSEEN)))
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", seen).casefold())


def _seen(text: str) -> Iterator[str]:
    """The characters of a decomposed text but accents and what is not drawn.

    A mark stays beside a letter of its own block only: it makes か to が, but in a Latin word it only hides the word.
    """
    letter = 0
    for char in text:
        if char.isascii():
            letter = 0
            yield char
            continue
        code, category = ord(char), unicodedata.category(char)
        if category in {"Cf", "Cs"}:
            continue
        if category[0] != "M":
            letter = code
            yield char
        elif code >= _OWN_MARKS_FROM and code >> 8 == letter >> 8 and _COMMON_MARKS.match(char) is None:
            yield char


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
        if _FLAGS.fullmatch(entry):
            return "has flags after its last slash; case never matters, write others as /(?s).../"
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
        if _ASCII_CLASS.search(source):
            return (
                r"has \b or \w beside a letter that is not ASCII, which RE2 does not know there; write a word, or \pL"
            )
        if not source.isascii() and folded(source) != source.lower():
            return (
                "holds accents, ligatures or other letters that texts are compared without; write them as plain letters"
            )
        self.expressions.append((made, number))
        return None

    def found_in(self, texts: Sequence[str]) -> tuple[int, ...]:
        """The numbers of the lines that one of the texts holds, ascending."""
        lines = {number for text in texts for number in self._lines(text)}
        return tuple(sorted(lines)[:MAX_TOLD])

    @property
    def is_empty(self) -> bool:
        """Whether nothing is looked for."""
        return not self.phrases and not self.expressions

    def _lines(self, text: str) -> Iterator[int]:
        compared = folded(text)
        if self.phrases:
            tokens = _TOKEN.findall(compared)
            for at in range(len(tokens)):
                yield from self._phrases_at(tokens, at)
        if self.expressions:
            # Expressions know no case, so that the two differ for them only where more than case does.
            tried = {text, compared} if text.lower() != compared else {text}
            raws = [each.encode(errors="replace") for each in tried]
            for expression, number in self.expressions:
                if any(expression.search(raw) is not None for raw in raws):
                    yield number

    def _phrases_at(self, tokens: Sequence[str], at: int) -> Iterator[int]:
        node = self.phrases
        while at < len(tokens) and (node := node.get(tokens[at], _NOWHERE)):
            at += 1
            if _END in node:
                yield node[_END]
