"""When to ask for a task, planned from how long such tasks take; pure arithmetic, ages in ms since the submission.

It must not know where the durations come from (`durations` does) nor what else moves a job (`pace` does).

A plan weighs polls against delay. Where the share `h` of the waiting tasks ends per ms, the best spacing is near
`sqrt(2 * price / h)` (Keller 1974, "Optimum checking schedules for systems subject to random failure"). The moments to
choose from are laid out in that measure, dense where tasks end and sparse where they do not, and the best path through
them is found backwards from the last one. The floor of the spacing is the cadence that the provider documents.

A spread that was learned has holes, and tasks come that end in them. So no wait goes beyond `latest_ms`: the plan is made
under this bound, so that the polls that it takes are placed well, and each wait is held against it once more.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor, inf, sqrt
from typing import NamedTuple

#: What one poll is worth in delay, the knob of the trade: less means more polls and a smaller delay. At 200 ms a task
#: of 30 to 120 seconds is asked for ten times, and its end is seen after two seconds.
POLL_PRICE_MS = 200.0
MOST_PLANNED = 76  # polls of one task before backing off begins
_MOST_USUAL = 60  # of them for nearly all tasks; a price too low for that is raised
_USUAL = 0.95  # of those that the plan covers
BOUND_CADENCES = 2  # a task's end is seen within so many documented cadences and …
BOUND_SHARE = 0.2  # … this share of its age
BACK_OFF_GROWTH = 8  # past everything that was ever seen, the wait is an eighth of the age
_FINE = 4  # moments to choose from, per poll that the measure suggests
_AHEAD = 4.0  # how far a choice looks, in polls that the measure suggests
_BACK_OFF_POLLS = 6.0  # about what a task costs that outlives the plan


class Cell(NamedTuple):
    """A stretch of ages and the share of tasks that end in it. What the cells leave of 1 ends after the last one."""

    begin_ms: float
    end_ms: float
    share: float


class Quiet(NamedTuple):
    """A stretch of ages at which nothing is expected to end; its end does not belong to it."""

    begin_ms: float
    end_ms: float


_UNBOUNDED = (Quiet(0.0, inf),)


def latest_ms(age_ms: float, cadence_ms: int, quiet: Sequence[Quiet] = ()) -> float:
    """The age by which a task that was running at `age_ms` is asked for again.

    Whatever ends outside of the quiet stretches is then found within two cadences and a fifth of its age.

    Args:
        age_ms: When the task was seen running.
        cadence_ms: The wait between polls that the provider documents.
        quiet: Ascending, not overlapping.
    """
    for begin_ms, end_ms in quiet:
        if begin_ms <= age_ms < end_ms:
            age_ms = end_ms
            break
    return (1 + BOUND_SHARE) * age_ms + BOUND_CADENCES * cadence_ms


@dataclass(frozen=True, slots=True)
class Schedule:
    """A plan: at any age, when to ask next.

    Args:
        ages: Moments of the plan, ascending.
        targets: For each of them, when to ask next if the task still runs then.
        floor_ms: The least wait.
        quiet: As for `latest_ms`, which bounds every wait; without it no wait is bounded.
    """

    ages: Sequence[float]
    targets: Sequence[float]
    floor_ms: int
    quiet: Sequence[Quiet] = _UNBOUNDED

    def covers(self, age_ms: float) -> bool:
        """Whether the plan still says something at this age, or all that was ever seen has passed."""
        return bool(self.ages) and self._nearest(age_ms) < len(self.ages) - 1

    def next_wait_ms(self, age_ms: int) -> int:
        """The wait from this age, at which the task runs (0: just submitted), to the next poll."""
        at = self._nearest(age_ms) if self.ages else 0
        if at >= len(self.ages) - 1:
            return max(self.floor_ms, age_ms // BACK_OFF_GROWTH)
        then_ms = floor(min(ceil(self.targets[at]), latest_ms(age_ms, self.floor_ms, self.quiet)))
        return max(self.floor_ms, then_ms - age_ms)

    def _nearest(self, age_ms: float) -> int:
        # Polls come a little late or early, and the best next moment hardly differs between neighbours.
        after = bisect_right(self.ages, age_ms)
        if after == 0 or after == len(self.ages):
            return max(0, after - 1)
        return after - 1 if age_ms - self.ages[after - 1] < self.ages[after] - age_ms else after


class _Moment(NamedTuple):
    """An age, how many polls the measure suggests up to it, and the share of tasks that have ended by then."""

    age_ms: float
    measure: float
    ended: float


def plan(
    cells: Sequence[Cell], floor_ms: int, price_ms: float = POLL_PRICE_MS, quiet: Sequence[Quiet] = _UNBOUNDED
) -> Schedule:
    """The schedule that costs least, where a task costs `price_ms` for each poll and its delay in ms.

    Args:
        cells: Ascending, not overlapping, none empty; gaps between them are ages at which nothing ends.
        floor_ms: The least wait between two polls, above 0.
        price_ms: What a poll is worth in delay.
        quiet: As for `Schedule`.
    """
    edges = _edges(cells, floor_ms, price_ms)
    while (usual := _usual_polls(edges)) > _MOST_USUAL:
        price_ms *= max(1.25, (usual / _MOST_USUAL) ** 2)  # the measure falls with its root, and slower at the floor
        edges = _edges(cells, floor_ms, price_ms)
    begins = [begin_ms for begin_ms, _ in quiet]
    edges = _edges(_cut(cells, begins), floor_ms, price_ms, quiet)
    moments = _moments([edge for edge in edges if edge.measure <= MOST_PLANNED], begins)
    return Schedule(
        ages=array("d", [moment.age_ms for moment in moments]),
        targets=array("d", [moments[at].age_ms for at in _best_path(moments, floor_ms, price_ms, quiet)]),
        floor_ms=floor_ms,
        quiet=quiet,
    )


def _cut(cells: Iterable[Cell], ages_ms: Sequence[float]) -> Iterator[Cell]:
    """The same cells, of which none has one of these ages inside."""
    for cell in cells:
        begin_ms, end_ms, share = cell
        for age_ms in ages_ms:
            if begin_ms < age_ms < end_ms:
                yield Cell(begin_ms, age_ms, share * (age_ms - begin_ms) / (end_ms - begin_ms))
                share *= (end_ms - age_ms) / (end_ms - begin_ms)
                begin_ms = age_ms
        yield Cell(begin_ms, end_ms, share)


def _edges(cells: Iterable[Cell], floor_ms: int, price_ms: float, quiet: Sequence[Quiet] = _UNBOUNDED) -> list[_Moment]:
    """The measure at the edges of the cells: as many polls as are worth their price, and as the bound takes."""
    edges = [_Moment(0.0, 0.0, 0.0)]
    measure = ended = 0.0
    for begin_ms, end_ms, share in cells:
        if edges[-1].age_ms < begin_ms:
            edges.append(_Moment(begin_ms, measure, ended))
        width_ms = end_ms - begin_ms
        ending_per_ms = share / width_ms / max(1.0 - ended - share / 2, 1e-9)
        polls_per_ms = sqrt(ending_per_ms / (2.0 * price_ms))
        if begin_ms >= quiet[0].end_ms:
            polls_per_ms = max(polls_per_ms, 1.0 / (latest_ms(begin_ms, floor_ms) - begin_ms))
        measure += width_ms * min(polls_per_ms, 1.0 / floor_ms)
        ended += share
        edges.append(_Moment(end_ms, measure, ended))
    return edges


def _usual_polls(edges: Sequence[_Moment]) -> float:
    usual = _USUAL * edges[-1].ended
    return next(edge.measure for edge in edges if edge.ended >= usual)


def _moments(edges: Sequence[_Moment], needed_ms: Sequence[float]) -> list[_Moment]:
    """The moments to choose from: equal steps of the measure, and both ends of every gap."""
    moments: list[_Moment] = []
    for one, other in pairwise(edges):
        steps = _FINE * (other.measure - one.measure)
        is_gap = other.ended == one.ended
        is_near = bool(moments) and steps < 0.5 and one.measure - moments[-1].measure < 0.5 / _FINE
        if is_near and not is_gap and one.age_ms not in needed_ms:
            continue  # the moment before is as good as this one
        count = max(1, ceil(steps))
        age_step, measure_step, ended_step = ((b - a) / count for a, b in zip(one, other, strict=True))
        moments += [
            _Moment(one.age_ms + step * age_step, one.measure + step * measure_step, one.ended + step * ended_step)
            for step in range(count)
        ]
    return [*moments, edges[-1]]


def _best_path(moments: Sequence[_Moment], floor_ms: int, price_ms: float, quiet: Sequence[Quiet]) -> list[int]:
    """For each moment the index of the next one on the path that costs least from there on."""
    ages = [moment.age_ms for moment in moments]
    ended = [moment.ended for moment in moments]
    measure = [moment.measure for moment in moments]
    waited = _waited(moments)
    # The moment just short of the floor stands for the floor itself, to which `next_wait_ms` stretches the wait, and
    # the first one past the bound for the bound, to which it cuts the wait.
    nearest_ms = floor_ms * (1 - 0.5 / _FINE)
    last = len(moments) - 1
    cost = [0.0] * last + [(1.0 - ended[last]) * _BACK_OFF_POLLS * price_ms]
    following = [last] * (last + 1)
    for here in range(last - 1, -1, -1):
        # A poll at `then` costs its price if the task still runs here, and the delay of those that end in between:
        # waited[then] - waited[here] - (ages[then] - ages[here]) * ended[here].
        age, done, least = ages[here], ended[here], inf
        first = min(last, bisect_left(ages, age + nearest_ms, here + 1))
        beyond = bisect_left(ages, latest_ms(age, floor_ms, quiet), first, last) + 1
        beyond = max(first + 1, min(beyond, bisect_right(measure, measure[here] + _AHEAD, first)))
        for then in range(first, beyond):
            total = waited[then] - ages[then] * done + cost[then]
            if total < least:
                least, following[here] = total, then
        cost[here] = least + age * done - waited[here] + price_ms * (1.0 - done)
    return following


def _waited(moments: Sequence[_Moment]) -> list[float]:
    """How long the tasks that have ended have lain by each moment, as an integral from the start."""
    waited = [0.0]
    for one, other in pairwise(moments):
        waited.append(waited[-1] + (other.age_ms - one.age_ms) * (one.ended + other.ended) / 2)
    return waited
