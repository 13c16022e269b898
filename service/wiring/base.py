"""What everything stands on."""

from __future__ import annotations

from dataclasses import dataclass

from service.accounts.keys import Keys
from service.clock import Clock, Randomness
from service.db.opening import Store
from service.deliveries.lanes.quota import SOCKETS
from service.egress import Egress, Files
from service.ids import Ids
from service.providers.registry import Registry
from service.results.links import ResultLinks
from service.results.storage import Storage
from service.settings import Settings
from service.telemetry import Metrics


@dataclass(frozen=True, slots=True)
class Base:
    """What everything stands on."""

    settings: Settings
    clock: Clock
    randomness: Randomness
    ids: Ids
    metrics: Metrics
    store: Store
    egress: Egress
    registry: Registry
    links: ResultLinks
    keys: Keys
    owner: str  # the name of this process on leases
    sockets: int = SOCKETS  # requests of deliveries at once
    storage: Storage | None = None  # where copies of results are kept …
    files: Files | None = None  # … and how they are fetched; without both none are made
