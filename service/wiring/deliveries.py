"""Wiring of fan-out, subscriptions, replays and sending."""

from __future__ import annotations

from dataclasses import dataclass

from service.accounts import accounts
from service.deliveries.directory import StoreDirectory
from service.deliveries.fanout import Fanout
from service.deliveries.fanout_store import WriteFanoutPart
from service.deliveries.replays import replay_store
from service.deliveries.send import Sender
from service.deliveries.subscribing.changes import Changes
from service.events.feed import Hub
from service.subscriptions.destinations import DestinationCache
from service.wiring.base import Base


@dataclass(frozen=True, slots=True)
class Deliveries:
    """The sender, and what gives it its deliveries in the transaction of an event."""

    sender: Sender
    fanout: Fanout


def deliveries(base: Base, hub: Hub) -> Deliveries:
    """Everything behind an event."""
    cache = DestinationCache(base.store.box)
    sender = _sender(base, cache)
    fanout = Fanout(base.ids, cache, sender.lanes, base.owner, sender.lease_ms, hub)
    base.store.writer.handle(WriteFanoutPart, fanout.write_later)
    renewed, forgotten = sender.lanes.renew, sender.lanes.breakers.forget
    limit = base.settings.max_subscriptions
    changes = Changes(cache, fanout.add, base.ids, limit=limit, renewed=renewed, forgotten=forgotten)
    changes.register(base.store.writer)
    replay_store.register(base.store.writer, base.ids, sender.lanes.left_in_store)
    return Deliveries(sender, fanout)


def _sender(base: Base, cache: DestinationCache) -> Sender:
    store, settings = base.store, base.settings
    directory = StoreDirectory(store.reader, store.writer, store.box, cache, base.clock)
    accounts.register(store.writer, directory.forget_secrets)
    return Sender(
        writer=store.writer,
        egress=base.egress,
        directory=directory,
        clock=base.clock,
        randomness=base.randomness,
        owner=base.owner,
        timeout_s=settings.delivery_timeout.total_seconds(),
        schedule_s=tuple(wait.total_seconds() for wait in settings.delivery_schedule),
        observer=base.metrics,
        sockets=base.sockets,
        memory=settings.delivery_memory,
    )
