"""The table of all metrics: names with units, kinds, labels, and what each tells. docs/operations.md repeats it.

No label ever holds what a caller or a provider wrote, since every new value would be a new series for ever; labels that
name one of our own objects are bounded in number. Who counts stands in `telemetry`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric: its name with unit, its kind, its labels and what it tells."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


_FAST_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0)
_COUNTS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

#: The table of all metrics; docs/operations.md repeats it.
METRICS: Final[tuple[MetricRow, ...]] = (
    MetricRow(
        "remora_jobs",
        "gauge",
        ("status",),
        "jobs in each state, counted every five seconds at most, with millions of jobs less often",
    ),
    MetricRow("remora_job_state_changes_total", "counter", ("provider", "status"), "changes of state, by the new one"),
    MetricRow("remora_submits_total", "counter", ("provider", "verdict"), "submit tries, by what came of them"),
    MetricRow(
        "remora_work_failed_total",
        "counter",
        ("kind",),
        "submissions and polls that ended in an error which nobody expected (`work_failed` in the log): a mistake in the code",
    ),
    MetricRow("remora_provider_down", "gauge", ("provider",), "1 for a provider that is down; its jobs wait"),
    MetricRow(
        "remora_provider_paused_seconds",
        "gauge",
        ("provider",),
        "for how long a provider that refused for the moment (429) gets no submissions",
    ),
    MetricRow(
        "remora_provider_tasks", "gauge", ("provider",), "tasks unfinished at the provider, as `MAX_IN_FLIGHT` counts"
    ),
    MetricRow("remora_provider_submits", "gauge", ("provider",), "requests to submit that are under way"),
    MetricRow("remora_provider_polls", "gauge", ("provider",), "polls that are under way"),
    MetricRow("remora_moderated_total", "counter", ("verdict",), "verdicts of moderation before generation"),
    MetricRow("remora_callbacks_total", "counter", ("provider", "outcome"), "callbacks received"),
    MetricRow("remora_polls_total", "counter", ("provider", "verdict"), "polls, by what came of them"),
    MetricRow(
        "remora_unknown_status_words_total",
        "counter",
        ("provider",),
        "answers with a state word that the card does not know, treated as running",
    ),
    MetricRow(
        "remora_callback_to_event_seconds",
        "histogram",
        (),
        "from a callback's arrival until its event was stored and on its way, a confirming fetch included",
        _FAST_S,
    ),
    MetricRow(
        "remora_event_delivery_seconds",
        "histogram",
        (),
        "from an event until it arrived at a destination, retries included",
        (*_FAST_S, 300.0, 3600.0, 86_400.0),
    ),
    MetricRow("remora_deliveries_total", "counter", ("outcome",), "deliveries that ended: delivered, dead"),
    MetricRow(
        "remora_delivery_attempt_seconds", "histogram", ("outcome",), "how long one delivery attempt took", _FAST_S
    ),
    MetricRow("remora_retention_removed_total", "counter", ("what",), "rows removed for their age, by kind"),
    MetricRow("remora_results_total", "counter", ("outcome",), "results fetched for our copy: stored, retried, lost"),
    MetricRow("remora_results_bytes_total", "counter", (), "bytes of the copies that were stored"),
    MetricRow("remora_results_waiting", "gauge", (), "results that wait to be fetched, counted when asked"),
    MetricRow(
        "remora_delivery_attempts_total",
        "counter",
        ("outcome", "error_class"),
        "delivery attempts, by what came of them and what went wrong",
    ),
    MetricRow(
        "remora_deliveries_pending",
        "gauge",
        (),
        "deliveries that wait to be sent, a million at most, counted when asked",
    ),
    MetricRow("remora_delivery_oldest_due_seconds", "gauge", (), "for how long the oldest due delivery has been due"),
    MetricRow("remora_deliveries_held", "gauge", (), "deliveries in memory, those in flight included"),
    MetricRow(
        "remora_deliveries_held_bytes",
        "gauge",
        (),
        "memory of these, each event's body once; beyond half of `REMORA_DELIVERY_MEMORY` what is due waits in the store",
    ),
    MetricRow("remora_deliveries_in_flight", "gauge", (), "requests to destinations that are out"),
    MetricRow("remora_lanes", "gauge", (), "destinations with deliveries in memory"),
    MetricRow("remora_lanes_open", "gauge", (), "destinations that are left alone because they keep failing"),
    MetricRow(
        "remora_destination_pending",
        "gauge",
        ("subscription",),
        "deliveries that wait, of the 50 destinations with the most, ten thousand at most; `acc_…:one_off` for an account's callback_urls",
    ),
    MetricRow(
        "remora_destination_oldest_due_seconds",
        "gauge",
        ("subscription",),
        "for how long the oldest due delivery of each of these has been due",
    ),
    MetricRow(
        "remora_destination_success_ratio",
        "gauge",
        ("subscription",),
        "share of attempts of the last hour that were deliveries, of each of these subscriptions",
    ),
    MetricRow(
        "remora_destination_p95_seconds",
        "gauge",
        ("subscription",),
        "within which 95 % of the answers of the last hour came, of each of these subscriptions",
    ),
    MetricRow("remora_event_streams", "gauge", (), "open streams of GET /v1/events/stream, counted when asked"),
    MetricRow("remora_writer_batch_commands", "histogram", (), "commands that shared one commit", _COUNTS),
    MetricRow("remora_writer_commit_seconds", "histogram", (), "how long a commit took", _FAST_S),
    MetricRow(
        "remora_database_log_bytes",
        "gauge",
        (),
        "size of the database's log (`-wal`); beyond `REMORA_WAL_MAX` another program's reads keep it from being cut",
    ),
    MetricRow(
        "remora_http_requests_total", "counter", ("method", "route", "status"), "requests served, by route template"
    ),
    MetricRow(
        "remora_http_request_seconds",
        "histogram",
        ("route",),
        "how long a request took; event streams are left out",
        _FAST_S,
    ),
    MetricRow(
        "remora_files_not_removed_total",
        "counter",
        (),
        "tries to remove a job's files that left something though the storage answers; each is made again after an hour",
    ),
    MetricRow(
        "remora_clock_offset_seconds",
        "gauge",
        (),
        "how far the machine's clock is ahead of the time that due work goes by; other than 0 after a step",
    ),
    MetricRow(
        "remora_loop_failures_total", "counter", ("loop",), "runs of a loop that ended in an error it did not expect"
    ),
)
