"""Accounts, keys, money and usage (contract 3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from typing_extensions import TypedDict

from service.errors import FieldError
from service.ids import is_id
from service.money import MAX_USD, PLACES, parse_usd
from service.schemas.query_model import PageQuery, QueryModel
from service.schemas.request_model import RequestModel
from service.schemas.values import (
    REF,
    WORDS,
    Day,
    Encoded,
    IdOf,
    Moment,
    Money,
    OneOf,
    Secret,
    Time,
    fault,
    said,
    unique,
)
from service.schemas.words import FINAL_STATUSES, OTHER, USAGE_GROUPS, LimitKind, Scope

_AN_AMOUNT = f'a decimal string with at most {PLACES} places and {MAX_USD} at most, such as "5.00"'


def _amount(value: object) -> int:
    amount = parse_usd(value)
    if amount is None:
        raise fault(f"must be {_AN_AMOUNT}")
    return amount


def _not_negative(amount: int) -> int:
    if amount < 0:
        raise fault("must not be negative")
    return amount


def _not_zero(amount: int) -> int:
    if not amount:
        raise fault("must not be zero")
    return amount


def _printable(text: str) -> str:
    if not text.isprintable():
        raise fault("must have printable characters only")
    return text.strip()


def _name(text: str) -> str:
    if not _printable(text):
        raise fault("must be a text of 1 to 100 printable characters")
    return text.strip()


def _key_or_other(text: str) -> str:
    if text != OTHER and not is_id(text, "key"):
        raise fault("is no key's id; they look like key_0199…")
    return text


#: US dollars that a caller names, in micro-USD.
Amount = Annotated[
    int,
    BeforeValidator(_amount),
    WithJsonSchema({"type": "string", "pattern": r"^-?\d{1,10}(\.\d{1,6})?$", WORDS: _AN_AMOUNT}),
]
Name = Annotated[
    str, said("a text of 1 to 100 printable characters", min_length=1, max_length=100), AfterValidator(_name)
]


class _Limit(RequestModel):
    """A limit and the budget that belongs to it."""

    limit: Annotated[LimitKind, Field(strict=False)] = LimitKind.NONE
    """What the account may spend: as much as it likes, what was put into it, or so much a month (UTC)."""
    budget: Annotated[Amount, AfterValidator(_not_negative)] | None = None
    """With `monthly`, and only then: what a month (UTC) may cost, in US dollars."""

    @classmethod
    def faults_between(cls, body: Mapping[str, Any]) -> Iterable[FieldError]:
        """A month has a budget, and nothing else has one."""
        limit, budget = body.get("limit", LimitKind.NONE), body.get("budget")
        if limit == LimitKind.MONTHLY and budget is None:
            yield FieldError("/budget", f"monthly needs a budget: {_AN_AMOUNT}")
        elif limit in (LimitKind.NONE, LimitKind.PREPAID) and budget is not None:
            yield FieldError("/budget", "belongs to the limit monthly; leave it out")


class AccountRequest(_Limit):
    """A new account."""

    name: Name
    credit: Annotated[Amount, AfterValidator(_not_negative)] | None = None
    """What the account begins with, in US dollars."""


class AccountLimitRequest(_Limit):
    """Another limit for an account."""

    limit: Annotated[LimitKind, Field(strict=False)]
    """What the account may spend: as much as it likes, what was put into it, or so much a month (UTC)."""


class CreditRequest(RequestModel):
    """Money that is put into an account."""

    amount: Annotated[Amount, AfterValidator(_not_zero)]
    """US dollars, as a decimal string; negative to correct."""
    reason: (
        Annotated[str, said("a text of at most 500 printable characters", max_length=500), AfterValidator(_printable)]
        | None
    ) = None
    """An operator's words."""


class KeyRequest(RequestModel):
    """A new key."""

    name: Name
    scopes: Annotated[
        tuple[Annotated[Scope, Field(strict=False)], ...],
        said(f"a list of some of {', '.join(Scope)}", min_length=1, max_length=20, strict=False),
        AfterValidator(unique),
    ]
    """Scopes that the caller's own key has too."""
    expires_at: Annotated[Moment, said("a time to come, with a zone: 2027-01-31T00:00:00Z")] | None = None
    """When it ends; left out: never."""
    account_id: Annotated[str, IdOf("acc")] | None = None
    """Another account; admins only."""


class AccountPageQuery(PageQuery):
    """Of which account."""

    account_id: Annotated[str, IdOf("acc")] | None = None
    """Another account; admins only."""


class UsageRequestQuery(QueryModel):
    """Which days, of what, and by what."""

    first: Annotated[Day | None, Field(alias="from")] = None
    """The first day; left out: 29 days before `to`."""
    last: Annotated[Day | None, Field(alias="to")] = None
    """The last day; left out: today."""
    group_by: Annotated[
        tuple[Annotated[str, OneOf(USAGE_GROUPS)], ...], Field(strict=False), AfterValidator(unique)
    ] = ("day", "provider")
    """One or several, repeated or separated by commas."""
    provider: str | None = None
    operation: str | None = None
    model: str | None = None
    status: (
        Annotated[
            tuple[Annotated[str, OneOf(FINAL_STATUSES, ": jobs are counted when they end")], ...],
            Field(strict=False),
            AfterValidator(unique),
        ]
        | None
    ) = None
    """One or several, repeated or separated by commas: jobs are counted when they end."""
    key: Annotated[str, AfterValidator(_key_or_other)] | None = None
    """A key's id, or `other`."""
    tag: str | None = None


class BalanceView(TypedDict):
    """What an account has and may spend."""

    currency: Literal["USD"]
    limit: Annotated[str, Encoded({"type": "string", "enum": list(LimitKind)})]
    balance: Money
    """Credits less charges; below zero where more was spent."""
    held: Money
    """Of the balance, for jobs that are under way."""
    available: Money
    """What is left to spend: the balance less what is held, or with `monthly` the budget less what was spent this month and what is held. With `none` it binds nothing and may be below zero."""
    budget: NotRequired[Money]
    """With `monthly` only, as are the next two."""
    spent: NotRequired[Money]
    """What was charged this month (UTC)."""
    resets_at: NotRequired[Time]
    """When the next month begins."""


class AccountView(TypedDict):
    """An account."""

    id: Annotated[str, Field(pattern="^acc_")]
    name: str
    status: Annotated[str, Encoded({"type": "string", "enum": ["active"]})]
    webhook_secret_prefix: str
    balance: BalanceView
    created_at: Time


class KeyView(TypedDict):
    """A key, without its secret."""

    id: Annotated[str, Field(pattern="^key_")]
    name: str
    account_id: Annotated[str, Field(pattern="^acc_")]
    prefix: str
    scopes: Annotated[tuple[str, ...], Encoded({"type": "array", "items": {REF: "Scope"}})]
    created_at: Time
    last_used_at: Time | None
    expires_at: Time | None
    revoked_at: Time | None


class KeyWithSecretView(KeyView):
    """A key and its secret, which is shown this once."""

    secret: str


class RotatedAccountView(AccountView):
    """An account and its new secret, which is shown this once."""

    secret: Secret
    previous_secret_until: Time


class CreatedAccountView(AccountView):
    """An account with its first key; their secrets are shown this once."""

    secret: Secret
    key: KeyWithSecretView


class TransferView(TypedDict):
    """What moved in an account's books: `debit` gives the amount, `credit` takes it."""

    id: Annotated[str, Field(pattern="^trf_")]
    at: Time
    kind: Annotated[
        str,
        Encoded({"type": "string", "enum": ["credit", "debit", "hold", "release", "charge", "excess", "late"]}),
    ]
    debit: Annotated[str, Encoded({"type": "string", "enum": ["funding", "available", "held", "spent"]})]
    """The book that gives."""
    credit: Annotated[str, Encoded({"type": "string", "enum": ["funding", "available", "held", "spent"]})]
    """The book that takes."""
    currency: Literal["USD"]
    amount: Annotated[str, Field(pattern=r"^\d+\.\d{6}$")]
    """Above zero."""
    job_id: str | None
    seq: int | None
    """The row of the job's timeline that it goes with."""
    basis: str | None
    """Whose figure it is, as in the job's cost."""
    reason: str | None
    """An operator's words."""
    actor: str | None
    """The key that asked for it."""


class UsageView(TypedDict):
    """What was grouped by, and the figures."""

    day: NotRequired[Annotated[str, Field(json_schema_extra={"format": "date"})]]
    provider: NotRequired[str]
    operation: NotRequired[str]
    model: NotRequired[str | None]
    status: NotRequired[Annotated[str, Encoded({"type": "string", "enum": list(FINAL_STATUSES)})]]
    key: NotRequired[str | None]
    """A key's id."""
    tag: NotRequired[str]
    jobs: Annotated[int, Field(ge=0)]
    completed: Annotated[int, Field(ge=0)]
    failed: Annotated[int, Field(ge=0)]
    cancelled: Annotated[int, Field(ge=0)]
    expired: Annotated[int, Field(ge=0)]
    charged: Money
    """US dollars."""
    currency: Literal["USD"]
    p50_s: float | None
    """Seconds from acceptance to the end, within 5 %."""
    p95_s: float | None


class AccountPage(TypedDict):
    """A page of accounts."""

    data: list[AccountView]
    next_cursor: str | None


class KeyPage(TypedDict):
    """A page of keys."""

    data: list[KeyView]
    next_cursor: str | None


class TransferPage(TypedDict):
    """A page of transfers."""

    data: list[TransferView]
    next_cursor: str | None


class UsageReport(TypedDict):
    """A row for each group, the newest day first."""

    data: list[UsageView]
