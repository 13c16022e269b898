"""What an error answer means, and which of our error codes a failed task gets: the card's rules, then what HTTP says.

Pure. It must not know how answers travel nor what becomes of a job.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from service.providers.card.card import ErrorRule, Errors, FailureRule
from service.providers.card.observe import Failure
from service.providers.documents.paths import compiled
from service.providers.documents.text import Scrubber, word
from service.states import ErrorCode

Submitted = Literal["retryable", "final", "unknown"]
Polled = Literal["retry", "not_found", "denied", "failed"]

_BY_STATUS: Final = {
    401: ErrorCode.PROVIDER_AUTH,
    402: ErrorCode.PROVIDER_FUNDS,
    403: ErrorCode.PROVIDER_AUTH,
    429: ErrorCode.RATE_LIMITED,
}


@dataclass(frozen=True, slots=True)
class Words:
    """What a document says of an error, in the provider's words."""

    message: str | None = None
    type: str | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an error answer means for a submit and for a poll."""

    error: ErrorCode
    submit: Submitted
    poll: Polled
    words: Words


class WordsReader:
    """Finds the words of an error in a document."""

    def __init__(self, places: Failure | Errors, scrubber: Scrubber) -> None:
        self._scrubber = scrubber
        self._message = compiled(places.message)
        self._type = compiled(places.type)
        self._code = compiled(places.code)

    def read(self, document: object) -> Words:
        """The words, each None where the document has none."""
        return Words(
            self._scrubber.line(self._message.read(document)) if self._message else None,
            word(self._type.read(document)) if self._type else None,
            word(self._code.read(document)) if self._code else None,
        )


class ErrorReader:
    """A card's `errors`, put to use."""

    def __init__(self, errors: Errors, scrubber: Scrubber) -> None:
        self._status = compiled(errors.status)
        self._words = WordsReader(errors, scrubber)
        self._rules = [(rule, re.compile(rule.message) if rule.message else None) for rule in errors.rules]
        self._failures = [(rule, re.compile(rule.message) if rule.message else None) for rule in errors.failures]

    def status(self, http_status: int, document: object) -> int:
        """The status that counts: the body's own where HTTP says 2xx and the body carries another one."""
        if self._status is None or not 200 <= http_status < 300:
            return http_status
        said = word(self._status.read(document))
        if said is None or re.fullmatch(r"[245][0-9]{2}", said) is None:
            return http_status
        return int(said)

    def words(self, document: object) -> Words:
        """What an error's body says."""
        return self._words.read(document)

    def meaning(self, status: int, document: object) -> Meaning:
        """What an answer with this status means: the first rule of the card that fits, else what HTTP says."""
        words = self._words.read(document)
        for rule, pattern in self._rules:
            if _status_fits(rule, status) and _fits(rule, pattern, words):
                submit = rule.submit or _submit_default(status)
                return Meaning(rule.error, submit, rule.poll or _poll_default(status), words)
        return Meaning(_error_default(status), _submit_default(status), _poll_default(status), words)

    def failure(self, words: Words) -> ErrorCode:
        """The error code of a task that the provider calls failed."""
        for rule, pattern in self._failures:
            if _fits(rule, pattern, words):
                return rule.error
        return ErrorCode.PROVIDER_FAILED


def status_fits(wanted: list[str], status: int) -> bool:
    """Whether a status is one of these, where `5xx` stands for all that begin with 5."""
    text = str(status)
    return text in wanted or f"{text[0]}xx" in wanted


def _status_fits(rule: ErrorRule, status: int) -> bool:
    return rule.status is None or status_fits(rule.status, status)


def _fits(rule: ErrorRule | FailureRule, pattern: re.Pattern[str] | None, words: Words) -> bool:
    return (
        (rule.code is None or words.code in rule.code)
        and (rule.type is None or words.type in rule.type)
        and (pattern is None or (words.message is not None and pattern.search(words.message) is not None))
    )


def _error_default(status: int) -> ErrorCode:
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return ErrorCode.PROVIDER_UNAVAILABLE if status >= 500 or status == 408 else ErrorCode.PROVIDER_REJECTED


def _submit_default(status: int) -> Submitted:
    """429 is refused for the moment; 408, every 5xx and a 2xx that says no task may have been taken all the same."""
    if status == 429:
        return "retryable"
    return "final" if 300 <= status < 500 and status != 408 else "unknown"


def _poll_default(status: int) -> Polled:
    if status == 404:
        return "not_found"
    return "denied" if status in {401, 402, 403} else "retry"
