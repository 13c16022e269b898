"""The card: everything Remora knows of one provider, as a strict model of a YAML file.

Owns the form of a card and what makes one wrong in itself. It must not know how files are found (loading), how a card is
put to use (mapping, client) nor what the operator's settings say (registry). The form is documented in docs/providers.md.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from service.providers.card.example import Example
from service.providers.card.forms import (
    PLACEHOLDER,
    BaseURL,
    Code,
    Duration,
    Expression,
    HeaderName,
    InputSchema,
    Name,
    Part,
    PathTemplate,
    Pattern,
    Rate,
    Statuses,
    Template,
    TrustedOrigin,
    Words,
)
from service.providers.card.observe import Observe
from service.providers.card.price import Price, PriceForm
from service.providers.card.verify import Verify


def _adapted(info: ValidationInfo) -> bool:
    """Whether an adapter may say what the card leaves out."""
    return bool((info.context or {}).get("adapted"))


class Auth(Part):
    """How our key travels: `value` with `{secret}` in it, as one header."""

    header: HeaderName = "Authorization"
    value: str = "Bearer {secret}"

    @model_validator(mode="after")
    def _has_the_secret(self) -> Self:
        if PLACEHOLDER.findall(self.value) != ["secret"]:
            raise ValueError('value needs {secret} where the key goes, as in "Bearer {secret}"')
        return self


class CallbackSlot(Part):
    """Where the provider wants the callback URL, and the body's field for the secret that it should sign with."""

    place: Literal["body", "query"] = Field(default="body", alias="in")
    field: str = Field(min_length=1)
    secret_field: str | None = Field(default=None, min_length=1)


class Callback(Part):
    """The provider calls back.

    Args:
        observe: As in poll unless given.
        verify: How callbacks are signed; `trust` believes what is neither signed nor fetched.
        refetch_when: A callback of which this holds is only a hint, signed or not.
    """

    slot: CallbackSlot
    observe: Observe | None = None
    verify: Verify = "fetch"
    refetch_when: Expression | None = None
    fallback_after: Duration = timedelta(seconds=60)

    def check_without_poll(self) -> None:
        """Refuse what only works where the provider can be asked.

        Raises:
            ValueError: Something here makes a hint of a callback, and there is nobody to ask.
        """
        if self.refetch_when is not None:
            raise ValueError("callback.refetch_when needs poll: there is nobody to ask")
        if not isinstance(self.verify, str) and self.verify.scheme == "ed25519":
            raise ValueError(
                "callback.verify ed25519 needs poll: its keys may be out of reach, and then somebody is asked"
            )


class Accept(Part):
    """Which answers mean that the provider took the task."""

    http: Statuses = Field(default_factory=lambda: ["2xx"])
    where: Expression | None = None


class Submit(Part):
    """The request that hands a task in; its body is the input, with `extra` over it."""

    method: Literal["POST", "PUT"] = "POST"
    path: PathTemplate
    query: dict[str, Template] = Field(default_factory=dict)
    headers: dict[HeaderName, str] = Field(default_factory=dict)
    extra: dict[str, Any] = Field(default_factory=dict)
    accept: Accept = Accept()
    observe: Observe | None = None
    timeout: Duration = timedelta(seconds=60)


class Result(Part):
    """The second request of a poll, made where a state is `fetch_result`: for a result that is not in the first answer.

    It is asked at `poll.observe.result_url` of the first answer, else at `path`.
    """

    method: Literal["GET", "POST"] = "GET"
    path: PathTemplate | None = None
    query: dict[str, Template] = Field(default_factory=dict)
    headers: dict[HeaderName, str] = Field(default_factory=dict)
    observe: Observe

    @model_validator(mode="after")
    def _can_ask(self) -> Self:
        if self.observe.fetches:
            raise ValueError("a result cannot ask for the result again")
        if self.observe.state is None and not self.observe.http:
            raise ValueError("observe.http is missing: such as {200: completed, 4xx: failed}")
        _knows_only_id("a result", self.path, self.query)
        return self


class Poll(Part):
    """The request that asks for a task; without `path` only the URL that the provider gave is asked."""

    method: Literal["GET", "POST"] = "GET"
    path: PathTemplate | None = None
    query: dict[str, Template] = Field(default_factory=dict)
    headers: dict[HeaderName, str] = Field(default_factory=dict)
    observe: Observe
    result: Result | None = None
    every: Duration = timedelta(seconds=3)
    not_found_grace: Duration = timedelta(seconds=60)
    timeout: Duration = timedelta(seconds=15)

    @model_validator(mode="after")
    def _can_ask(self, info: ValidationInfo) -> Self:
        _knows_only_id("a poll", self.path, self.query)
        if _adapted(info):
            return self
        if self.observe.state is None and not self.observe.http:
            raise ValueError("observe.state is missing: without it a poll never learns the end of a task")
        if self.observe.fetches != (self.result is not None):
            raise ValueError("result (the second request) and a state fetch_result (when it is made) need each other")
        if self.result is not None and self.result.path is None and self.observe.result_url is None:
            raise ValueError("write result.path, or observe.result_url where the provider gives the address")
        if self.path is None and self.observe.poll_url is None:
            raise ValueError("write path, or observe.poll_url where the provider gives the address")
        named = any("{id}" in template for template in (self.path or "{id}", *self.query.values()))
        if not named and self.observe.poll_url is None:
            raise ValueError("path or query needs {id}: without it every poll asks for the same task")
        return self


class Cancel(Part):
    """The request that cancels a task, and which answers say that it was or that it is too late."""

    method: Literal["POST", "PUT", "DELETE"] = "POST"
    path: PathTemplate | None = None
    query: dict[str, Template] = Field(default_factory=dict)
    headers: dict[HeaderName, str] = Field(default_factory=dict)
    accepted: Statuses = Field(default_factory=lambda: ["2xx"])
    too_late: Statuses = Field(default_factory=lambda: ["409"])
    observe: Observe | None = None
    timeout: Duration = timedelta(seconds=15)

    @model_validator(mode="after")
    def _knows_the_task(self) -> Self:
        _knows_only_id("a cancel", self.path, self.query)
        return self


def _knows_only_id(called: str, path: str | None, query: dict[str, str]) -> None:
    for template in [path or "", *query.values()]:
        if set(PLACEHOLDER.findall(template)) - {"id"}:
            raise ValueError(f"{called} knows one placeholder: {{id}}")


class Operation(Part):
    """One thing that the provider can do."""

    title: str = ""
    input: InputSchema
    submit: Submit | None = None
    poll: Poll | None = None
    cancel: Cancel | None = None
    callback: Callback | None = None
    price: PriceForm | None = None
    typical: Duration = timedelta(seconds=120)
    overdue_after: Duration | None = None

    @field_validator("price")
    @classmethod
    def _cannot_be_talked_down(cls, value: Price | None, info: ValidationInfo) -> Price | None:
        if value is not None and "input" in info.data:
            value.check(info.data["input"])
        return value

    @model_validator(mode="after")
    def _can_be_read(self, info: ValidationInfo) -> Self:
        if self.submit is not None and not _adapted(info):
            if self.submit.observe is None and self.poll is None:
                raise ValueError("submit.observe is missing: without poll nothing else says how its answer is read")
            if self.poll is not None and self.submit_observe().task_id is None:
                raise ValueError("submit.observe.task_id is missing: without the id nothing can be polled")
        if self.submit is None and (self.poll is not None or self.cancel is not None or self.callback is not None):
            raise ValueError("poll, cancel and callback make no sense without submit")
        given = self.submit_observe().cancel_url is not None or _adapted(info)
        if self.cancel is not None and self.cancel.path is None and not given:
            raise ValueError("write cancel.path, or observe.cancel_url where the provider gives the address")
        if self.poll is None and self.callback is not None:
            self.callback.check_without_poll()
        if self.price is not None and self.price.unknown and self.submit is not None and not _adapted(info):
            self._check_that_the_cost_is_told()
        return self

    def _check_that_the_cost_is_told(self) -> None:
        """A price that nobody knows beforehand has to come with the completion, or the job is free."""
        cost = self._completion_observe().cost
        if cost is None or cost.basis == "estimate":
            raise ValueError(
                "price.unknown needs observe.cost where a completion is read: else nothing is ever charged"
            )

    def _completion_observe(self) -> Observe:
        """How the answer that ends a task is read."""
        if self.poll is None:
            return self.callback_observe()
        return self.poll.result.observe if self.poll.result is not None else self.poll.observe

    @property
    def spoken(self) -> Submit:
        """The submit of an operation that is spoken over HTTP.

        Raises:
            ValueError: An adapter speaks it.
        """
        if self.submit is None:
            raise ValueError("an adapter speaks this operation")
        return self.submit

    def submit_observe(self) -> Observe:
        """How a submit's answer is read."""
        if self.submit is not None and self.submit.observe is not None:
            return self.submit.observe
        return self.poll.observe if self.poll is not None else Observe()

    def cancel_observe(self) -> Observe:
        """How a cancel's answer is read."""
        if self.cancel is not None and self.cancel.observe is not None:
            return self.cancel.observe
        return self.poll.observe if self.poll is not None else self.submit_observe()

    def callback_observe(self) -> Observe:
        """How a callback is read."""
        if self.callback is not None and self.callback.observe is not None:
            return self.callback.observe
        return self.poll.observe if self.poll is not None else self.submit_observe()


class ErrorRule(Part):
    """What an error answer means: all conditions that are given must hold; the first rule that fits counts.

    Without `submit` or `poll` the status decides: 429 is worth another try, other 4xx are final, and a 5xx may have
    taken the task; 404 finds nothing, 401, 402 and 403 are the key's, anything else is asked again.
    """

    status: Statuses | None = None
    code: Words | None = None
    type: Words | None = None
    message: Pattern | None = None
    error: Code
    submit: Literal["retryable", "final", "unknown"] | None = None
    poll: Literal["retry", "not_found", "denied", "failed"] | None = None

    @model_validator(mode="after")
    def _has_a_condition(self) -> Self:
        if self.status is None and self.code is None and self.type is None and self.message is None:
            raise ValueError("a rule needs a condition: status, code, type or message")
        return self


class FailureRule(Part):
    """Which error code a failed task gets, by the provider's own words."""

    code: Words | None = None
    type: Words | None = None
    message: Pattern | None = None
    error: Code

    @model_validator(mode="after")
    def _has_a_condition(self) -> Self:
        if self.code is None and self.type is None and self.message is None:
            raise ValueError("a rule needs a condition: code, type or message")
        return self


class Errors(Part):
    """How error answers are read: where the body says what, and the rules.

    Args:
        status: A status that the body carries itself; where HTTP says 2xx and this says otherwise, this counts.
    """

    status: Expression | None = None
    message: Expression | None = None
    type: Expression | None = None
    code: Expression | None = None
    rules: list[ErrorRule] = Field(default_factory=list)
    failures: list[FailureRule] = Field(default_factory=list)


class Limits(Part):
    """What the provider's document says of limits; `retention` is how long it keeps files.

    `in_flight` is for tasks that it has not finished, `submits` for requests to submit that are under way. `poll_rate` is
    for all polls of this provider together; without one they are only spaced job by job.
    """

    in_flight: int = Field(default=100, ge=1)
    submits: int = Field(default=100, ge=1)
    submit_rate: Rate | None = None
    poll_rate: Rate | None = None
    retention: Duration | None = None


class Card(Part):
    """One provider."""

    card: Literal[1]
    name: Name
    title: str = ""
    adapter: str | None = None
    base_url: BaseURL | None = None
    auth: Auth | None = None
    trusted_origins: list[TrustedOrigin] = Field(default_factory=list)
    default_operation: Name | None = None
    errors: Errors = Errors()
    limits: Limits = Limits()
    operations: dict[Name, Operation] = Field(min_length=1)
    examples: list[Example] = Field(default_factory=list)

    @field_validator("examples")
    @classmethod
    def _of_an_operation(cls, value: list[Example], info: ValidationInfo) -> list[Example]:
        operations = info.data.get("operations", {})
        for example in value if operations else ():
            if example.operation not in operations:
                raise ValueError(f"{example.name!r} is of {example.operation!r}, which is none of operations")
        return value

    @field_validator("adapter")
    @classmethod
    def _is_known(cls, value: str | None, info: ValidationInfo) -> str | None:
        known = (info.context or {}).get("adapters", ())
        if value is not None and value not in known:
            raise ValueError(f"there is no adapter {value!r}; known: {', '.join(known) or 'none'}")
        return value

    @model_validator(mode="after")
    def _whole(self, info: ValidationInfo) -> Self:
        if self.default_operation is not None and self.default_operation not in self.operations:
            raise ValueError(f"default_operation {self.default_operation!r} is none of operations")
        spoken = [name for name, operation in self.operations.items() if operation.submit is not None]
        over_http = self.adapter is None or _adapted(info)
        if not over_http and (self.base_url is not None or self.auth is not None or spoken):
            raise ValueError("an adapter speaks for itself: leave out base_url, auth, submit, poll and callback")
        if over_http and (self.base_url is None or len(spoken) < len(self.operations)):
            raise ValueError("base_url and, in every operation, submit are needed")
        return self
