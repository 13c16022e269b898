"""What Prometheus is told of deliveries and destinations when it asks: bounded in series, and in what is counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from service.db.reader import Reader
from service.deliveries.statistics.backlog_queries import WaitingDeliveries, backlog
from service.deliveries.statistics.figures import Figures

Gauge = Mapping[tuple[str, ...], float]  #: values by labels

_NONE: Final[tuple[str, ...]] = ()  # no label


async def gauges(reader: Reader, figures: Figures, now_ms: int) -> dict[str, Gauge]:
    """The gauges by their names in the table of metrics."""
    waits = await backlog(reader)
    lanes = figures.lanes
    whole: dict[str, Gauge] = {
        "remora_deliveries_pending": {_NONE: waits.pending},
        "remora_delivery_oldest_due_seconds": {_NONE: _due_for_s(waits.due_at, now_ms)},
        "remora_deliveries_held": {_NONE: len(lanes.places)},
        "remora_deliveries_held_bytes": {_NONE: lanes.memory.bytes},
        "remora_deliveries_in_flight": {_NONE: lanes.in_flight()},
        "remora_lanes": {_NONE: lanes.count()},
        "remora_lanes_open": {_NONE: len(lanes.breakers.open_lanes())},
    }
    return whole | _of_destinations(waits.worst, figures, now_ms)


def _of_destinations(worst: Iterable[WaitingDeliveries], figures: Figures, now_ms: int) -> dict[str, Gauge]:
    pending: dict[tuple[str, ...], float] = {}
    due_for_s: dict[tuple[str, ...], float] = {}
    success: dict[tuple[str, ...], float] = {}
    p95_s: dict[tuple[str, ...], float] = {}
    for each in worst:
        label = (lane_label(each.lane),)
        pending[label] = pending.get(label, 0.0) + each.pending
        due_for_s[label] = max(due_for_s.get(label, 0.0), _due_for_s(each.due_at, now_ms))
        if label[0] != each.lane:
            continue  # several destinations of one account, which have no common figure
        hour = figures.of(each.lane)
        if hour.success_rate is not None:
            success[label] = hour.success_rate
        if hour.p95_ms is not None:
            p95_s[label] = hour.p95_ms / 1000
    return {
        "remora_destination_pending": pending,
        "remora_destination_oldest_due_seconds": due_for_s,
        "remora_destination_success_ratio": success,
        "remora_destination_p95_seconds": p95_s,
    }


def lane_label(lane_id: str) -> str:
    """A lane as it may be shown: a one-off's has its caller's URL in its name, so it is its account's."""
    account, colon, _ = lane_id.partition(":")
    return f"{account}:one_off" if colon else lane_id


def _due_for_s(due_at: int | None, now_ms: int) -> float:
    return 0.0 if due_at is None else max(0, now_ms - due_at) / 1000
