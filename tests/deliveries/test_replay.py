"""Replays: exactly what is asked for is sent again, once, in bounded portions, and never beyond the account."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from service.clock import iso
from service.db.transaction import Tx
from service.db.writer import Command
from service.deliveries.replays import replay_store
from service.deliveries.replays.replay import Replays, bounded, next_batch
from service.deliveries.replays.replay_claim_store import ClaimReplays
from service.deliveries.replays.replay_store import AdvanceReplay
from service.deliveries.retention.retention_store import RemovePayloads
from service.deliveries.retention.retention_store import register as register_retention
from service.errors import Conflict, Invalid, NotFound
from service.scheduler.replayer import LEASE_MS, Replayer
from service.schemas.delivery_schemas import ReplayCountView, ReplayRequest, ReplayView
from service.subscriptions.subscription_commands import DisableSubscription
from tests.deliveries.desk import NEVER_MADE, OURS, THEIRS, Desk, desk

BEGIN = "2026-01-01T00:00:00Z"  # long before the desk's clock
NEVER_BEGUN = "rpl_0199a000-0000-7000-8000-00000000000f"
_EVENTS = """
INSERT INTO events (id, account_id, seq, type, source, at, pos, body) VALUES (:id, :account, 1, :type, 'api', :at, :pos, x'7b7d')
"""


@dataclass(frozen=True, slots=True)
class Sql(Command[None]):
    """A statement of a test, through the writer, since nobody else may write."""

    statement: str
    params: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Many(Command[None]):
    """So many events of an account at once that nobody was sent."""

    count: int
    account_id: str = OURS
    at: int | None = None


@dataclass(slots=True)
class Bench:
    """A desk with replays."""

    desk: Desk
    replays: Replays
    replayer: Replayer

    async def sql(self, statement: str, **params: Any) -> None:
        """Change the store behind everybody's back."""
        await self.desk.store.writer.run(Sql(statement, [params]))

    async def event(self, event_type: str = "job.completed", *, job: str | None = None, **more: Any) -> str:
        """An event a second later; its id. `job`: about a job of this name, made with the event's provider and tags."""
        self.desk.clock.advance(1)
        await self.desk.publish(event_type, **more)
        [[event_id]] = self.desk.rows("SELECT id FROM events ORDER BY pos DESC LIMIT 1")
        if job is not None:
            tags = "[" + ",".join(f'"{tag}"' for tag in sorted(more.get("tags", ()))) + "]"
            await self.sql(
                "INSERT INTO jobs (id, account_id, provider, operation, status, seq, input, job_metadata, tags, submit_tries, "
                "submit_failures, task_confirmed, cost_basis, result_count, polls, callbacks, hint_tries, poll_failures, "
                "not_found_polls, overdue, created_at, expires_at, due_at, lease_epoch) VALUES (:id, :account, :provider, "
                ":operation, 'queued', 1, '{}', '{}', :tags, 0, 0, 1, 'unknown', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)",
                id=job,
                account=more.get("account_id", OURS),
                provider=more.get("provider", "apimodels"),
                operation=more.get("operation", "generate"),
                tags=tags,
            )
            await self.sql("UPDATE events SET job_id = :job WHERE id = :id", job=job, id=event_id)
        return str(event_id)

    async def end(self, status: str, event_id: str | None = None) -> None:
        """What is pending ends so; of one event or of all."""
        if status == "delivered":
            await self.sql(
                "INSERT INTO attempts (delivery_id, at, status_code, duration_ms) SELECT id, 0, 204, 1 FROM deliveries "
                "WHERE status = 'pending' AND coalesce(:event, event_id) = event_id",
                event=event_id,
            )
        await self.sql(
            "UPDATE deliveries SET status = :status, finished_at = 1, due_at = NULL, lease_owner = NULL, lease_until = NULL, "
            "attempt_count = attempt_count + 1 WHERE status = 'pending' AND coalesce(:event, event_id) = event_id",
            status=status,
            event=event_id,
        )

    async def start(self, subscription_id: str, account_id: str = OURS, **body: Any) -> ReplayView:
        """Begin one, a second after the last event."""
        self.desk.clock.advance(1)
        asked = bounded(ReplayRequest.read({"since": BEGIN, **body}), self.desk.clock.now_ms())
        return await self.replays.start(account_id, subscription_id, asked)

    async def count(self, subscription_id: str, account_id: str = OURS, **body: Any) -> ReplayCountView:
        """Only count."""
        asked = bounded(ReplayRequest.read({"since": BEGIN, **body}), self.desk.clock.now_ms())
        return await self.replays.count(account_id, subscription_id, asked)

    async def replay(self, subscription_id: str, **body: Any) -> ReplayView:
        """Begin one and run it to its end."""
        begun = await self.start(subscription_id, **body)
        await self.replayer.run_once()
        return await self.replays.show(OURS, begun["id"])

    def pending(self, subscription_id: str) -> list[str]:
        """The events that wait to be sent to a subscription."""
        sql = "SELECT event_id FROM deliveries WHERE status = 'pending' AND subscription_id = ? ORDER BY event_id"
        return [row[0] for row in self.desk.rows(sql, subscription_id)]


async def _handle_sql(tx: Tx, commands: Sequence[Sql]) -> list[Exception | None]:
    for command in commands:
        tx.write(command.statement, command.params)
    return [None for _ in commands]


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Bench]:
    """An open store with two accounts, and replays."""
    async with desk(tmp_path) as opened:
        writer, reader = opened.store.writer, opened.store.reader

        async def many(tx: Tx, commands: Sequence[Many]) -> list[Exception | None]:
            for command in commands:
                rows = [
                    {
                        "id": opened.ids.new("evt"),
                        "account": command.account_id,
                        "type": "job.completed",
                        "at": tx.now_ms if command.at is None else command.at,
                        "pos": tx.number(),
                    }
                    for _ in range(command.count)
                ]
                tx.write(_EVENTS, rows)
            return [None for _ in commands]

        writer.handle(Sql, _handle_sql)
        writer.handle(Many, many)
        register_retention(writer)
        replay_store.register(writer, opened.ids, opened.fanout.lanes.left_in_store)
        replays = Replays(writer, reader, opened.ids, opened.clock)
        yield Bench(opened, replays, Replayer(writer, reader, opened.clock, "me"))


async def test_replay_sends_all_that_ended_and_what_was_missed(at: Bench) -> None:
    """Delivered, dead and skipped rows are used again, an event from before the subscription gets one; pending is left alone."""
    early = await at.event()
    one = (await at.desk.make())["id"]
    delivered, dead, skipped, waiting = [await at.event() for _ in range(4)]
    for event, status in ((delivered, "delivered"), (dead, "dead"), (skipped, "skipped")):
        await at.end(status, event)
    before = dict(at.desk.rows("SELECT event_id, id FROM deliveries"))
    done = await at.replay(one)
    after = dict(at.desk.rows("SELECT event_id, id FROM deliveries"))

    assert (done["status"], done["total"], done["looked_at"], done["queued"]) == ("done", 5, 5, 4)
    assert at.pending(one) == [early, delivered, dead, skipped, waiting]
    assert {event: after[event] for event in before} == before
    assert (done["backlog"], done["reason"]) == (5, None)
    assert done["finished_at"] is not None


async def test_replay_begins_the_schedule_anew(at: Bench) -> None:
    """A delivery that used up its schedule has all of it again, is due now and nobody's, and a stale holder has no say."""
    one = (await at.desk.make())["id"]
    await at.event()
    await at.end("dead")
    [[epoch]] = at.desk.rows("SELECT lease_epoch FROM deliveries")
    await at.replay(one)
    now = at.desk.clock.now_ms()
    sql = (
        "SELECT attempt_count, schedule_base, retried_at, due_at, finished_at, lease_owner, lease_epoch FROM deliveries"
    )

    assert [tuple(row) for row in at.desk.rows(sql)] == [(1, 1, now, now, None, None, epoch + 1)]
    assert at.desk.rows("SELECT next_due_at FROM lanes WHERE id = ?", one) == [(now,)]
    assert one in at.desk.fanout.lanes.hungry


@pytest.mark.parametrize("status", ["delivered", "dead", "skipped", "missing"])
async def test_replay_takes_only_the_statuses_that_were_named(at: Bench, status: str) -> None:
    """One word, one kind; the count says the same before."""
    events = {"missing": await at.event()}
    one = (await at.desk.make())["id"]
    for each in ("delivered", "dead", "skipped"):
        events[each] = await at.event()
        await at.end(each)
    at.desk.clock.advance(1)
    counted = await at.count(one, status=[status])
    done = await at.replay(one, status=[status])

    assert (counted["count"], counted["by_status"]) == (1, {status: 1})
    assert (done["queued"], done["statuses"]) == (1, [status])
    assert at.pending(one) == [events[status]]


async def test_replay_follows_the_filters_of_the_subscription(at: Bench) -> None:
    """Provider, operation and tag as when it was sent first; events about no job pass; the types may be others."""
    ours: dict[str, Any] = {"provider": "apimodels", "operation": "generate", "tags": frozenset({"shop", "x"})}
    fits = await at.event(job="job_1", **ours)
    await at.event(job="job_2", **(ours | {"provider": "sharkai"}))
    await at.event(job="job_3", **(ours | {"operation": "edit"}))
    await at.event(job="job_4", **(ours | {"tags": frozenset({"other"})}))
    about_no_job = await at.event()
    running = await at.event("job.running", job="job_5", **ours)
    filters: dict[str, Any] = {"providers": ["apimodels"], "operations": ["generate"], "tags": ["shop", "spring"]}
    one = (await at.desk.make(**filters))["id"]
    counted = await at.count(one, until=iso(at.desk.clock.now_ms()), types=["job.completed"])
    await at.replay(one)
    own = at.pending(one)
    await at.replay(one, types=["job.running"])

    assert counted["count"] == 2
    assert own == [fits, about_no_job]
    assert at.pending(one) == [fits, about_no_job, running]
    # The jobs are a test's: they have no timeline.
    await at.sql("UPDATE events SET job_id = NULL")
    await at.sql("DELETE FROM jobs")


async def test_replay_never_repeats_a_ping(at: Bench) -> None:
    """Neither its own nor another subscription's, even where the subscription is sent pings as events."""
    one, other = (await at.desk.make())["id"], (await at.desk.make())["id"]
    await at.desk.subscribe.ping(OURS, one)
    await at.desk.subscribe.ping(OURS, other)
    await at.end("dead")
    done = await at.replay(one)

    assert (done["total"], done["queued"]) == (2, 0)
    with pytest.raises(Invalid, match=r"/types/0: must be one of job\.submitted"):
        await at.start(one, types=["ping"])


async def test_replay_range_includes_its_beginning_and_not_its_end(at: Bench) -> None:
    """An event at `since` is in, one at `until` is not, and the future is cut off."""
    moments, events = [], []
    for _ in range(4):
        events.append(await at.event())
        moments.append(at.desk.clock.now_ms())
    one = (await at.desk.make())["id"]
    done = await at.replay(one, since=iso(moments[1]), until=iso(moments[3]))
    late = await at.start(one, since=iso(moments[0]), until="2999-01-01T00:00:00Z")

    assert (done["total"], done["queued"]) == (2, 2)
    assert at.pending(one) == events[1:3]
    assert late["until"] == iso(at.desk.clock.now_ms())


async def test_replay_range_is_exact_though_the_clock_was_stepped(at: Bench) -> None:
    """Of ten thousand events those of the range are found, also those that were written behind later ones."""
    now = at.desk.clock.now_ms()
    for hour in range(5):
        await at.desk.store.writer.run(Many(2_000, at=now + hour * 7_200_000))
    await at.desk.store.writer.run(Many(3, at=now + 4 * 7_200_000 - 3_000_000))
    await at.desk.store.writer.run(Many(4, account_id=THEIRS, at=now + 4 * 7_200_000 - 3_000_000))
    at.desk.clock.advance(40_000)
    one = (await at.desk.make())["id"]
    counted = await at.count(one, since=iso(now + 4 * 7_200_000 - 3_600_000), until=iso(now + 4 * 7_200_000))
    done = await at.replay(one, since=iso(now + 4 * 7_200_000 - 3_600_000), until=iso(now + 4 * 7_200_000))

    assert counted["count"] == 3
    assert (done["total"], done["looked_at"], done["queued"]) == (3, 3, 3)


async def test_replay_sends_what_was_skipped_while_disabled(at: Bench) -> None:
    """Disabled, enabled, replayed: nothing that happened meanwhile is lost."""
    one = (await at.desk.make())["id"]
    await at.event()
    await at.desk.store.writer.run(DisableSubscription(one, OURS, "410"))
    missed = await at.event()
    with pytest.raises(Conflict, match="enable it first") as refused:
        await at.start(one)
    await at.desk.subscribe.enable(OURS, one)
    done = await at.replay(one, status=["skipped"])

    assert refused.value.code == "subscription_disabled"
    assert done["queued"] == 2
    assert missed in at.pending(one)


async def test_replay_leaves_room_for_what_is_live(at: Bench) -> None:
    """Never more than a thousand wait; as the destination takes them, the next ones follow, each once."""
    await at.desk.store.writer.run(Many(2_300))
    one = (await at.desk.make())["id"]
    begun = await at.start(one)
    seen: Counter[str] = Counter()
    portions = []
    while True:
        await at.replayer.run_once()
        pending = at.pending(one)
        if not pending:
            break
        portions.append(len(pending))
        seen.update(pending)
        await at.end("delivered")
        at.desk.clock.advance(1)
    done = await at.replays.show(OURS, begun["id"])

    assert portions == [1_000, 1_000, 300]
    assert len(seen) == 2_300
    assert set(seen.values()) == {1}
    assert (done["status"], done["queued"], done["looked_at"]) == ("done", 2_300, 2_300)


async def test_replay_waits_while_its_lane_is_full(at: Bench) -> None:
    """A dead destination's replay adds nothing to its backlog, and holds up no other's."""
    await at.desk.store.writer.run(Many(1_500))
    dead, sound = (await at.desk.make())["id"], (await at.desk.make())["id"]
    stuck = await at.replay(dead)
    more = await at.replay(dead)
    done = await at.replay(sound, status=["missing"], until=iso(at.desk.clock.now_ms()))
    await at.end("delivered")
    at.desk.clock.advance(10)
    await at.replayer.run_once()

    assert (stuck["status"], stuck["queued"], stuck["backlog"]) == ("running", 1_000, 1_000)
    assert (more["status"], more["queued"]) == ("running", 0)
    assert (done["status"], done["queued"]) == ("running", 1_000)
    assert (await at.replays.show(OURS, stuck["id"]))["queued"] == 1_500
    assert (await at.replays.show(OURS, done["id"]))["queued"] == 1_500


async def test_replay_goes_on_where_a_killed_process_left_it(at: Bench) -> None:
    """Cut off between its batches and in the middle of one: the next process queues the rest, and nothing twice."""
    await at.desk.store.writer.run(Many(900))
    one = (await at.desk.make())["id"]
    begun = await at.start(one)
    writer, reader = at.desk.store.writer, at.desk.store.reader
    [claimed] = await writer.run(ClaimReplays("killed", LEASE_MS, 8))
    await writer.run(await next_batch(reader, claimed))
    [claimed] = await writer.run(ClaimReplays("killed", LEASE_MS, 8))
    late = await next_batch(reader, claimed)
    half = await at.replays.show(OURS, begun["id"])
    await Replayer(writer, reader, at.desk.clock, "next").run_once()
    told = await writer.run(late)
    done = await at.replays.show(OURS, begun["id"])

    assert (half["status"], half["queued"], half["looked_at"]) == ("running", 500, 500)
    assert told is False
    assert (done["status"], done["queued"]) == ("done", 900)
    assert at.desk.rows("SELECT count(*), count(DISTINCT event_id) FROM deliveries") == [(900, 900)]


async def test_delivery_that_was_written_since_a_replay_looked_is_not_written_again(at: Bench) -> None:
    """As a part of a fan-out does, whose event could be seen before."""
    await at.desk.store.writer.run(Many(3))
    one = (await at.desk.make())["id"]
    begun = await at.start(one)
    writer, reader = at.desk.store.writer, at.desk.store.reader
    [claimed] = await writer.run(ClaimReplays("me", LEASE_MS, 8))
    batch = await next_batch(reader, claimed)
    await at.desk.backlog(one, 1)  # of the newest of the three
    await writer.run(batch)

    assert at.desk.rows("SELECT count(*), count(DISTINCT event_id) FROM deliveries") == [(3, 3)]
    assert (await at.replays.show(OURS, begun["id"]))["queued"] == 2


async def test_replay_under_a_lapsed_lease_gets_nothing_done(at: Bench) -> None:
    """Two replays of one subscription never work at once, whichever process holds them."""
    await at.desk.store.writer.run(Many(20))
    one = (await at.desk.make())["id"]
    await at.start(one)
    await at.start(one)
    writer, reader = at.desk.store.writer, at.desk.store.reader
    [first] = await writer.run(ClaimReplays("slow", LEASE_MS, 8))
    batch = await next_batch(reader, first)
    meanwhile = await writer.run(ClaimReplays("other", LEASE_MS, 8))
    at.desk.clock.advance(LEASE_MS / 1000)
    [again] = await writer.run(ClaimReplays("other", LEASE_MS, 8))
    stale = await writer.run(batch)
    fresh = await writer.run(await next_batch(reader, again))

    assert (meanwhile, again["id"]) == ([], first["id"])
    assert (stale, fresh) == (False, True)
    assert len(at.pending(one)) == 20


async def test_equal_replays_queue_nothing_twice(at: Bench) -> None:
    """The second one finds everything pending and leaves it alone."""
    await at.desk.store.writer.run(Many(700))
    one = (await at.desk.make())["id"]
    begun = [await at.start(one) for _ in range(2)]
    await at.replayer.run_once()
    done = [await at.replays.show(OURS, each["id"]) for each in begun]

    assert [each["status"] for each in done] == ["done", "done"]
    assert [each["queued"] for each in done] == [700, 0]
    assert at.desk.rows("SELECT count(*) FROM deliveries") == [(700,)]


async def test_replay_waits_while_disabled_and_ends_with_its_subscription(at: Bench) -> None:
    """Enabled again it goes on; deleted, it is cancelled with the reason."""
    await at.desk.store.writer.run(Many(1_200))
    one = (await at.desk.make())["id"]
    begun = await at.replay(one)
    await at.desk.store.writer.run(DisableSubscription(one, OURS, "410"))
    at.desk.clock.advance(10)
    await at.replayer.run_once()
    disabled = await at.replays.show(OURS, begun["id"])
    await at.desk.subscribe.enable(OURS, one)
    at.desk.clock.advance(10)
    await at.replayer.run_once()
    enabled = await at.replays.show(OURS, begun["id"])
    other = await at.start(one)
    await at.desk.subscribe.delete(OURS, one)
    await at.replayer.run_once()
    deleted = await at.replays.show(OURS, other["id"])

    assert (disabled["status"], disabled["queued"]) == ("running", 1_000)
    assert (enabled["status"], enabled["queued"]) == ("done", 1_200)
    assert (deleted["status"], deleted["reason"], deleted["queued"]) == ("cancelled", "subscription_deleted", 0)


async def test_replay_leaves_alone_what_changed_since_it_looked(at: Bench) -> None:
    """What was retried, or lost its bytes, between the look and the batch is not queued again."""
    one = (await at.desk.make())["id"]
    retried, gone, dead = [await at.event() for _ in range(3)]
    await at.end("dead")
    late = await at.event()
    await at.sql("DELETE FROM deliveries WHERE event_id = :id", id=late)
    begun = await at.start(one)
    [claimed] = await at.desk.store.writer.run(ClaimReplays("me", LEASE_MS, 8))
    batch = await next_batch(at.desk.store.reader, claimed)
    await at.sql(
        "UPDATE deliveries SET status = 'pending', due_at = 7, finished_at = NULL WHERE event_id = :id", id=retried
    )
    await at.sql("INSERT INTO lanes (id, account_id, next_due_at) VALUES (:id, 'x', 7)", id=one)
    await at.sql("UPDATE events SET pos = NULL, body = NULL WHERE id IN (:gone, :late)", gone=gone, late=late)
    await at.desk.store.writer.run(batch)
    done = await at.replays.show(OURS, begun["id"])

    assert len(batch.found) == 4
    assert done["queued"] == 1
    assert at.pending(one) == [retried, dead]


async def test_replay_ends_where_retention_has_removed_the_bytes(at: Bench) -> None:
    """What left the feed is not counted and not sent; what is younger is."""
    one = (await at.desk.make())["id"]
    await at.event()
    await at.end("delivered")
    at.desk.clock.advance(100)
    border = at.desk.clock.now_ms()
    kept = await at.event()
    await at.end("delivered")
    await at.desk.store.writer.run(RemovePayloads(border))
    at.desk.clock.advance(1)
    counted = await at.count(one)
    done = await at.replay(one)

    assert counted["count"] == 1
    assert (done["total"], done["queued"]) == (1, 1)
    assert at.pending(one) == [kept]


async def test_replay_crosses_no_account(at: Bench) -> None:
    """Another account's events are not sent, and its subscriptions and replays are not there."""
    await at.desk.publish(account_id=THEIRS)
    ours, theirs = (await at.desk.make())["id"], (await at.desk.make(THEIRS))["id"]
    done = await at.replay(ours)
    for refused in (theirs, NEVER_MADE):
        with pytest.raises(NotFound):
            await at.start(refused)
        with pytest.raises(NotFound):
            await at.count(refused)
    for wrong in (at.replays.show(THEIRS, done["id"]), at.replays.cancel(THEIRS, done["id"])):
        with pytest.raises(NotFound):
            await wrong

    assert (done["total"], done["queued"]) == (0, 0)
    with pytest.raises(NotFound):
        await at.replays.cancel(OURS, NEVER_BEGUN)


async def test_cancelled_replay_queues_no_more(at: Bench) -> None:
    """Not even the batch that is out; what was queued is sent; the subscription's next replay goes on at once."""
    await at.desk.store.writer.run(Many(600))
    one = (await at.desk.make())["id"]
    begun, other = await at.start(one), await at.start(one)
    [claimed] = await at.desk.store.writer.run(ClaimReplays("me", LEASE_MS, 8))
    batch = await next_batch(at.desk.store.reader, claimed)
    cancelled = await at.replays.cancel(OURS, begun["id"])
    again = await at.replays.cancel(OURS, begun["id"])
    told = await at.desk.store.writer.run(batch)
    await at.replayer.run_once()
    done = await at.replays.show(OURS, other["id"])

    assert (cancelled["status"], cancelled["reason"], cancelled["queued"]) == ("cancelled", "cancelled", 0)
    assert again == cancelled
    assert told is False
    assert (done["status"], done["queued"]) == ("done", 600)
    with pytest.raises(Conflict, match="is done"):
        await at.replays.cancel(OURS, other["id"])


async def test_running_replays_are_bounded(at: Bench) -> None:
    """Ten of a subscription; one that ends makes room."""
    one, other = (await at.desk.make())["id"], (await at.desk.make())["id"]
    begun = [await at.start(one) for _ in range(10)]
    with pytest.raises(Conflict, match="wait for one to end, or cancel one") as refused:
        await at.start(one)
    await at.start(other)
    await at.replays.cancel(OURS, begun[3]["id"])
    await at.start(one)

    assert refused.value.code == "too_many_replays"


async def test_dry_run_counts_what_a_replay_then_queues(at: Bench) -> None:
    """The same number, by what became of the events here, over several looks; and nothing is written."""
    one = (await at.desk.make())["id"]
    for status in ("delivered", "dead", "dead", "skipped"):
        await at.event()
        await at.end(status)
    await at.event()
    await at.desk.store.writer.run(Many(900))
    at.desk.clock.advance(1)
    counted = await at.count(one, until=iso(at.desk.clock.now_ms()))
    untouched = at.desk.rows("SELECT (SELECT count(*) FROM replays), (SELECT count(*) FROM deliveries)")
    done = await at.replay(one, until=iso(at.desk.clock.now_ms()))

    assert counted["by_status"] == {"delivered": 1, "dead": 2, "skipped": 1, "missing": 900}
    assert counted["count"] == done["queued"] == 904
    assert (counted["dry_run"], counted["since"]) == (True, "2026-01-01T00:00:00.000Z")
    assert untouched == [(0, 5)]


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ([], [""]),
        ({}, ["/since"]),
        ({"since": 1}, ["/since"]),
        ({"since": "yesterday"}, ["/since"]),
        ({"since": "2026-11-21T10:00:00"}, ["/since"]),
        ({"since": "1969-01-01T00:00:00Z"}, ["/since"]),
        ({"since": "2999-01-01T00:00:00Z"}, ["/since"]),
        ({"since": BEGIN, "until": BEGIN}, ["/since"]),
        ({"since": BEGIN, "until": {}}, ["/until"]),
        ({"since": BEGIN, "types": []}, ["/types"]),
        ({"since": BEGIN, "types": "job.completed"}, ["/types"]),
        (
            {"since": BEGIN, "types": ["job.completed", "job.done", 7, [], "ping"]},
            [f"/types/{n}" for n in (1, 2, 3, 4)],
        ),
        ({"since": BEGIN, "status": []}, ["/status"]),
        ({"since": BEGIN, "status": ["dead", "pending"]}, ["/status/1"]),
        ({"since": BEGIN, "dry_run": 1}, ["/dry_run"]),
        ({"since": BEGIN, "a/b": 1, "Until": BEGIN}, ["/a~1b", "/Until"]),
    ],
)
def test_bad_replay_is_refused_with_pointers(body: object, pointers: list[str]) -> None:
    """Every fault is told at once, with where it is."""
    with pytest.raises(Invalid) as refused:
        bounded(ReplayRequest.read(body), 1_795_000_000_000)

    assert [each.pointer for each in refused.value.errors] == pointers


def test_replay_request_has_its_defaults() -> None:
    """Up to now, the subscription's own types, whatever became of them; null counts as left out."""
    body = {"since": BEGIN, "until": None, "types": None, "status": None, "dry_run": None}
    asked = bounded(ReplayRequest.read(body), 1_795_000_000_000)

    assert (asked.until, asked.types, asked.statuses, asked.dry_run) == (1_795_000_000_000, (), (), False)


async def test_a_waiting_replay_costs_one_small_write(at: Bench) -> None:
    """Where nothing is due nothing is claimed; a replay that waits is not looked at before its time."""
    await at.desk.store.writer.run(Many(1_100))
    one = (await at.desk.make())["id"]
    await at.replay(one)
    at.desk.clock.advance(1)
    batches = [await at.replayer.run_once() for _ in range(3)]
    [[due_at]] = at.desk.rows("SELECT due_at FROM replays")

    assert batches == [0, 0, 0]
    assert due_at == at.desk.clock.now_ms() + 500
    assert AdvanceReplay("rpl_1", 1).lock() is None


async def test_a_look_stays_short_where_an_event_has_many_deliveries(at: Bench) -> None:
    """With very many subscriptions a look takes fewer events; what it finds, and what it counts, is the same."""
    await at.desk.store.writer.run(Many(130))
    one = (await at.desk.make())["id"]
    await at.sql(
        "INSERT INTO subscriptions (id, account_id, url, description, events, providers, operations, tags, max_in_flight, "
        "signatures, status, secret, created_at) WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 4999) "
        "SELECT 'sub_' || n, :account, '', '', '[]', '[]', '[]', '[]', 1, '[]', 'disabled', x'00', 0 FROM n",
        account=OURS,
    )
    begun = await at.start(one)
    [claimed] = await at.desk.store.writer.run(ClaimReplays("me", LEASE_MS, 8))
    batch = await next_batch(at.desk.store.reader, claimed)
    counted = await at.count(one)
    await at.desk.store.writer.run(batch)
    await at.replayer.run_once()
    done = await at.replays.show(OURS, begun["id"])

    assert (batch.looked_at, len(batch.found)) == (40, 40)
    assert counted["count"] == 130
    assert (done["status"], done["looked_at"], done["queued"]) == ("done", 130, 130)
