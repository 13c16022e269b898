"""How long tasks take, learned from what this process sees, per provider, operation and model.

It owns the histograms and forgets with every observation; it must not know the store (rows come in by `warm`) nor how a
job moves. Nothing here is needed for a job to end well: without it the card's own figures hold.

What polling sees is not the moment but a stretch: after the last poll that said running, up to the first that said done.
Such an observation is shared out over its stretch in proportion to what is known already (the self-consistent estimate of
Turnbull 1976, one step per observation), with a little for what would be new.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from math import log2
from typing import Any, NamedTuple

import msgspec

from service.jobs.pace import Rules
from service.jobs.row import JobRow
from service.jobs.schedule import POLL_PRICE_MS, Cell, plan
from service.states import JobStatus, ResolvedBy

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
_UNSEEN = 1.0  # observations' worth that ends beyond all bins
_NOISE = 0.002  # of an observation: bins with less are taken as empty
_LATE = 0.95  # share of tasks that have ended when a callback is called late
_ENOUGH = 20  # observations, before the fallback behind callbacks is put off
_STALE = 25  # observations at most, before a plan is made anew; earlier while there are few


class Kind(NamedTuple):
    """What tasks must have in common for their durations to tell of each other."""

    provider: str
    operation: str
    model: str


class _Named(msgspec.Struct):
    model: Any = None


_named = msgspec.json.Decoder(_Named)


def kind_of(provider: str, operation: str, job_input: str) -> Kind:
    """The kind of a job, whose input is a JSON object that may name a model."""
    model = _named.decode(job_input).model
    return Kind(provider, operation, model[:_MOST_MODEL] if isinstance(model, str) else "")


class Durations:
    """The durations of one kind of task: a histogram over bins of equal ratio, which forgets exponentially."""

    def __init__(self, typical_ms: int) -> None:
        self.seen = 0
        self._weight = 1.0  # of the next observation; it grows instead of all others shrinking
        self._mass = array("d", bytes(8 * _BINS))
        first, last = _bin(typical_ms / 8), _bin(typical_ms * 2)
        for at in range(first, last + 1):
            self._mass[at] = _CARD / (last + 1 - first)

    def record(self, running_ms: float, done_ms: float) -> None:
        """A task ended between these ages; equal ones say exactly when."""
        self.seen += 1
        self._age()
        last = _bin(done_ms)
        begin_ms = max(running_ms, done_ms / _STRETCH_LIMIT)
        first = _bin(begin_ms)
        if first >= last:
            self._mass[last] += self._weight
            return
        shares = [each + _NEWS * self._weight for each in self._mass[first : last + 1]]
        shares[0] *= _part(first, begin_ms, _EDGES[first + 1])
        shares[-1] *= _part(last, _EDGES[last], done_ms)
        scale = self._weight / sum(shares)
        for at, share in enumerate(shares, first):
            self._mass[at] += share * scale

    def cells(self) -> list[Cell]:
        """The shares of tasks by age; a little is left for what was never seen."""
        least = _NOISE * self._weight
        total = sum(self._mass) + _UNSEEN * self._weight
        around = zip([0.0, *self._mass[:-1]], self._mass, [*self._mass[1:], 0.0], strict=True)
        smooth = [_SMOOTH * (before + after) + (1 - 2 * _SMOOTH) * mass for before, mass, after in around]
        return [Cell(_EDGES[at], _EDGES[at + 1], mass / total) for at, mass in enumerate(smooth) if mass > least]

    def late_ms(self) -> int:
        """The age at which nearly all tasks have ended."""
        left = _LATE * sum(self._mass)
        for at, mass in enumerate(self._mass):
            left -= mass
            if left <= 0:
                return round(_EDGES[at + 1])
        return round(_EDGES[_BINS])

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


@dataclass(slots=True)
class Learned:
    """What is known of all kinds; one per process, in memory, bounded.

    Args:
        price_ms: What a poll is worth in delay, see `schedule.POLL_PRICE_MS`.
        most_kinds: How many kinds are remembered.
    """

    price_ms: float = POLL_PRICE_MS
    most_kinds: int = MOST_KINDS
    _kinds: OrderedDict[Kind, _Known] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        """How many kinds are remembered."""
        return len(self._kinds)

    def record(self, kind: Kind, base: Rules, running_ms: int, done_ms: int) -> None:
        """A provider ended a task.

        Args:
            kind: What the task is of.
            base: The rules from card and settings, the same object as for `rules`.
            running_ms: Age of the submission when a poll last said running; 0: none did. With a callback or the
                provider's own time: as `done_ms`.
            done_ms: Age when it was first known to have ended.
        """
        if base.can_poll and done_ms > 0:
            self._known(kind, base).durations.record(min(max(running_ms, 0), done_ms), done_ms)

    def rules(self, kind: Kind, base: Rules) -> Rules:
        """The rules from card and settings, with what was learned about polling."""
        if not base.can_poll:
            return base
        known = self._known(kind, base)
        seen = known.durations.seen
        if known.rules is None or seen - known.planned_at >= min(_STALE, 1 + seen // 8):
            known.rules = self._learned(known.durations, base)
            known.planned_at = seen
        return known.rules

    def warm(self, rows: Iterable[tuple[Kind, Rules, int, int]]) -> None:
        """After a start, what the store remembers: arguments of `record`, oldest first."""
        for row in rows:
            self.record(*row)

    def _known(self, kind: Kind, base: Rules) -> _Known:
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
            return replace(base, schedule=plan(durations.cells(), base.poll_every_ms, self.price_ms))
        return replace(base, late_ms=durations.late_ms()) if durations.seen >= _ENOUGH else base


def duration_of(job: JobRow) -> tuple[int, int] | None:
    """The ages in ms at which a task was last seen unfinished and first seen finished; None where nothing is learned.

    Only a provider's own word teaches: not our deadline, not a caller, not a submit that was answered with the result.
    """
    if job.status not in {JobStatus.COMPLETED, JobStatus.FAILED} or job.finished_at is None or job.submitted_at is None:
        return None
    done_ms = job.finished_at - job.submitted_at
    if job.resolved_by == ResolvedBy.CALLBACK:
        return done_ms, done_ms
    if job.resolved_by == ResolvedBy.POLL:
        return (job.running_at or job.submitted_at) - job.submitted_at, done_ms
    return None
