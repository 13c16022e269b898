"""How long tasks take, learned from what this process sees, per provider, operation and model.

It owns the histograms and forgets with every observation; it must not know the store (rows come in by `warm`) nor how a
job moves. Nothing here is needed for a job to end well: without it the card's own figures hold.

What polling sees is not the moment but a stretch: after the last poll that said running, up to the first that said done.
Such an observation is shared out over its stretch in proportion to what is known already (the self-consistent estimate of
Turnbull 1976, one step per observation), with a little for what would be new.

A hole in a histogram only says that nothing was seen there yet. So a part of what is unseen is spread over all ages that
are planned for; and whatever the histogram says, `Durations.quiet` tells where a plan may rely on it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import accumulate
from math import floor, inf, log2
from typing import Any, NamedTuple

import msgspec

from service.polling.pace import Rules
from service.polling.plan import POLL_PRICE_MS, Cell, Quiet, latest_ms, plan

MOST_KINDS = 512  # kinds of task that are remembered, the least recently used goes first; about 10 KB each
_MOST_MODEL = 100  # characters of a model's name that tell kinds apart; callers choose it

_FIRST_MS = 250.0  # the first bin ends here; nothing is told apart below
_PER_OCTAVE = 12  # bins: each is 6 % wider than the one before
_BINS = 270  # up to 17 days
_EDGES = array("d", [0.0, *(_FIRST_MS * 2 ** (at / _PER_OCTAVE) for at in range(_BINS))])

_MEMORY = 120  # an observation's weight falls to 1/e over this many later ones
_FEW = 5  # observations below which the documented cadence is kept
_CARD = 1.0  # observations that the card's typical duration counts for
_NEWS = 0.02  # observations a bin is credited with when a stretch is shared out, so that what is new is believed
_STRETCH_LIMIT = 8.0  # a stretch is taken to begin at no less than this fraction of its end
_SMOOTH = 0.2  # of a bin goes to either neighbour, or the plan would follow the accidents of a hundred observations
_UNSEEN = 0.5  # observations' worth that is spread over all ages that are planned for, and as much beyond them
_NOISE = 0.002  # of an observation: the first and the last bin with more are where plans begin and end
_LATEST = 30  # tasks, below the quickest of which a plan may assume that nothing ends …
_HALF = 0.5  # … but for one poll at this part of it
_TARDY = 0.5  # of a cadence, by which polls may come later than planned: they are answered in time, not at once
_LATE = 0.95  # share of tasks that have ended when a callback is called late
_EARLY = 0.1  # share of tasks that have ended by an age …
_AS_LONG_AGAIN = 2.0  # … that is waited so many times for a callback, at most, on top of the wait from the settings
_ENOUGH = 20  # observations, before the fallback behind callbacks is put off
_STALE = 25  # observations at most, before a plan is made anew; earlier while there are few


class TaskKind(NamedTuple):
    """What tasks must have in common for their durations to tell of each other."""

    provider: str
    operation: str
    model: str


class _Named(msgspec.Struct):
    model: Any = None


_named = msgspec.json.Decoder(_Named)


def kind_of(provider: str, operation: str, job_input: str) -> TaskKind:
    """The kind of a job, whose input is a JSON object that may name a model."""
    model = _named.decode(job_input).model
    return TaskKind(provider, operation, model[:_MOST_MODEL] if isinstance(model, str) else "")


class Durations:
    """The durations of one kind of task: a histogram over bins of equal ratio, which forgets exponentially."""

    def __init__(self, typical_ms: int) -> None:
        self.seen = 0
        self._weight = 1.0  # of the next observation; it grows instead of all others shrinking
        self._mass = array("d", bytes(8 * _BINS))
        self._begins: deque[float] = deque(maxlen=_LATEST)  # ages from which on the latest tasks may have ended
        self._doubt_ms = inf  # likewise the last one, where it was found late
        first, last = _bin(typical_ms / 8), _bin(typical_ms * 2)
        for at in range(first, last + 1):
            self._mass[at] = _CARD / (last + 1 - first)

    def record(self, running_ms: float, done_ms: float, cadence_ms: int = 0) -> None:
        """A task ended between these ages; equal ones say exactly when.

        Args:
            running_ms: Age at which it still ran; 0: nobody looked.
            done_ms: Age at which it had ended.
            cadence_ms: The wait between polls that the provider documents.
        """
        self.seen += 1
        self._age()
        begin_ms = max(running_ms, done_ms / _STRETCH_LIMIT)
        self._note_lateness(running_ms, begin_ms, done_ms, cadence_ms)
        first, last = _bin(begin_ms), _bin(done_ms)
        if first >= last:
            self._mass[last] += self._weight
            return
        shares = self._shares(begin_ms, done_ms)
        scale = self._weight / sum(shares)
        for at, share in enumerate(shares, first):
            self._mass[at] += share * scale

    def cells(self) -> list[Cell]:
        """The shares of tasks by age, without a hole; a little is left for what takes longer than all."""
        least = _NOISE * self._weight
        unseen = _UNSEEN * self._weight
        around = zip([0.0, *self._mass[:-1]], self._mass, [*self._mass[1:], 0.0], strict=True)
        smooth = [_SMOOTH * (before + after) + (1 - 2 * _SMOOTH) * mass for before, mass, after in around]
        some = [at for at, mass in enumerate(smooth) if mass > least]
        first, last = min(some[0], _bin(_HALF * self._quickest_ms())), some[-1]
        total = sum(smooth[first : last + 1]) + 2 * unseen
        new = unseen / (last + 1 - first)
        return [Cell(_EDGES[at], _EDGES[at + 1], (smooth[at] + new) / total) for at in range(first, last + 1)]

    def quiet(self, cadence_ms: int) -> tuple[Quiet, Quiet]:
        """When a plan may assume that nothing ends: before the quickest of the latest tasks, but for one poll.

        That poll finds tasks that have become twice as fast. Where the last task was found in a wait longer than the
        bound allows, it may have ended long before, and the next one is asked for as if it had.
        """
        quickest_ms = min(self._quickest_ms(), self._doubt_ms)
        half_ms = min(_HALF * self._quickest_ms(), self._doubt_ms)
        return Quiet(0.0, half_ms), Quiet(floor(latest_ms(half_ms, cadence_ms)), quickest_ms)

    def late_ms(self, fallback_after_ms: int = 0) -> int:
        """The age from which on a callback is late: nearly all tasks have ended.

        Where durations differ much, the callback of a quick task that was lost is not waited for as long as the slow
        ones take: nine lost callbacks in ten are missed after `fallback_after_ms` and as long again as the task took.
        """
        return round(min(self._age_by(_LATE), fallback_after_ms + _AS_LONG_AGAIN * self._age_by(_EARLY)))

    def _note_lateness(self, running_ms: float, begin_ms: float, done_ms: float, cadence_ms: int) -> None:
        """Remember from which age on the task may have ended, and whether that is longer ago than the bound allows."""
        due_ms = done_ms - _TARDY * cadence_ms
        if due_ms <= latest_ms(running_ms, cadence_ms):
            self._doubt_ms = inf
            self._begins.append(begin_ms)
            return
        # Whatever took half as long as the quickest was in time at the one poll before; only what is left is doubtful.
        found_late = due_ms > latest_ms(max(running_ms, _HALF * self._quickest_ms()), cadence_ms)
        self._doubt_ms = running_ms if found_late else inf
        self._begins.append(self._likely_ms(begin_ms, done_ms))

    def _shares(self, begin_ms: float, done_ms: float) -> list[float]:
        """How likely a task ended in each of the bins of a stretch of more than one, in proportion."""
        first, last = _bin(begin_ms), _bin(done_ms)
        shares = [each + _NEWS * self._weight for each in self._mass[first : last + 1]]
        shares[0] *= _part(first, begin_ms, _EDGES[first + 1])
        shares[-1] *= _part(last, _EDGES[last], done_ms)
        return shares

    def _likely_ms(self, begin_ms: float, done_ms: float) -> float:
        """An age in a stretch before and after which a task ended about as likely; rather too early than too late."""
        so_far = list(accumulate(self._shares(begin_ms, done_ms)))
        return max(begin_ms, _EDGES[_bin(begin_ms) + bisect_left(so_far, so_far[-1] / 2)])

    def _quickest_ms(self) -> float:
        return min(self._begins, default=0.0)

    def _age_by(self, share: float) -> float:
        """The age at which this share of tasks has ended, up to the end of its bin."""
        ended = list(accumulate(self._mass))
        return _EDGES[min(bisect_left(ended, share * ended[-1]), _BINS - 1) + 1]

    def _age(self) -> None:
        self._weight *= 1.0 + 1.0 / _MEMORY
        if self._weight > 1e9:  # any large number: floats keep their precision far beyond
            self._mass = array("d", [mass / self._weight for mass in self._mass])
            self._weight = 1.0


def _bin(age_ms: float) -> int:
    """The bin in which an age lies; its end belongs to it."""
    if age_ms <= _FIRST_MS:
        return 0
    # An age that is the end of a bin may be rounded into the next one, which is as good.
    return min(_BINS - 1, 1 + int(_PER_OCTAVE * log2(age_ms / _FIRST_MS)))


def _part(at: int, begin_ms: float, end_ms: float) -> float:
    """How much of a bin the stretch covers; never quite nothing, since what is shared out must go somewhere."""
    return min(1.0, max(1e-9, (end_ms - begin_ms) / (_EDGES[at + 1] - _EDGES[at])))


@dataclass(slots=True)
class _Known:
    """A kind's durations, and the rules that follow from them until enough is new."""

    durations: Durations
    base: Rules
    rules: Rules | None = None
    planned_at: int = 0  # observations seen by then
    bounded_at: int = 0  # likewise, when the plan's bound was looked at last


@dataclass(slots=True)
class Learned:
    """What is known of all kinds; one per process, in memory, bounded.

    Args:
        price_ms: What a poll is worth in delay, see `plan.POLL_PRICE_MS`.
        most_kinds: How many kinds are remembered.
    """

    price_ms: float = POLL_PRICE_MS
    most_kinds: int = MOST_KINDS
    _kinds: OrderedDict[TaskKind, _Known] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        """How many kinds are remembered."""
        return len(self._kinds)

    def record(self, kind: TaskKind, base: Rules, running_ms: int, done_ms: int) -> None:
        """A provider ended a task.

        Args:
            kind: What the task is of.
            base: The rules from card and settings, the same object as for `rules`.
            running_ms: Age of the submission when a poll last said running; 0: none did. With a callback or the
                provider's own time: as `done_ms`.
            done_ms: Age when it was first known to have ended.
        """
        if base.can_poll and done_ms > 0:
            self._known(kind, base).durations.record(min(max(running_ms, 0), done_ms), done_ms, base.poll_every_ms)

    def rules(self, kind: TaskKind, base: Rules) -> Rules:
        """The rules from card and settings, with what was learned about polling."""
        if not base.can_poll:
            return base
        known = self._known(kind, base)
        seen = known.durations.seen
        if known.rules is None or seen - known.planned_at >= min(_STALE, 1 + seen // 8):
            known.rules = self._learned(known.durations, base)
            known.planned_at = known.bounded_at = seen
        elif known.bounded_at != seen:
            known.rules = _bounded(known.rules, known.durations)
            known.bounded_at = seen
        return known.rules

    def warm(self, rows: Iterable[tuple[TaskKind, Rules, int, int]]) -> None:
        """After a start, what the store remembers: arguments of `record`, oldest first."""
        for row in rows:
            self.record(*row)

    def _known(self, kind: TaskKind, base: Rules) -> _Known:
        known = self._kinds.get(kind)
        if known is None:
            known = self._kinds[kind] = _Known(Durations(base.typical_ms), base)
            if len(self._kinds) > self.most_kinds:
                self._kinds.popitem(last=False)
        else:
            self._kinds.move_to_end(kind)
        if known.base is not base:  # the same card with other settings
            known.base, known.rules = base, None
        return known

    def _learned(self, durations: Durations, base: Rules) -> Rules:
        if not base.called_back:
            if durations.seen < _FEW:  # a plan made of the card's guess alone would let short tasks wait for long ones
                return base
            cells, quiet = durations.cells(), durations.quiet(base.poll_every_ms)
            return replace(base, schedule=plan(cells, base.poll_every_ms, self.price_ms, quiet))
        if durations.seen < _ENOUGH:
            return base
        return replace(base, late_ms=durations.late_ms(base.fallback_after_ms))


def _bounded(rules: Rules, durations: Durations) -> Rules:
    """The same plan with the bound that follows from the latest task, which does not wait for a new plan."""
    if rules.schedule is None:
        return rules
    quiet = durations.quiet(rules.poll_every_ms)
    return rules if quiet == rules.schedule.quiet else replace(rules, schedule=replace(rules.schedule, quiet=quiet))
