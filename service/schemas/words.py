"""The words that callers name beside states and event types: scopes, limits, statuses of deliveries, what usage is grouped by."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from service.states import EVENT_TYPES, FINAL, JobStatus


class Scope(StrEnum):
    """What a key may do."""

    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    SUBSCRIPTIONS = "subscriptions"
    DELIVERIES = "deliveries"
    ACCOUNT = "account"
    ADMIN = "admin"  # everything, for all accounts


class LimitKind(StrEnum):
    """How an account is limited."""

    NONE = "none"
    PREPAID = "prepaid"
    MONTHLY = "monthly"


JOB_EVENT_TYPES: Final = tuple(name for name in EVENT_TYPES if name.startswith(("job.", "result.")))
FINAL_STATUSES: Final = tuple(status.value for status in JobStatus if status in FINAL)
EXPORT_FORMATS: Final = ("csv", "jsonl")
SIGNATURES: Final = ("v1", "v1a")
DEFAULT_SIGNATURES: Final = ("v1",)  # always sent, since every receiver knows it
DELIVERY_STATUSES: Final = ("pending", "delivered", "dead", "skipped")
#: What became of an event at a subscription, but for what is pending; `missing`: it has no delivery, such as one older than the subscription.
REPLAYED: Final = ("delivered", "dead", "skipped", "missing")
REPLAYABLE_TYPES: Final = tuple(each for each in EVENT_TYPES if each != "ping")  # which was meant for one moment
USAGE_GROUPS: Final = ("day", "provider", "operation", "model", "status", "key", "tag")
OTHER: Final = "other"  # stands for all models, keys and tags beyond the first ones of a day
