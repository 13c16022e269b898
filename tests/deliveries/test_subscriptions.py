"""Subscriptions: what the hot path sees of them is always what is committed, and nothing of theirs is lost or leaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Raw

from service.clock import iso
from service.db.transaction import Params, Row
from service.deliveries.subscribing.changes import Changes
from service.errors import Conflict, Invalid, NotFound
from service.schemas.subscription_schemas import SubscriptionChangeRequest
from service.signing import decode_secret, encode_public_key
from service.subscriptions.destinations import DestinationCache
from service.subscriptions.sealed import Pair, Sealed
from service.subscriptions.snapshots import Destination
from service.subscriptions.subscription_commands import CreateSubscription, DisableSubscription, UpdateSubscription
from tests.deliveries.desk import NEVER_MADE, OURS, THEIRS, URL, Desk, desk

OTHER = "https://other.example/"
GONE = "the destination answered 410 Gone"
HOUR_S = 3_600


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Desk]:
    """An open store with two accounts and no subscription."""
    async with desk(tmp_path) as opened:
        yield opened


def destination(**fields: Any) -> Destination:
    """One that wants completions of anything."""
    given: dict[str, Any] = {name: frozenset(value) for name, value in fields.items()}
    plain = Destination(
        id="sub_1",
        account_id=OURS,
        url=URL,
        events=frozenset({"job.completed"}),
        providers=frozenset(),
        operations=frozenset(),
        tags=frozenset(),
        max_in_flight=1,
        rate_per_s=None,
        schedule_s=None,
        sealed=Sealed("sub_1", lambda _sealed, _place: b"", Pair(), Pair(), None),
    )
    return replace(plain, **given)


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({}, True),
        ({"events": ["job.failed"]}, False),
        ({"providers": ["apimodels", "sharkai"]}, True),
        ({"providers": ["sharkai"]}, False),
        ({"operations": ["generate"]}, True),
        ({"operations": ["edit"]}, False),
        ({"tags": ["shop", "other"]}, True),
        ({"tags": ["other"]}, False),
        ({"providers": ["apimodels"], "operations": ["generate"], "tags": ["shop"]}, True),
        ({"providers": ["apimodels"], "operations": ["edit"], "tags": ["shop"]}, False),
    ],
)
def test_destination_wants_what_passes_every_filter(filters: dict[str, list[str]], wanted: bool) -> None:
    """Each list that is not empty must match; an empty one lets everything through."""
    tags = frozenset({"shop", "spring"})

    assert destination(**filters).wants("job.completed", "apimodels", "generate", tags) is wanted


def test_destination_filters_leave_events_alone_that_are_about_no_job() -> None:
    """Whoever filters by provider still hears that another subscription was disabled, if it asked for that."""
    picky = destination(events=["subscription.disabled"], providers=["sharkai"], tags=["shop"])

    assert picky.wants("subscription.disabled", None, None, frozenset())
    assert not picky.wants("ping", None, None, frozenset())


async def test_subscription_without_events_gets_the_final_ones(at: Desk) -> None:
    """The answer names them, and the fan-out follows them."""
    made = await at.make()

    assert made["events"] == ("job.completed", "job.failed", "job.cancelled", "job.expired")
    for event_type in made["events"]:
        assert await at.publish(event_type) == [made["id"]]
    assert await at.publish("job.running") == []


async def test_subscription_takes_part_from_its_making_until_its_end(at: Desk) -> None:
    """Made, changed and deleted between two events: each event goes by what is committed when it happens."""
    assert await at.publish() == []
    made = await at.make()
    assert await at.publish() == [made["id"]]
    await at.subscribe.update(OURS, made["id"], SubscriptionChangeRequest.read({"providers": ["sharkai"]}))
    assert await at.publish() == []
    await at.subscribe.update(OURS, made["id"], SubscriptionChangeRequest.read({"providers": None}))
    assert await at.publish() == [made["id"]]
    await at.subscribe.delete(OURS, made["id"])
    assert await at.publish() == []


async def test_subscription_of_another_account_gets_nothing(at: Desk) -> None:
    """Events stay within their account."""
    ours, theirs = await at.make(), await at.make(THEIRS)

    assert await at.publish() == [ours["id"]]
    assert await at.publish(account_id=THEIRS) == [theirs["id"]]
    assert [each.id for each in await at.look()] == [ours["id"]]


async def test_subscription_is_sealed_at_rest_and_open_in_memory(at: Desk) -> None:
    """Neither the secret nor a header's value stands in the database; answers mask the values."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    made = await at.make(headers={"Authorization": "Bearer sesame"}, secret=secret)
    [kept] = await at.look()
    raw = b"".join(path.read_bytes() for path in at.store.path.parent.glob("remora.db*"))

    assert made["secret"] == secret
    assert made["headers"] == {"Authorization": "…"}
    assert kept.signers(at.clock.now_ms()) == [decode_secret(secret)]
    assert kept.headers == {"Authorization": "Bearer sesame"}
    assert b"sesame" not in raw
    assert secret.removeprefix("whsec_").encode() not in raw
    assert decode_secret(secret) not in raw
    assert "sesame" not in repr(kept)
    assert "secret" not in await at.subscribe.show(OURS, made["id"])


async def test_change_keeps_what_it_does_not_name(at: Desk) -> None:
    """A PATCH touches the named fields only, and null brings a default back."""
    made = await at.make(description="shop", tags=["a"], headers={"X-A": "1"}, rate_per_s=5, schedule=["30s", 60])
    changed = await at.subscribe.update(
        OURS, made["id"], SubscriptionChangeRequest.read({"max_in_flight": 3, "rate_per_s": None})
    )
    [kept] = await at.look()

    assert (changed["description"], changed["max_in_flight"], changed["rate_per_s"]) == ("shop", 3, None)
    assert kept.tags == frozenset({"a"})
    assert kept.headers == {"X-A": "1"}
    assert kept.schedule_s == (30.0, 60.0)
    assert (kept.max_in_flight, kept.rate_per_s, kept.url) == (3, None, URL)


async def test_deleting_keeps_what_was_not_sent_as_skipped(at: Desk) -> None:
    """Pending deliveries end as `skipped`; the lane sleeps for good."""
    made = await at.make()
    await at.publish()
    at.fanout.lanes.reserve(at.sent[-1])
    await at.subscribe.delete(OURS, made["id"])

    assert at.rows("SELECT status, due_at, lease_owner FROM deliveries") == [("skipped", None, None)]
    assert at.rows("SELECT * FROM lanes") == []
    assert await at.cache.find(at.store.reader, OURS, made["id"]) is None


async def test_disabling_tells_the_others_once(at: Desk) -> None:
    """Several requests that are out at once bring the same 410; one event goes to those who asked for it."""
    gone = await at.make(events=["job.completed", "subscription.disabled"])
    asked = await at.make(events=["subscription.disabled"])
    await at.make()
    command = DisableSubscription(gone["id"], OURS, GONE)
    await asyncio.gather(*(at.store.writer.run(command) for _ in range(3)))
    await at.fanout.lanes.settle()
    shown = await at.subscribe.show(OURS, gone["id"])

    assert (shown["status"], shown["disabled_reason"]) == ("disabled", GONE)
    assert at.rows("SELECT type, seq, job_id, pos FROM events") == [("subscription.disabled", 0, None, 1)]
    assert [each.subscription_id for each in at.sent] == [asked["id"]]
    assert f'"id":"{gone["id"]}"'.encode() in at.sent[0].body
    assert GONE.encode() in at.sent[0].body


async def test_gone_disables_only_the_address_that_said_so(at: Desk) -> None:
    """The news of a 410 may reach the writer behind a change of the address."""
    made = await at.make(url=OTHER)
    statuses = []
    for url in (URL, OTHER):
        await at.store.writer.run(DisableSubscription(made["id"], OURS, GONE, url))
        statuses.append((await at.subscribe.show(OURS, made["id"]))["status"])

    assert statuses == ["enabled", "disabled"]


async def test_disabled_subscription_misses_nothing(at: Desk) -> None:
    """What was pending and what comes meanwhile is kept as `skipped`; enabled again it gets what comes then."""
    made = await at.make()
    await at.publish()
    await at.store.writer.run(DisableSubscription(made["id"], OURS, GONE))
    assert await at.cache.find(at.store.reader, OURS, made["id"]) is None
    assert await at.publish() == []
    assert await at.publish("job.running") == []
    enabled = await at.subscribe.enable(OURS, made["id"])

    assert (enabled["status"], enabled["disabled_reason"], enabled["health"]["failing_since"]) == (
        "enabled",
        None,
        None,
    )
    assert await at.publish() == [made["id"]]
    assert at.rows("SELECT status, count(*) FROM deliveries GROUP BY status ORDER BY status") == [
        ("pending", 1),
        ("skipped", 2),
    ]


async def test_rotation_lets_the_old_secret_sign_for_its_grace(at: Desk) -> None:
    """The new one signs first; the old one beside it until the grace is over, and a third rotation drops the first."""
    first = await at.make()
    second = await at.subscribe.rotate(OURS, first["id"], HOUR_S)
    [kept] = await at.look()
    now_ms = at.clock.now_ms()
    pair = [decode_secret(second["secret"]), decode_secret(first["secret"])]
    third = await at.subscribe.rotate(OURS, first["id"], 0)
    [after] = await at.look()

    assert kept.signers(now_ms) == pair
    assert kept.signers(now_ms + HOUR_S * 1000 - 1) == pair
    assert kept.signers(now_ms + HOUR_S * 1000) == pair[:1]
    assert after.signers(now_ms) == [decode_secret(third["secret"])]
    assert len({first["secret"], second["secret"], third["secret"]}) == 3


def public_keys(destination: Destination, now_ms: int) -> list[str]:
    """Whose keys sign, as receivers know them."""
    return [encode_public_key(key) for key in destination.signers(now_ms) if isinstance(key, Ed25519PrivateKey)]


async def test_key_is_made_where_v1a_is_asked_for_and_stays(at: Desk) -> None:
    """At creation, or by a change; asked for again it is the same one; the private part is never in the database."""
    plain = await at.make()
    keyed = await at.make(signatures=["v1a"])
    added = await at.subscribe.update(OURS, plain["id"], SubscriptionChangeRequest.read({"signatures": ["v1", "v1a"]}))
    taken = await at.subscribe.update(OURS, plain["id"], SubscriptionChangeRequest.read({"signatures": None}))
    again = await at.subscribe.update(OURS, plain["id"], SubscriptionChangeRequest.read({"signatures": ["v1a", "v1"]}))
    destinations = {each.id: each for each in await at.look()}
    raw = b"".join(path.read_bytes() for path in at.store.path.parent.glob("remora.db*"))

    assert (plain["signatures"], plain["public_key"], plain["previous_public_key"]) == (Raw(b'["v1"]'), None, None)
    assert (taken["signatures"], taken["public_key"]) == (Raw(b'["v1"]'), None)
    assert keyed["signatures"] == added["signatures"] == Raw(b'["v1","v1a"]')
    assert added["public_key"] == again["public_key"] != keyed["public_key"]
    for shown in (keyed, again):
        secret, key = destinations[shown["id"]].signers(at.clock.now_ms())
        assert isinstance(secret, bytes)
        assert isinstance(key, Ed25519PrivateKey)
        assert encode_public_key(key) == shown["public_key"]
        assert key.private_bytes_raw() not in raw


async def test_subscription_without_v1a_signs_with_its_secret_alone(at: Desk) -> None:
    """Also one that had a key once."""
    made = await at.make(signatures=["v1a"])
    await at.subscribe.update(OURS, made["id"], SubscriptionChangeRequest.read({"signatures": ["v1"]}))
    [kept] = await at.look()

    assert kept.signers(at.clock.now_ms()) == [decode_secret(made["secret"])]


async def test_rotation_replaces_secret_and_key_together(at: Desk) -> None:
    """Both old ones co-sign and are shown until the same moment; without a grace they are gone at once."""
    first = await at.make(signatures=["v1a"])
    second = await at.subscribe.rotate(OURS, first["id"], HOUR_S)
    [kept] = await at.look()
    now_ms = at.clock.now_ms()
    before = await at.subscribe.show(OURS, first["id"])
    at.clock.advance(HOUR_S)
    over = await at.subscribe.show(OURS, first["id"])
    until = [each["previous_secret_until"] for each in (first, before, over)]
    third = await at.subscribe.rotate(OURS, first["id"], 0)
    [after] = await at.look()

    pair = [second["public_key"], first["public_key"]]
    assert [before["public_key"], before["previous_public_key"]] == pair
    assert [type(each) is bytes for each in kept.signers(now_ms)] == [True, True, False, False]
    assert public_keys(kept, now_ms + HOUR_S * 1000 - 1) == pair
    assert public_keys(kept, now_ms + HOUR_S * 1000) == pair[:1]
    assert (over["public_key"], over["previous_public_key"]) == (pair[0], None)
    assert public_keys(after, now_ms) == [third["public_key"]]
    assert third["previous_public_key"] is None
    assert until == [None, iso(now_ms + HOUR_S * 1000), None]
    assert len({*pair, third["public_key"]}) == 3


async def test_rotation_leaves_no_old_key_behind_for_later(at: Desk) -> None:
    """A key that does not sign at the moment is replaced too, and a subscription without one gets none."""
    keyed = await at.make(signatures=["v1a"])
    await at.subscribe.update(OURS, keyed["id"], SubscriptionChangeRequest.read({"signatures": ["v1"]}))
    await at.subscribe.rotate(OURS, keyed["id"], 0)
    shown = await at.subscribe.update(OURS, keyed["id"], SubscriptionChangeRequest.read({"signatures": ["v1a"]}))
    plain = await at.make()
    await at.subscribe.rotate(OURS, plain["id"], HOUR_S)

    assert shown["public_key"] not in {None, keyed["public_key"]}
    assert at.rows("SELECT signing_key FROM subscriptions WHERE id = ?", plain["id"]) == [(None,)]


async def test_stop_at_expiry_is_kept_and_changed(at: Desk) -> None:
    """Off unless asked for; the sender sees it."""
    made = await at.make()
    changed = await at.subscribe.update(OURS, made["id"], SubscriptionChangeRequest.read({"stop_at_expiry": True}))
    [stops] = await at.look()
    reset = await at.subscribe.update(OURS, made["id"], SubscriptionChangeRequest.read({"stop_at_expiry": None}))
    [goes_on] = await at.look()

    assert (made["stop_at_expiry"], changed["stop_at_expiry"], reset["stop_at_expiry"]) == (False, True, False)
    assert (stops.stop_at_expiry, goes_on.stop_at_expiry) == (True, False)


async def test_skipped_deliveries_say_why(at: Desk) -> None:
    """A word for what ended them: their subscription was disabled, or deleted."""
    disabled, deleted = await at.make(), await at.make()
    await at.publish()
    await at.store.writer.run(DisableSubscription(disabled["id"], OURS, GONE))
    await at.store.writer.run(DisableSubscription(disabled["id"], OURS, "nothing but failures for 5 days"))
    await at.subscribe.delete(OURS, deleted["id"])

    assert dict(at.rows("SELECT subscription_id, reason FROM deliveries")) == {
        disabled["id"]: "subscription_disabled",
        deleted["id"]: "subscription_deleted",
    }
    assert (await at.subscribe.show(OURS, disabled["id"]))["disabled_reason"] == GONE


async def test_ping_goes_to_one_subscription_alone(at: Desk) -> None:
    """Whatever types it names, and although others would want it."""
    tried = await at.make(events=["job.failed"], providers=["sharkai"])
    await at.make(events=["ping"])
    sent = await at.subscribe.ping(OURS, tried["id"])
    await at.fanout.lanes.settle()

    assert (sent["type"], sent["subscription_id"], sent["job_id"], sent["status"]) == (
        "ping",
        tried["id"],
        None,
        "pending",
    )
    assert sent["url"] == URL
    assert [each.subscription_id for each in at.sent] == [tried["id"]]
    assert (await at.subscribe.show(OURS, tried["id"]))["health"]["backlog"] == 1


async def test_ping_of_a_disabled_subscription_is_refused(at: Desk) -> None:
    """It would be kept as skipped, and tell its sender nothing."""
    made = await at.make()
    await at.store.writer.run(DisableSubscription(made["id"], OURS, GONE))
    with pytest.raises(Conflict, match="enable it first") as refused:
        await at.subscribe.ping(OURS, made["id"])

    assert refused.value.code == "subscription_disabled"
    assert at.rows("SELECT count(*) FROM deliveries") == [(0,)]


@pytest.mark.parametrize("wrong_id", [False, True])
async def test_nobody_touches_another_accounts_subscription(at: Desk, wrong_id: bool) -> None:
    """Every use case answers as if it did not exist, and changes nothing."""
    made = await at.make()
    target = NEVER_MADE if wrong_id else made["id"]
    change = SubscriptionChangeRequest.read({"description": "mine now", "url": "http://127.0.0.1/"})
    attempts: list[Callable[[], Awaitable[object]]] = [
        lambda: at.subscribe.show(THEIRS, target),
        lambda: at.subscribe.update(THEIRS, target, change),
        lambda: at.subscribe.delete(THEIRS, target),
        lambda: at.subscribe.enable(THEIRS, target),
        lambda: at.subscribe.rotate(THEIRS, target, 0),
        lambda: at.subscribe.ping(THEIRS, target),
    ]
    for attempt in attempts:
        with pytest.raises(NotFound):
            await attempt()
    await at.store.writer.run(DisableSubscription(target, THEIRS, GONE))

    assert await at.subscribe.show(OURS, made["id"]) | {"secret": made["secret"]} == made
    assert await at.cache.find(at.store.reader, THEIRS, made["id"]) is None


async def test_private_address_is_refused_and_an_unknown_name_is_not(at: Desk) -> None:
    """A standing destination may be set up before its name resolves; an inner address never."""
    for url in ("http://127.0.0.1/hook", "http://169.254.169.254/latest", "http://[::1]/", "ftp://shop.example/"):
        with pytest.raises(Invalid) as refused:
            await at.make(url=url)
        assert [error.pointer for error in refused.value.errors] == ["/url"]
    made = await at.make()
    with pytest.raises(Invalid):
        await at.subscribe.update(OURS, made["id"], SubscriptionChangeRequest.read({"url": "http://10.0.0.1/"}))

    assert at.rows("SELECT url FROM subscriptions") == [(URL,)]


async def test_account_has_a_most_of_subscriptions(at: Desk) -> None:
    """Each event is held against all of them, so that there must be an end; one deleted makes room."""
    made = [await at.make() for _ in range(2)]
    at.store.writer.handle(CreateSubscription, replace(_handlers(at), limit=2).create)
    with pytest.raises(Conflict, match="has 2 subscriptions, which is the most"):
        await at.make()
    await at.make(THEIRS)
    await at.subscribe.delete(OURS, made[0]["id"])
    await at.make()

    assert at.rows("SELECT count(*) FROM subscriptions WHERE account_id = ?", OURS) == [(2,)]


def _handlers(at: Desk) -> Changes:
    return Changes(at.cache, at.fanout.add, at.ids)


async def test_cache_forgets_what_came_to_nothing(at: Desk) -> None:
    """A transaction that fails after a change leaves nothing behind that was never committed."""
    made = await at.make()
    await at.look()
    handlers = _handlers(at)

    async def fail(tx: Any, commands: Any) -> list[Exception | None]:
        await handlers.update(tx, commands)
        await at.cache.of(tx, {OURS})
        msg = "the transaction comes to nothing"
        raise RuntimeError(msg)

    at.store.writer.handle(UpdateSubscription, fail)
    with pytest.raises(RuntimeError):
        await at.subscribe.update(OURS, made["id"], SubscriptionChangeRequest.read({"url": "https://other.example/"}))

    assert [each.url for each in await at.look()] == [URL]


@dataclass(slots=True)
class SlowReader:
    """A reader whose answer arrives when the test says so, with what was true when it was asked."""

    desk: Desk
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def rows(self, sql: str, params: Params | None = None) -> list[Row]:
        found = await self.desk.store.reader.rows(sql, params)
        self.asked.set()
        await self.go.wait()
        return found

    async def row(self, sql: str, params: Params | None = None) -> Row | None:
        found = await self.rows(sql, params)
        return found[0] if found else None

    async def close(self) -> None:
        """Nothing: the desk closes its own."""


async def test_cache_keeps_nothing_that_was_read_before_a_change(at: Desk) -> None:
    """The sender's look-up overlaps a change: its stale answer is not what the next one gets."""
    made = await at.make()
    reader = SlowReader(at)
    looking = asyncio.create_task(at.cache.find(reader, OURS, made["id"]))
    await reader.asked.wait()
    await at.subscribe.update(OURS, made["id"], SubscriptionChangeRequest.read({"url": "https://other.example/"}))
    reader.go.set()
    stale = await looking
    fresh = await at.cache.find(at.store.reader, OURS, made["id"])

    assert stale is not None
    assert stale.url == URL
    assert fresh is not None
    assert fresh.url == "https://other.example/"


@dataclass(slots=True)
class CountingReader:
    """The desk's reader, and how many rows it gave."""

    desk: Desk
    given: int = 0

    async def rows(self, sql: str, params: Params | None = None) -> list[Row]:
        found = await self.desk.store.reader.rows(sql, params)
        self.given += len(found)
        return found

    async def row(self, sql: str, params: Params | None = None) -> Row | None:
        found = await self.rows(sql, params)
        return found[0] if found else None

    async def close(self) -> None:
        """Nothing: the desk closes its own."""


async def test_change_of_one_subscription_is_the_only_thing_that_is_read_again(at: Desk) -> None:
    """An account with thousands: what one change costs does not depend on how many there are, nor on who is sent to."""
    made = [(await at.make())["id"] for _ in range(20)]
    await at.publish()
    await at.subscribe.update(OURS, made[7], SubscriptionChangeRequest.read({"url": OTHER}))
    reader = CountingReader(at)
    found = [await at.cache.find(reader, OURS, each) for each in made * 2]
    gone = await at.cache.find(reader, OURS, NEVER_MADE)

    assert reader.given == 1
    assert [each.url for each in found if each is not None and each.id == made[7]] == [OTHER] * 2
    assert sum(each is not None and each.url == URL for each in found) == 38
    assert gone is None
    assert [each.id for each in await at.look()] == made


async def test_sender_reads_one_subscription_of_an_account_that_nobody_asked_for(at: Desk) -> None:
    """After a restart a backlog does not make every account be read; of another account it finds nothing."""
    made = [(await at.make())["id"] for _ in range(5)]
    reader = CountingReader(at)
    fresh = DestinationCache(at.store.box)
    found = [await fresh.find(reader, OURS, made[3]) for _ in range(2)]
    crossed = await fresh.find(reader, THEIRS, made[3])

    assert [each.id for each in found if each is not None] == [made[3]] * 2
    assert crossed is None
    assert reader.given == 1


async def test_many_changes_are_seen_all(at: Desk) -> None:
    """More than are read one by one: what was made, changed, disabled and deleted since the last event is as it is."""
    at.fanout.cache = at.cache = DestinationCache(at.store.box, most_outdated=4)
    _handlers(at).register(at.store.writer)
    made = [(await at.make())["id"] for _ in range(4)]
    await at.look()
    for each in made:
        await at.subscribe.update(OURS, each, SubscriptionChangeRequest.read({"max_in_flight": 3}))
    added = [(await at.make())["id"] for _ in range(2)]
    await at.subscribe.delete(OURS, made[0])
    await at.subscribe.disable(OURS, made[1], "enough")
    for each in made[2:]:
        await at.subscribe.update(OURS, each, SubscriptionChangeRequest.read({"tags": ["shop"]}))
    seen = await at.look()

    assert [each.id for each in seen] == made[2:] + added
    assert [(each.max_in_flight, each.tags) for each in seen[:-2]] == [(3, frozenset({"shop"}))] * len(made[2:])


async def test_transaction_sees_its_own_change_and_readers_what_is_committed(at: Desk) -> None:
    """A look-up in the middle of a transaction neither sees what may come to nothing, nor hides it from what follows."""
    made = await at.make()
    await at.look()
    handlers, seen = _handlers(at), []

    async def look_on(tx: Any, commands: Any) -> list[Exception | None]:
        answers = await handlers.update(tx, commands)
        for _ in range(2):
            seen.append(await at.cache.find(at.store.reader, OURS, made["id"]))
            seen.extend((await at.cache.of(tx, {OURS}))[OURS].enabled.all)
        return answers

    at.store.writer.handle(UpdateSubscription, look_on)
    await at.subscribe.update(OURS, made["id"], SubscriptionChangeRequest.read({"url": OTHER}))
    seen.append(await at.cache.find(at.store.reader, OURS, made["id"]))

    assert [each.url for each in seen if each] == [URL, OTHER, URL, OTHER, OTHER]


@dataclass(slots=True)
class CountingBox:
    """The desk's box, and how often it opened something."""

    desk: Desk
    opened: int = 0

    def open(self, sealed: bytes, place: str) -> bytes:
        self.opened += 1
        return self.desk.store.box.open(sealed, place)


async def test_secrets_are_opened_when_something_is_sent_and_once(at: Desk) -> None:
    """To read an account's subscriptions, also anew, costs no decryption; one that was rotated is opened again."""
    box = CountingBox(at)
    at.fanout.cache = at.cache = DestinationCache(box)  # type: ignore[arg-type]
    made = [await at.make(headers={"X-A": "1"}, signatures=["v1a"]) for _ in range(3)]
    opened = [box.opened]
    for _ in range(2):
        [first, *_] = await at.look()
        assert (first.headers, len(first.signers(at.clock.now_ms()))) == ({"X-A": "1"}, 2)
        opened.append(box.opened)
        at.store.writer.handle(UpdateSubscription, _handlers(at).update)
        await at.subscribe.update(OURS, made[0]["id"], SubscriptionChangeRequest.read({"description": "changed"}))

    assert opened == [0, 3, 3]


async def test_retry_sends_again_only_where_there_is_somewhere(at: Desk) -> None:
    """A dead, skipped or delivered one is due again; not while its subscription is disabled, nor once it is gone."""
    made = await at.make()
    sent = await at.subscribe.ping(OURS, made["id"])
    await at.store.writer.run(DisableSubscription(made["id"], OURS, GONE))
    with pytest.raises(Conflict, match="is disabled; enable it first"):
        await at.subscribe.retry(OURS, sent["id"])
    with pytest.raises(NotFound):
        await at.subscribe.retry(THEIRS, sent["id"])
    await at.subscribe.enable(OURS, made["id"])
    again = await at.subscribe.retry(OURS, sent["id"])
    await at.subscribe.delete(OURS, made["id"])
    with pytest.raises(Conflict, match="was deleted"):
        await at.subscribe.retry(OURS, sent["id"])

    assert (again["status"], again["id"]) == ("pending", sent["id"])
