"""Who holds which delivery: claiming what is due, and giving it back.

Lanes are claimed first, then their rows, so that one dead backlog hides nobody, and accounts take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from service.db.leases import Leased, free
from service.db.transaction import Params, Row, Tx, json_set
from service.db.writer import Command, Writer
from service.deliveries.lanes.held_bytes import Memory
from service.deliveries.lanes.queue import Sending
from service.deliveries.store import rest_lanes, settle_lanes, wake_lanes

LANES_AT_ONCE = 200  # due lanes that one claim fills
MANY_LANES = 1_000  # that are due: beyond, not all are looked at
LOOKED_AT = 1_000  # due lanes of one claim: those whose destination is left alone go to rest and give way to others
PER_LANE = 64  # deliveries of one claim, unless the lane asked for more itself
SMALL_BODY = 4_096  # bytes: read with its delivery; larger bodies are read once for all deliveries of their event
CANDIDATES = 200  # deliveries among which a try looks for one that has not failed yet


@dataclass(frozen=True, slots=True)
class Wish:
    """What a lane takes.

    Args:
        lane: Its id.
        count: How many deliveries.
        catch_up_to: What failed before this moment (ms UTC) is due whatever its schedule says: the destination is back.
        first: The delivery that goes before all others, if it is due.
        a_try: Whether it is to show that the destination is back: what has not failed yet goes before what has.
    """

    lane: str
    count: int
    catch_up_to: int | None = None
    first: str | None = None
    a_try: bool = False


@dataclass(frozen=True, slots=True)
class ClaimedDeliveries:
    """What was claimed, and what every lane that was looked at could have had.

    Args:
        rows: The deliveries.
        wishes: Of the lanes.
        bodies: Of the events, by their ids.
        cut: Lanes that got less than there is for want of memory.
    """

    rows: Sequence[Row]
    wishes: Sequence[Wish]
    bodies: Mapping[str, bytes] = field(default_factory=dict)
    cut: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ClaimDeliveries(Command[ClaimedDeliveries]):
    """Claim what is due and unowned.

    Args:
        wishes: The lanes to fill.
        due_lanes: How many further lanes to fill, whichever are due.
        full: Lanes that take nothing now.
        narrow: What those further lanes take that take less than the usual; nothing is looked at unless they are due.
        most: How much the further lanes may be given in all, but for one each.
        memory: Of this process, which has room for what is claimed.
        failing: Asked of each further lane: None is the usual, a wish is the try of a destination that keeps failing,
            a number the milliseconds for which it is left alone.
    """

    owner: str
    lease_ms: int
    wishes: tuple[Wish, ...] = ()
    due_lanes: int = 0
    full: tuple[str, ...] = ()
    narrow: tuple[Wish, ...] = ()
    most: int = PER_LANE * LANES_AT_ONCE
    memory: Memory = field(default_factory=Memory, repr=False)
    failing: Callable[[str], Wish | int | None] = lambda _lane: None

    def lock(self) -> Hashable | None:
        """Each claim must see what the one before took."""
        return "claim"


_IN_TURN = """
SELECT id, next_due_at, row_number() OVER (PARTITION BY account_id ORDER BY next_due_at) AS turn FROM lanes
"""
_IS_LANE_DUE = "next_due_at <= :now AND id NOT IN @set(:not)"
_ARE_MANY = "SELECT count(*) AS n FROM (SELECT 1 FROM lanes WHERE next_due_at <= :now LIMIT :many)"
# Accounts take turns: each one's lane that has been due longest, then each one's next.
_DUE_LANES = f"SELECT id FROM ({_IN_TURN} WHERE {_IS_LANE_DUE}) ORDER BY turn, next_due_at LIMIT :count"
# The same where so many are due that looking at all takes too long (a second for a hundred thousand): walks from account
# to account and looks at the first lanes of each, twice as many as are its share.
_DUE_LANES_OF_MANY = f"""
WITH RECURSIVE accounts (id) AS (
    SELECT (SELECT min(account_id) FROM lanes WHERE next_due_at IS NOT NULL)
    UNION ALL
    SELECT (SELECT min(account_id) FROM lanes WHERE next_due_at IS NOT NULL AND account_id > accounts.id) FROM accounts
    WHERE id IS NOT NULL
), share (n) AS MATERIALIZED (SELECT @greatest(1, 2 * :count / count(id)) FROM accounts)
SELECT id FROM ({_IN_TURN} WHERE id IN (
    SELECT l.id FROM accounts a JOIN lanes l ON l.id IN (
        SELECT id FROM lanes WHERE account_id = a.id AND {_IS_LANE_DUE} ORDER BY next_due_at LIMIT (SELECT n FROM share))))
ORDER BY turn, next_due_at LIMIT :count
"""
# The length of a blob is read without its bytes.
_COLUMNS = f"""
d.id, d.event_id, d.account_id, d.job_id, d.lane, d.url, d.subscription_id, d.attempt_count, d.schedule_base, d.lease_epoch, d.due_at,
    coalesce(d.retried_at, d.created_at) AS since, d.give_up_at, d.type, @typed(:lease_until, bigint) AS lease_until, e.at,
    length(e.body) AS size, CASE WHEN length(e.body) <= {SMALL_BODY} THEN e.body END AS body
"""
_BODIES = "SELECT id, body FROM events WHERE id IN @set(:ids)"
_FREE = f"d.status = 'pending' AND {free('d')}"
_FIRST_ROW = f"""
SELECT {_COLUMNS} FROM deliveries d JOIN events e ON e.id = d.event_id
WHERE d.id = :first AND d.lane = :lane AND d.due_at <= :now AND {_FREE} @skip_locked(d)
"""
_IS_DUE = "d.due_at <= :now"
# For a destination that is back: what waits for its turn on the schedule is taken ahead of it.
_IS_WAITING = "(d.due_at <= :now OR d.attempted_at < :catch_up_to)"
_LEASED = Leased("deliveries", ("id",), "status = 'pending'")


async def handle_claims(tx: Tx, commands: Sequence[ClaimDeliveries]) -> list[ClaimedDeliveries | Exception]:
    """The writer's handler for `ClaimDeliveries`."""
    [command] = commands
    wishes = list(command.wishes)
    if command.due_lanes:
        wishes += await _due_wishes(tx, command)
    if not wishes:
        return [ClaimedDeliveries([], [])]
    until = tx.now_ms + command.lease_ms
    found, cut = _that_fit(await _free_rows(tx, wishes, until), command.memory)
    _LEASED.claim(tx, found, command.owner, command.lease_ms)
    settle_lanes(tx, [wish.lane for wish in wishes])
    return [ClaimedDeliveries(found, wishes, await _bodies(tx, found, command.memory), cut)]


async def _due_wishes(tx: Tx, command: ClaimDeliveries) -> list[Wish]:
    """The wishes of the lanes that are due; those that nothing is sent to for now rest, so that no tick meets them again."""
    settled = json_set([*command.full, *(wish.lane for wish in command.wishes)])
    [lanes] = await tx.rows(_ARE_MANY, {"now": tx.now_ms, "many": MANY_LANES})
    sql = _DUE_LANES if lanes["n"] < MANY_LANES else _DUE_LANES_OF_MANY
    narrow = {wish.lane: wish for wish in command.narrow}
    due: list[Wish] = []
    resting: list[Params] = []
    for row in await tx.rows(sql, {"now": tx.now_ms, "not": settled, "count": LOOKED_AT}):
        if len(due) == command.due_lanes:
            break
        lane = row["id"]
        wish = narrow.get(lane) or command.failing(lane)
        if isinstance(wish, int):
            resting.append({"lane": lane, "until": tx.now_ms + wish})
        else:
            due.append(wish or Wish(lane, PER_LANE))
    rest_lanes(tx, resting)
    each = max(1, min(PER_LANE, command.most // max(1, len(due))))
    return [replace(wish, count=min(each, wish.count)) for wish in due]


def _that_fit(rows: Sequence[Row], memory: Memory) -> tuple[list[Row], frozenset[str]]:
    """Those for which there is memory, and the lanes that had to leave some in the store."""
    plan, taken, cut, fit = memory.plan(), set[str](), set[str](), list[Row]()
    for row in rows:
        lane = row["lane"]
        if lane in cut or not plan.has_room(row["account_id"], row["event_id"], row["size"], first=lane not in taken):
            cut.add(lane)
            continue
        taken.add(lane)
        fit.append(row)
    return fit, frozenset(cut)


async def _bodies(tx: Tx, rows: Sequence[Row], memory: Memory) -> dict[str, bytes]:
    bodies: dict[str, bytes] = {}
    missing: set[str] = set()
    for row in rows:
        event_id = row["event_id"]
        if event_id not in bodies and event_id not in missing:
            body = memory.body_of(event_id) or row["body"]
            if body is None:
                missing.add(event_id)
            else:
                bodies[event_id] = body
    if missing:
        bodies.update((row["id"], row["body"]) for row in await tx.rows(_BODIES, {"ids": json_set(missing)}))
    return bodies


async def _free_rows(tx: Tx, wishes: Sequence[Wish], until: int) -> list[Row]:
    first = [_asked(tx, wish, until) | {"first": wish.first} for wish in wishes if wish.first]
    found = await tx.rows_each(_FIRST_ROW, first) if first else []
    taken = {row["lane"]: row["id"] for row in found}
    rest = [wish for wish in wishes if wish.count > (wish.lane in taken)]
    asked: dict[str, list[Params]] = {}
    for wish in rest:
        asked.setdefault(_rows_for(wish), []).append(_asked(tx, wish, until))
    more = [row for sql, each in asked.items() for row in await tx.rows_each(sql, each)]
    return found + [row for row in more if row["id"] != taken.get(row["lane"])]


def _rows_for(wish: Wish) -> str:
    """Claims a lane's deliveries in the order in which they fall due.

    A try looks at the first of them only, since a lane may have any number: what has failed falls due after what came
    before it failed.
    """
    free = f"d.lane = :lane AND {_FREE} AND {_IS_DUE if wish.catch_up_to is None else _IS_WAITING}"
    if not wish.a_try:
        return f"SELECT {_COLUMNS} FROM deliveries d JOIN events e ON e.id = d.event_id WHERE {free} ORDER BY d.due_at LIMIT :count @skip_locked(d)"
    candidates = f"SELECT d.* FROM deliveries d WHERE {free} ORDER BY d.due_at LIMIT {CANDIDATES}"
    return (
        f"SELECT {_COLUMNS} FROM ({candidates}) d JOIN events e ON e.id = d.event_id "
        "ORDER BY d.attempted_at IS NOT NULL, d.due_at LIMIT :count @skip_locked(d)"
    )


def _asked(tx: Tx, wish: Wish, until: int) -> dict[str, object]:
    return {
        "lane": wish.lane,
        "now": tx.now_ms,
        "count": wish.count,
        "lease_until": until,
        "catch_up_to": wish.catch_up_to,
    }


@dataclass(frozen=True, slots=True)
class HeldDeliveries:
    """A delivery as its holder has it."""

    id: str
    account_id: str
    lane: str
    epoch: int
    due_at: int

    @classmethod
    def of(cls, sending: Sending) -> HeldDeliveries:
        """What the store has to know of it."""
        return cls(sending.delivery_id, sending.account_id, sending.lane, sending.epoch, sending.due_at)


@dataclass(frozen=True, slots=True)
class ReleaseDeliveries(Command[None]):
    """Leave deliveries in the store that were not sent: they are due as they were, and nobody's."""

    held: tuple[HeldDeliveries, ...]


async def handle_releases(tx: Tx, commands: Sequence[ReleaseDeliveries]) -> list[Exception | None]:
    """The writer's handler for `ReleaseDeliveries`."""
    held = sorted((each for command in commands for each in command.held), key=lambda each: each.lane)
    _LEASED.release(tx, [{"id": each.id, "epoch": each.epoch} for each in held])
    wake_lanes(tx, list(_woken(held)))
    return [None for _ in commands]


def _woken(held: Iterable[HeldDeliveries]) -> Iterable[Params]:
    for lane, those in groupby(held, key=lambda each: each.lane):
        all_of = list(those)
        yield {"lane": lane, "account_id": all_of[0].account_id, "due_at": min(each.due_at for each in all_of)}


def register(writer: Writer) -> None:
    """Name the handlers of this module's commands."""
    writer.handle(ClaimDeliveries, handle_claims)
    writer.handle(ReleaseDeliveries, handle_releases)
