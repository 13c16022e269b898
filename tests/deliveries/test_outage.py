"""Destinations that are down for seconds, for days and for ever: nothing is lost, nobody else waits, nobody is hammered."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from service.clock import iso
from service.db.transaction import Tx
from service.deliveries.claim_store import ClaimDeliveries, ClaimedDeliveries, handle_claims
from service.deliveries.lanes.held_bytes import MEMORY, PER_DELIVERY
from service.deliveries.subscribing import queries
from service.errors import EgressNotSent
from service.scheduler.disabler import Disabler
from service.schemas.subscription_schemas import SubscriptionChangeRequest, SubscriptionRequest
from service.subscriptions.subscription_commands import DisableSubscription
from tests.deliveries.desk import OURS, THEIRS, Publish
from tests.deliveries.outage import Outage, outage

DOWN = "https://down.example/hooks"
WELL = "https://well.example/hooks"
HOUR = 3_600.0


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Outage]:
    """Nobody is subscribed yet."""
    async with outage(tmp_path) as made:
        yield made


def down(url: str) -> int | Exception:
    """One of the two does not take connections."""
    return EgressNotSent("connect_refused", "it is down") if url == DOWN else 204


async def test_destination_that_is_down_for_three_days_gets_everything_in_bounded_bursts(at: Outage) -> None:
    """Events from before and during the outage arrive once each, soon after it ends, never more than its limit at once."""
    await at.subscribe(DOWN, max_in_flight=4)
    at.web.answer = down
    await at.publish(30)
    for _ in range(36):
        await at.pass_time(2 * HOUR, step_s=600)
        await at.publish(2)
    tried = len(at.web.asked)
    still_there = at.statuses()
    at.web.answer = lambda _: 204
    at.web.asked.clear()
    await at.publish(1)
    await at.pass_time(600, step_s=5)

    assert still_there == {"pending": 102}
    assert tried < 102 * 10
    assert at.statuses() == {"delivered": 103}
    assert Counter(at.web.events(DOWN)).most_common(1)[0][1] == 1
    assert at.web.peak[DOWN] <= 4


async def test_three_silent_days_lose_nothing_either(at: Outage) -> None:
    """Nothing new comes that would show that the destination is back: the schedule itself outlasts three days."""
    for number in range(20):
        await at.subscribe(f"https://down.example/{number}")
    at.web.answer = lambda _: 503
    await at.publish(1)
    await at.pass_time(72 * HOUR, step_s=900)
    at.web.answer = lambda _: 204
    await at.pass_time(30 * HOUR, step_s=900)

    assert at.statuses() == {"delivered": 20}


async def test_dead_destination_is_left_alone_and_delays_no_other(at: Outage) -> None:
    """A hundred events cost it a handful of requests; the other has all of them at once."""
    await at.subscribe(DOWN)
    await at.subscribe(WELL)
    at.web.answer = down
    await at.publish(100)

    assert len(at.web.events(WELL)) == 100
    assert len(at.web.events(DOWN)) <= 15
    assert len(at.sender.lanes.places) == 0
    assert at.desk.rows("SELECT count(*) FROM deliveries WHERE lease_owner IS NOT NULL") == [(0,)]


async def test_try_is_the_oldest_event_that_has_not_failed(at: Outage) -> None:
    """What has waited longest comes first, and what has failed after that."""
    await at.subscribe(DOWN, max_in_flight=1)
    at.web.answer = down
    await at.publish(8)
    failed = list(dict.fromkeys(at.web.events(DOWN)))
    at.web.asked.clear()
    await at.pass_time(60, step_s=0.5)
    tried = at.web.events(DOWN)
    events = [row[0] for row in at.desk.rows("SELECT event_id FROM deliveries ORDER BY created_at, id")]

    assert len(failed) == 5
    assert tried[:3] == events[5:]
    assert set(tried[3:]) <= set(failed)


async def test_events_that_nobody_can_take_do_not_keep_the_lane_shut(at: Outage) -> None:
    """Five of them fall due again and again before each try; the first try opens the lane for the others all the same."""
    await at.subscribe(DOWN, max_in_flight=1)
    poison: set[str] = set()
    at.web.answer = lambda _: (
        500 if at.web.asked[-1][2] in poison or (len(poison) < 5 and _poisons(poison, at)) else 204
    )
    await at.publish(5)
    at.clock.advance(3)
    await at.publish(10)
    await at.pass_time(5, step_s=0.5)

    assert at.statuses() == {"delivered": 10, "pending": 5}


async def test_indigestible_event_does_not_keep_the_others(at: Outage) -> None:
    """An endpoint that answers 500 to five events gets the rest, and those five by their own schedule."""
    await at.subscribe(DOWN, max_in_flight=1)
    poison: set[str] = set()
    at.web.answer = lambda _: (
        500 if at.web.asked[-1][2] in poison or (len(poison) < 5 and _poisons(poison, at)) else 204
    )
    await at.publish(40)
    await at.pass_time(120, step_s=0.5)
    halfway = at.statuses()
    poison.clear()
    poison.update(str(number) for number in range(5))
    await at.pass_time(HOUR, step_s=60)

    assert halfway == {"delivered": 35, "pending": 5}
    assert at.statuses() == {"delivered": 40}


def _poisons(poison: set[str], at: Outage) -> bool:
    poison.add(at.web.asked[-1][2])
    return True


async def test_try_ahead_of_time_costs_no_step_of_the_schedule(at: Outage) -> None:
    """When the destination is back everything is tried early; what fails then keeps its place on its schedule."""
    await at.subscribe(DOWN)
    at.web.answer = down
    await at.publish(4)
    await at.pass_time(HOUR, step_s=60)
    answers = iter([204] + [400] * 1_000)
    at.web.answer = lambda _: next(answers)
    before = dict(at.desk.rows("SELECT id, due_at FROM deliveries WHERE due_at > ?", at.clock.now_ms() + 600_000))
    await at.publish(1)
    await at.pass_time(400, step_s=5)
    early = at.desk.rows(
        "SELECT id, due_at, schedule_base FROM deliveries WHERE status = 'pending' AND schedule_base > 0"
    )

    kept = [(before[delivery_id] == due_at, base) for delivery_id, due_at, base in early if delivery_id in before]
    assert kept
    assert set(kept) == {(True, 1)}


async def test_one_off_destination_that_never_returns_ends_dead_without_a_request_for_each(at: Outage) -> None:
    """What waited behind an open breaker for as long as its schedule lasts, ends, and says why."""
    await at.subscribe(DOWN)
    at.web.answer = down
    await at.publish(300)
    await at.pass_time(130 * HOUR, step_s=1_800)
    ends = Counter(row[0] for row in at.desk.rows("SELECT reason FROM deliveries"))

    assert at.statuses() == {"dead": 300}
    assert set(ends) == {"destination_down", "schedule_used_up"}
    assert len(at.web.asked) < 600


async def test_nothing_is_sent_past_the_results_expiry_when_the_subscription_says_so(at: Outage) -> None:
    """The retry that would come too late is not made; the delivery is dead and says why."""
    expiring = await at.subscribe(DOWN, stop_at_expiry=True)
    lasting = await at.subscribe(WELL)
    at.web.answer = lambda _: 500
    await at.desk.publish(results_expire_in_s=200)
    await at.settle()
    await at.pass_time(HOUR, step_s=60)
    ends = dict(at.desk.rows("SELECT subscription_id, status || ' ' || coalesce(reason, '') FROM deliveries"))

    assert ends == {expiring["id"]: "dead result_expired", lasting["id"]: "pending "}
    assert len(at.web.events(DOWN)) == 2


async def test_five_days_of_nothing_but_failures_disable_and_tell_the_others(at: Outage) -> None:
    """The account hears of it by its other subscription; what was not sent is skipped and says why."""
    failing = await at.subscribe(DOWN)
    await at.subscribe(WELL, events=["subscription.disabled"])
    disabler = Disabler(at.desk.store.writer, at.desk.store.reader)
    at.web.answer = down
    disabled = []
    for _ in range(21):
        await at.publish(1)
        await at.pass_time(6 * HOUR, step_s=1_200)
        disabled.append(await disabler.run_once())
    await at.settle()
    shown = await at.desk.subscribe.show(OURS, failing["id"])

    assert disabled.index(1) == 19  # after twenty times six hours
    assert sum(disabled) == 1
    assert (shown["status"], shown["disabled_reason"]) == ("disabled", "nothing but failures for 5 days")
    assert len(at.web.events(WELL)) == 1
    assert "pending" not in at.statuses()
    assert at.statuses()["skipped"] > 0
    reasons = at.desk.rows("SELECT DISTINCT reason FROM deliveries WHERE status = 'skipped'")
    assert reasons == [("subscription_disabled",)]


async def test_one_success_in_five_days_is_enough(at: Outage) -> None:
    """Only nothing but failures disables."""
    await at.subscribe(DOWN)
    disabler = Disabler(at.desk.store.writer, at.desk.store.reader)
    at.web.answer = down
    for day in range(8):
        at.web.answer = (lambda _: 204) if day == 3 else down
        await at.publish(1)
        await at.pass_time(24 * HOUR, step_s=3_600)
        assert await disabler.run_once() == 0


async def test_success_between_look_and_command_keeps_it_enabled(at: Outage) -> None:
    """The disabler's look is a moment old when it acts: what succeeded since stays, what goes on failing does not."""
    healed, failing = await at.subscribe(WELL), await at.subscribe(DOWN)
    five_days_ms = 5 * 86_400_000
    for made in (healed, failing):
        await at.fails_since(made["id"], at.clock.now_ms() - five_days_ms)
    at.web.answer = down
    found = await queries.failing_for(at.desk.store.reader, five_days_ms - 1, 10)
    await at.publish(1)
    for _, each in found:
        await at.desk.store.writer.run(DisableSubscription(each, OURS, "failures", failing_ms=five_days_ms))
    statuses = [(await at.desk.subscribe.show(OURS, each["id"]))["status"] for each in (healed, failing)]

    assert sorted(each for _, each in found) == [healed["id"], failing["id"]]
    assert statuses == ["enabled", "disabled"]


async def test_new_address_is_not_judged_by_the_old_ones_failures(at: Outage) -> None:
    """Five days of failures, then another address: its first failure is its first; the same address changes nothing."""
    made = await at.subscribe(DOWN)
    since = at.clock.now_ms() - 6 * 86_400_000
    await at.fails_since(made["id"], since)
    same = await at.desk.subscribe.update(
        OURS, made["id"], SubscriptionChangeRequest.read({"url": DOWN, "description": "same"})
    )
    moved = await at.desk.subscribe.update(OURS, made["id"], SubscriptionChangeRequest.read({"url": WELL}))
    at.web.answer = lambda _: 500
    await at.publish(1)
    shown = await at.desk.subscribe.show(OURS, made["id"])

    assert same["health"]["failing_since"] == iso(since)
    assert (moved["health"]["failing_since"], moved["health"]["last_failure_at"]) == (None, None)
    assert shown["health"]["failing_since"] == iso(at.clock.now_ms())
    assert await Disabler(at.desk.store.writer, at.desk.store.reader).run_once() == 0


@pytest.mark.parametrize("status", [410, 500])
async def test_late_answer_of_an_old_address_is_not_held_against_the_new_one(at: Outage, status: int) -> None:
    """Changed while requests are out: it stays enabled and without failures, and the events come to the new address."""
    made = await at.subscribe(DOWN, max_in_flight=8)
    at.web.hold, at.web.answer = asyncio.Event(), lambda url: status if url == DOWN else 204
    for _ in range(6):
        await at.desk.store.writer.run(Publish(OURS))
    await at.web.was_asked(6)
    await at.desk.subscribe.update(OURS, made["id"], SubscriptionChangeRequest.read({"url": WELL}))
    at.web.hold.set()
    await at.settle()
    shown = await at.desk.subscribe.show(OURS, made["id"])
    breaker = at.sender.lanes.breakers.state(made["id"]).word
    await at.pass_time(10, step_s=5)

    assert (shown["status"], shown["health"]["failing_since"], breaker) == ("enabled", None, "closed")
    assert at.statuses() == {"delivered": 6}
    assert len(at.web.events(WELL)) == 6


@pytest.mark.parametrize("how", ["delete", "disable"])
async def test_breaker_goes_with_its_subscription(at: Outage, how: str) -> None:
    """Nothing is sent there any more: it counts as down no longer, also after a failure that comes late."""
    made = await at.subscribe(DOWN, max_in_flight=8)
    at.web.answer = down
    await at.publish(6)
    before = at.sender.lanes.breakers.open_lanes()
    at.clock.advance(HOUR)
    at.web.hold = asyncio.Event()
    asked = len(at.web.asked)
    await at.sender.run_once()
    await at.web.was_asked(asked + 1)
    ended = at.desk.subscribe.delete if how == "delete" else partial(at.desk.subscribe.disable, reason="enough")
    await ended(OURS, made["id"])
    at.web.hold.set()
    await at.settle()

    assert before == [made["id"]]
    assert at.sender.lanes.breakers.open_lanes() == []
    assert at.sender.lanes.breakers.limit(made["id"]) is None


async def test_what_waits_in_the_store_past_the_expiry_is_not_sent(at: Outage) -> None:
    """Claimed too late: ended without a request."""
    await at.subscribe(DOWN, stop_at_expiry=True)
    at.web.answer = lambda _: 500
    await at.desk.publish(results_expire_in_s=200)
    await at.settle()
    at.clock.advance(300)
    at.web.asked.clear()
    await at.settle()

    assert at.web.asked == []
    assert at.desk.rows("SELECT status, reason, due_at FROM deliveries") == [("dead", "result_expired", None)]


async def test_backlog_of_a_subscription_that_goes_is_skipped_without_a_request(at: Outage) -> None:
    """A large one in parts: what the transaction leaves is skipped where it would have been sent."""
    gone = await at.subscribe(DOWN)
    at.web.answer = down
    await at.publish(1)
    await at.desk.backlog(gone["id"], 3_000)
    at.web.asked.clear()
    await at.desk.subscribe.delete(OURS, gone["id"])
    at_once = at.statuses()
    await at.pass_time(400, step_s=5)

    assert at_once["skipped"] == 2_000
    assert at.statuses() == {"skipped": 3_001}
    assert at.web.asked == []


async def test_changed_destination_is_tried_at_once(at: Outage) -> None:
    """Who mends the address at three in the morning sees it work, not a breaker that waits for five minutes."""
    made = await at.subscribe(DOWN)
    at.web.answer = down
    await at.publish(30)
    await at.pass_time(2 * HOUR, step_s=60)
    at.clock.advance(1)  # what was tried in the very millisecond of the change keeps its schedule
    await at.desk.subscribe.update(OURS, made["id"], SubscriptionChangeRequest.read({"url": WELL}))
    await at.settle()

    assert at.statuses() == {"delivered": 30}
    assert not at.sender.lanes.breakers.is_open(made["id"])


async def test_change_of_another_field_leaves_the_breaker_alone(at: Outage) -> None:
    """A new description mends nothing."""
    made = await at.subscribe(DOWN)
    at.web.answer = down
    await at.publish(30)
    at.web.asked.clear()
    await at.desk.subscribe.update(OURS, made["id"], SubscriptionChangeRequest.read({"description": "the shop"}))
    await at.settle()

    assert at.web.asked == []


async def test_restart_tries_what_failed_with_one_and_sends_all_when_it_arrives(at: Outage) -> None:
    """A process that begins knows from the store who failed; nobody waits for a schedule of hours."""
    await at.subscribe(DOWN)
    at.web.answer = down
    await at.publish(20)
    await at.pass_time(3 * HOUR, step_s=300)
    at.web.asked.clear()
    await at.restart()
    await at.settle()
    tried = len(at.web.asked)
    at.web.answer = lambda _: 204
    at.clock.advance(1)
    await at.restart()
    await at.settle()

    assert tried == 1
    assert at.statuses() == {"delivered": 20}


async def test_ping_goes_to_a_destination_that_is_down(at: Outage) -> None:
    """Somebody looks at the screen and wants to know now."""
    made = await at.subscribe(DOWN)
    at.web.answer = down
    await at.publish(30)
    at.web.asked.clear()
    at.web.answer = lambda _: 204
    await at.desk.subscribe.ping(OURS, made["id"])
    await at.sender.lanes.settle()

    assert len(at.web.asked) >= 1


async def test_manual_retry_is_sent_at_once_though_the_breaker_is_open(at: Outage) -> None:
    """And before all others."""
    await at.subscribe(DOWN)
    at.web.answer = down
    await at.publish(30)
    [(wanted, event)] = at.desk.rows("SELECT id, event_id FROM deliveries ORDER BY id DESC LIMIT 1")
    at.web.asked.clear()
    await at.desk.subscribe.retry(OURS, wanted)
    await at.settle()

    assert at.web.events(DOWN)[0] == event


async def test_backlog_that_is_found_at_start_does_not_wait_for_ticks(at: Outage) -> None:
    """Six thousand for one healthy destination are gone before the clock has moved."""
    made = await at.subscribe(WELL, max_in_flight=50)
    await at.publish(1)
    await at.desk.backlog(made["id"], 6_000)
    await at.sender.run_once()
    for _ in range(400):
        await at.sender.lanes.settle()
        await asyncio.sleep(0.01)
        if at.statuses() == {"delivered": 6_001}:
            break
    await at.sender.lanes.settle()

    assert at.statuses() == {"delivered": 6_001}
    assert len(at.sender.lanes.places) == 0


async def test_claims_keep_to_the_memory_of_all_lanes(at: Outage) -> None:
    """Hundreds of destinations that hang, each with a backlog: what is held stays bounded, and each gets something."""
    made = [await at.subscribe(f"https://slow.example/{number}", max_in_flight=1) for number in range(150)]
    await at.publish()
    release = at.web.hold = asyncio.Event()
    for each in made:
        await at.desk.backlog(each["id"], 200)
    for _ in range(8):
        await at.sender.run_once()
        await asyncio.sleep(0.05)
    held = len(at.sender.lanes.places)
    release.set()
    await at.settle()

    assert 150 <= held <= MEMORY // PER_DELIVERY // 4 + 150


async def test_silent_destination_that_is_down_is_not_asked_about_at_every_tick(at: Outage) -> None:
    """Ten thousand that failed and have nothing due would cost the writer a look at each, twice a second."""
    for number in range(5):
        await at.subscribe(f"{DOWN}/{number}")
    at.web.answer = lambda _: EgressNotSent("connect_refused", "it is down")
    await at.publish(6)
    await at.pass_time(4 * HOUR, step_s=60)
    looked: list[int] = []

    async def watched(tx: Tx, commands: Sequence[ClaimDeliveries]) -> list[ClaimedDeliveries | Exception]:
        answers = await handle_claims(tx, commands)
        looked.extend(len(each.wishes) for each in answers if isinstance(each, ClaimedDeliveries))
        return answers

    at.desk.store.writer.handle(ClaimDeliveries, watched)
    at.clock.advance(301)  # every try is due, and no delivery is
    [(due,)] = at.desk.rows(f"SELECT count(*) FROM deliveries WHERE due_at <= {at.clock.now_ms()}")
    await at.sender.run_once()

    assert due == 0
    assert len(at.sender.lanes.breakers.open_lanes()) == 5
    assert looked == [0]


async def test_account_with_any_number_of_due_lanes_holds_up_nobody(at: Outage) -> None:
    """A hundred thousand of one account have been due for long: the other's is among those that are claimed, in no time."""
    rows = [(f"{OURS}:https://{number}.example", OURS, number) for number in range(100_000)]
    with contextlib.closing(sqlite3.connect(at.desk.store.path)) as connection:
        connection.executemany("INSERT INTO lanes (id, account_id, next_due_at) VALUES (?, ?, ?)", rows)
        connection.execute(
            "INSERT INTO lanes (id, account_id, next_due_at) VALUES ('sub_theirs', ?, ?)", (THEIRS, at.clock.now_ms())
        )
        connection.commit()
    began = time.process_time()
    claimed = await at.desk.store.writer.run(ClaimDeliveries("me", 60_000, due_lanes=200))
    took_s = time.process_time() - began
    with contextlib.closing(sqlite3.connect(at.desk.store.path)) as connection:
        connection.execute("DELETE FROM lanes")
        connection.commit()

    assert {wish.lane for wish in claimed.wishes} == {"sub_theirs", *(lane for lane, _, _ in rows[:199])}
    assert took_s < 0.25  # and 0.02 is usual, where looking at all takes a second


async def test_accounts_take_turns_when_lanes_are_claimed(at: Outage) -> None:
    """One with hundreds of lanes that have been due for long does not push another's out of a claim."""
    await at.publish(1)
    mine = [await at.subscribe(f"{WELL}/{number}") for number in range(8)]
    theirs = await at.desk.subscribe.create(THEIRS, SubscriptionRequest.read({"url": WELL}))
    for each in mine:
        await at.desk.backlog(each["id"], 1)
    at.clock.advance(60)
    await at.desk.publish(account_id=THEIRS)
    await at.desk.backlog(theirs["id"], 1)
    claimed = await at.desk.store.writer.run(ClaimDeliveries("me", 60_000, due_lanes=4))

    assert theirs["id"] in [wish.lane for wish in claimed.wishes]
    assert len(claimed.wishes) == 4
