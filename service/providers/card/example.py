"""The examples inside a card: what a document shows, and what must be made of it.

Owns their form. It must not know how they are tried (rehearsal).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from service.providers.card.forms import Code, HeaderName, Instant, Name, Part, Usd


class Sent(Part):
    """A request that must leave, exactly; what is not written is not looked at. `{secret}` stands for the key."""

    method: str | None = None
    url: str | None = None
    headers: dict[HeaderName, str] = Field(default_factory=dict)
    body: Any = None


class Said(Part):
    """An answer of the provider: JSON in `body` or any text in `text`; or none, `not_sent` or `cut`."""

    status: int = Field(default=200, ge=100, le=599)
    headers: dict[HeaderName, str] = Field(default_factory=dict)
    body: Any = None
    text: str | None = None
    lost: Literal["not_sent", "cut"] | None = None


class Exchange(Part):
    """One request and its answer."""

    request: Sent = Sent()
    answer: Said = Said()


class ExpectedCost(Part):
    """What a task costs."""

    usd: Usd
    basis: Literal["provider", "price_list", "estimate", "assumed", "unknown"] | None = None
    raw: str | None = None


class Expected(Part):
    """What must be made of an answer; what is not written is not looked at, `null` means none."""

    state: Literal["queued", "running", "completed", "failed", "cancelled"] | None = None
    task_id: str | None = None
    provider_status: str | None = None
    known: bool = True
    urls: list[str] = Field(default_factory=list)
    error: Code | None = None
    message: str | None = None
    cost: ExpectedCost | None = None
    created_at: Instant | None = None
    finished_at: Instant | None = None
    poll_url: str | None = None
    cancel_url: str | None = None
    retry_after: float | None = None


class ExpectedSubmit(Expected):
    """What must be made of the answer to a submission."""

    verdict: Literal["accepted", "refused", "rejected", "not_sent", "unknown"] | None = None


class ExpectedPoll(Expected):
    """What must be made of the answer to a poll."""

    verdict: Literal["observed", "not_found", "retry", "denied"] | None = None


class ExpectedCancel(Expected):
    """What must be made of the answer to a cancel."""

    verdict: Literal["cancelled", "too_late", "not_found", "retry", "denied"] | None = None


class SubmitStep(Exchange):
    """Handing the example's input in."""

    callback_url: str | None = None
    expect: ExpectedSubmit = ExpectedSubmit()


class PollStep(Exchange):
    """Asking for a task; `more` is for results that a second request fetches."""

    task_id: str = "task"
    poll_url: str | None = None
    more: list[Exchange] = Field(default_factory=list)
    expect: ExpectedPoll = ExpectedPoll()


class CancelStep(Exchange):
    """Cancelling a task."""

    task_id: str = "task"
    cancel_url: str | None = None
    expect: ExpectedCancel = ExpectedCancel()


class CallbackStep(Part):
    """A callback of the provider."""

    headers: dict[HeaderName, str] = Field(default_factory=dict)
    body: Any = None
    text: str | None = None
    expect: Expected = Expected()


class Example(Part):
    """One example: an input with what is wrong with it or what it costs, and any of the four steps.

    Args:
        source: The document and section that shows it.
        invalid: The pointers of the fields at fault, such as `/input/n`; then nothing is handed in.
    """

    name: str = Field(min_length=1)
    source: str = ""
    operation: Name
    input: dict[str, Any] = Field(default_factory=dict)
    invalid: list[str] = Field(default_factory=list)
    estimate: Usd | None = None
    submit: SubmitStep | None = None
    poll: PollStep | None = None
    cancel: CancelStep | None = None
    callback: CallbackStep | None = None

    @model_validator(mode="after")
    def _shows_something(self) -> Self:
        if self.invalid and self.submit is not None:
            raise ValueError("an input that is invalid is not submitted: leave out submit")
        if not self.model_fields_set & {"input", "submit", "poll", "cancel", "callback"}:
            raise ValueError("write input, submit, poll, cancel or callback: else there is nothing to try")
        return self


def plain(value: Any) -> Any:
    """A value as JSON would carry it: YAML reads an unquoted date as a date."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [plain(entry) for entry in value]
    return value.isoformat() if isinstance(value, datetime) else value
