"""The faults that the sandbox commits on request: their words, how they are written, which of them a task gets.

Owns the table of faults, what each needs to make sense, and the dice. It must not know how a fault is carried out; `flow`
and `callbacks` do that.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Final

_MARKER: Final = re.compile(r"\[fault:([^\]]*)\]")
_WRITTEN: Final = re.compile(r"(?P<word>[^:=]+)(?::(?P<argument>[^:=]*))?(?:=(?P<often>[^:=]*))?")


class Channel(StrEnum):
    """What there is between provider and client beside the submit; a fault of a channel needs it."""

    CALLBACK = "callback"
    POLL = "poll"
    CANCEL = "cancel"
    LINKS = "links"  # URLs to poll and to cancel at, in the submit's answer
    CODES = "codes"  # a status code in the body beside HTTP's


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One word of the table.

    Args:
        effect: What happens, for the help.
        default: The argument when none is written; empty where the word takes none.
        choices: The arguments to choose from; empty where the argument is a number (or there is none).
        unit: What the number counts, for the help.
        needs: The channel without which it makes no sense; None where a submit is enough.
    """

    effect: str
    default: str = ""
    choices: tuple[str, ...] = ()
    unit: str = ""
    needs: Channel | None = None


_CALLBACK, _POLL, _CANCEL = Channel.CALLBACK, Channel.POLL, Channel.CANCEL
_SUBMIT_OR_POLL: Final = ("submit", "poll")
_ANYWHERE: Final = ("submit", "poll", "cancel")

KINDS: Final[Mapping[str, FaultKind]] = {
    "lost-callback": FaultKind("the callback is never sent", needs=_CALLBACK),
    "double-callback": FaultKind("the callback is sent twice at the same time", needs=_CALLBACK),
    "late-callback": FaultKind("the callback is sent that long after the end", "5", unit="seconds", needs=_CALLBACK),
    "early-callback": FaultKind(
        "the task ends at once; its callback is sent and answered before the submit is answered", needs=_CALLBACK
    ),
    "forged-callback": FaultKind(
        "while the task is at work two false callbacks come: its id with a false file, and a foreign id",
        needs=_CALLBACK,
    ),
    "conflicting-callback": FaultKind(
        "completed, and then failed for the same task; polls keep saying completed", needs=_CALLBACK
    ),
    "garbled-callback": FaultKind(
        "the callback is cut JSON, bad UTF-8 or 1 MB long", "json", ("json", "utf8", "huge"), needs=_CALLBACK
    ),
    "refused-submit": FaultKind(
        "nothing is created; 429 comes with Retry-After",
        "429",
        ("429", "400", "401", "402", "403", "422", "moderation", "too-large"),
    ),
    "submit-500": FaultKind("nothing is created and the answer is a 500"),
    "bad-gateway": FaultKind(
        "the submit creates nothing and is answered 502, or the task's first poll or cancel is", "submit", _ANYWHERE
    ),
    "gateway-timeout": FaultKind(
        "the task is created; its submit, or its first poll, is answered 504", "submit", _SUBMIT_OR_POLL
    ),
    "code-in-200": FaultKind(
        "the submit creates nothing and is answered HTTP 200 with this code in the body, or the first poll with 500",
        "400",
        ("400", "401", "402", "429", "500", "poll"),
        needs=Channel.CODES,
    ),
    "cut-submit": FaultKind("the task is created and the connection cut without an answer; its callback comes"),
    "cut-submit-lost": FaultKind("nothing is created and the connection is cut without an answer"),
    "slow-submit": FaultKind("the task is created, the answer comes that much later", "5", unit="seconds"),
    "failing-polls": FaultKind(
        "the task's first polls are answered 500 and 429 in turn", "3", unit="polls", needs=_POLL
    ),
    "not-found-lag": FaultKind("the task's first polls are answered 404", "3", unit="polls", needs=_POLL),
    "late-cancel": FaultKind("the task starts just before its cancel comes, which is answered 409", needs=_CANCEL),
    "ignored-cancel": FaultKind("the cancel is answered as done, and the task goes on to its end", needs=_CANCEL),
    "cut-cancel": FaultKind("the task is cancelled and the connection cut without an answer", needs=_CANCEL),
    "foreign-links": FaultKind("the URLs to poll and to cancel at lead to a foreign host", needs=Channel.LINKS),
    "completed-without-file": FaultKind("the task completes without a file's URL"),
    "failed": FaultKind("the task fails"),
    "moderated": FaultKind("the task fails because of its content, in the documented words"),
    "stuck": FaultKind("the task never ends"),
    "instant": FaultKind("the submit's answer says completed already, with the file's URL"),
    "unknown-state-word": FaultKind("until its end the task is in a state that no document names", needs=_POLL),
    "giant-answer": FaultKind(
        "the task is created; the answer to its submit, or to its first poll, has 5 MB", "submit", _SUBMIT_OR_POLL
    ),
    "html-error": FaultKind(
        "the task is created; its submit, or its first poll, is answered 502 in HTML", "submit", _SUBMIT_OR_POLL
    ),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One wish: `word[:argument][=probability or count]`.

    Args:
        word: A key of `KINDS`.
        argument: As written, or the word's default.
        probability: From 0 to 1, for each task.
        count: How many tasks get it before it is used up; None for no end.
    """

    word: str
    argument: str = ""
    probability: float = 1.0
    count: int | None = None

    def __str__(self) -> str:
        """As `parse_faults` reads it."""
        often = (
            f"={self.count}" if self.count is not None else "" if self.probability == 1 else f"={self.probability:f}"
        )
        return f"{self.word}:{self.argument}{often}" if self.argument else f"{self.word}{often}"


@dataclass(frozen=True, slots=True)
class Plan:
    """The faults that one task suffers, by word."""

    faults: Mapping[str, Fault]

    def has(self, word: str) -> bool:
        """Whether the task suffers it."""
        return word in self.faults

    def text(self, word: str) -> str | None:
        """The fault's argument; None where the task does not suffer it."""
        return self.faults[word].argument if word in self.faults else None

    def number(self, word: str) -> float:
        """The fault's argument as a number; 0 where the task does not suffer it."""
        return float(self.faults[word].argument) if word in self.faults else 0.0


class Deck:
    """Decides which of the whole server's faults the next task gets; a prompt's own are always granted."""

    def __init__(self, faults: tuple[Fault, ...], rng: Random) -> None:
        self._rng = rng
        self._dealt: list[int] = []
        self._faults: tuple[Fault, ...] = ()
        self.replace(faults)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What is in force for the whole server."""
        return self._faults

    def replace(self, faults: tuple[Fault, ...]) -> None:
        """Put these in force instead, with fresh counts."""
        self._faults = faults
        self._dealt = [0] * len(faults)

    def deal(self, channels: frozenset[Channel], wished: tuple[Fault, ...] = ()) -> Plan:
        """The next task's faults, of those that make sense for it.

        Args:
            channels: What its conversation has.
            wished: What its prompt asks for.

        Raises:
            ValueError: It wishes for what needs a channel that it has not.
        """
        for fault in wished:
            _check_sense(fault, channels)
        granted: dict[str, Fault] = {}
        for place, fault in enumerate(self._faults):
            if _lacks(fault, channels) or (fault.count is not None and self._dealt[place] >= fault.count):
                continue
            if fault.probability < 1 and self._rng.random() >= fault.probability:
                continue
            self._dealt[place] += 1
            granted[fault.word] = fault
        return Plan(granted | {fault.word: fault for fault in wished})


def parse_faults(text: str) -> tuple[Fault, ...]:
    """Faults written as `lost-callback,late-callback:3,double-callback=0.5,cut-submit=2`.

    Raises:
        ValueError: With the bad word and the known ones, or with what the argument should have been.
    """
    return tuple(_parse_fault(part.strip()) for part in text.split(",") if part.strip())


def marked_faults(prompt: str) -> tuple[Fault, ...]:
    """The faults that a prompt asks for with `[fault:…]`.

    Raises:
        ValueError: As `parse_faults`.
    """
    return tuple(fault for wish in _MARKER.findall(prompt) for fault in parse_faults(wish))


def _lacks(fault: Fault, channels: frozenset[Channel]) -> Channel | None:
    """The channel that the fault needs and that is not there."""
    argument = Channel.POLL if fault.argument == "poll" else Channel.CANCEL if fault.argument == "cancel" else None
    needed = (KINDS[fault.word].needs, argument)
    return next((channel for channel in needed if channel is not None and channel not in channels), None)


def _check_sense(fault: Fault, channels: frozenset[Channel]) -> None:
    lacking = _lacks(fault, channels)
    if lacking is not None:
        raise ValueError(f"fault {fault} makes no sense here: this operation has no {lacking.value}")


def _parse_fault(text: str) -> Fault:
    match = _WRITTEN.fullmatch(text)
    word = match["word"].strip() if match else text
    if match is None or word not in KINDS:
        close = difflib.get_close_matches(word, KINDS, n=1)
        meant = f" (did you mean {close[0]}?)" if close else ""
        raise ValueError(f"unknown fault {_shown(word)}{meant}; known are: {', '.join(KINDS)}")
    probability, count = _often(word, match["often"])
    return Fault(word, _argument(word, match["argument"]), probability, count)


def _argument(word: str, text: str | None) -> str:
    kind = KINDS[word]
    if text is None:
        return kind.default
    if not kind.default:
        raise ValueError(f"fault {word} takes no argument; write {word} alone")
    if kind.choices:
        if text not in kind.choices:
            raise ValueError(f"fault {word} takes one of {', '.join(kind.choices)}, not {_shown(text)}")
        return text
    number = _number(text)
    if number is None or not 0 <= number <= 86_400 or (kind.unit == "polls" and number % 1):
        raise ValueError(f"fault {word} takes a number of {kind.unit} such as {kind.default}, not {_shown(text)}")
    return text


def _often(word: str, text: str | None) -> tuple[float, int | None]:
    """A whole number counts tasks; one with a point is a probability."""
    if text is None:
        return 1.0, None
    number = _number(text)
    if number is not None and "." in text and 0 <= number <= 1:
        return number, None
    if number is not None and text.isdecimal() and 1 <= number <= 1_000_000:
        return 1.0, int(text)
    raise ValueError(f"fault {word}={_shown(text)}: write a probability such as 0.5, or how many tasks, such as 2")


def _number(text: str) -> float | None:
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?|\.[0-9]{1,9}", text) is None:
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


def describe() -> str:
    """The table for `--help`: one line a word, with its default argument."""
    lines = []
    for word, kind in KINDS.items():
        takes = (
            f" ({'|'.join(kind.choices)})" if kind.choices else f" ({kind.unit}, {kind.default})" if kind.unit else ""
        )
        where = f" (needs: {kind.needs.value})" if kind.needs else ""
        lines.append(f"{word}{takes}: {kind.effect}{where}")
    return "\n".join(lines)
