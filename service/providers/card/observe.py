"""What a card may say of how a document of the provider is read: `observe`.

Owns the form only; `mapping` puts it to use.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal, Self

from pydantic import Field, model_validator

from service.providers.card.forms import FETCH_RESULT, Expression, HttpStates, Part, StateWord, Usd


class Failure(Part):
    """Where a failed task says why."""

    message: Expression | None = None
    type: Expression | None = None
    code: Expression | None = None


class Cost(Part):
    """Where an answer says what the task costs: a number or a text such as `$0.02`, times `usd_each`.

    Args:
        usd: What the task costs where the figure is in a unit that nobody explains; the figure is kept beside it.
    """

    path: Expression
    usd_each: Usd = Decimal(1)
    usd: Usd | None = None
    basis: Literal["provider", "price_list", "estimate"] = "provider"


class Moment(Part):
    """Where an answer gives a time, and how it counts it."""

    path: Expression
    unit: Literal["s", "ms", "iso"]


class Observe(Part):
    """How a document of the provider is read; everything but `states` and `http` is a JMESPath expression.

    Args:
        http: What the answer's status means where no word says it. `4xx` leaves out the statuses that are about our
            key or our pace: these count only when they are written out.
    """

    task_id: Expression | None = None
    state: Expression | None = None
    states: dict[str, StateWord] = Field(default_factory=dict)
    http: HttpStates = Field(default_factory=dict)
    urls: Expression | None = None
    error: Failure = Failure()
    cost: Cost | None = None
    created_at: Moment | None = None
    finished_at: Moment | None = None
    poll_url: Expression | None = None
    cancel_url: Expression | None = None
    result_url: Expression | None = None

    @model_validator(mode="after")
    def _state_and_states(self) -> Self:
        if (self.state is None) != (not self.states):
            raise ValueError("state (where the word is) and states (what it means) need each other")
        return self

    @property
    def fetches(self) -> bool:
        """Whether a word or a status of it asks for the result."""
        return FETCH_RESULT in {*self.states.values(), *self.http.values()}
