"""What operators see of a running process: log lines and metrics.

Owns the format of logs, the masking of secrets in them, and the names of the metrics. It must not know who logs or
counts: the loops and the edge are handed a `Metrics`. No label ever holds what a caller or a provider wrote, since
every new value would be a new series for ever.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TextIO

import structlog
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from structlog.typing import EventDict, Processor, WrappedLogger

from service.states import JobStatus

MASK: Final = "…"
_MAX_CHARS: Final = 16_384  # of one value in a log line: a prompt or a picture must not drown the rest
_MAX_DEPTH: Final = 6  # of nested values

#: Loggers of libraries that say too much, or too openly, below WARNING: httpx logs whole URLs at INFO.
_QUIET: Final = (
    "aiohttp",
    "aiosqlite",
    "alembic",
    "apscheduler",
    "asyncio",
    "httpcore",
    "httpx",
    "PIL",
    "sqlalchemy",
    "uvicorn.access",
)

_SECRET_KEY: Final = re.compile(
    r"(?:^|[_-])(?:authorization|api[_-]?key|admin_key|secret_key|secret|token|signature|cookie|password)$",
    re.IGNORECASE,
)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # could move a terminal's cursor; not \t and \n
_SECRET_TEXT: Final = re.compile(
    r"(?P<keep>\brmk_\w{4}|\bwhsec_[\w+/-]{4})[\w+/=-]+"  # the first four characters are public, as in the API
    r"|(?P<scheme>\b(?:Bearer|Basic)\s+)[^\s\"',]+"
    r"|(?P<path>/callbacks/|/r/)[^\s/?#\"'<>\\]+"
    r"|(?P<sign>\bv1a?,)[\w+/=-]{20,}"
    r"|(?P<query>[?&][\w-]*(?:signature|token|secret|password|api[_-]?key|sig)=)[^\s&\"'<>]+"
    r"|(?P<user>://)[^\s/@\"']+(?=@)",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """The text without keys, signing secrets, tokens in paths and queries, and passwords in URLs."""
    cut = text if len(text) <= _MAX_CHARS else f"{text[:_MAX_CHARS]}{MASK} ({len(text)} characters)"
    return _CONTROL.sub("?", _SECRET_TEXT.sub(lambda match: f"{match[match.lastgroup or 0]}{MASK}", cut))


def _masked(value: object, depth: int = 0) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping) and depth < _MAX_DEPTH:
        return {
            redacted(str(key)): MASK if entry and _SECRET_KEY.search(str(key)) else _masked(entry, depth + 1)
            for key, entry in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset) and depth < _MAX_DEPTH:
        return [_masked(entry, depth + 1) for entry in value]
    if isinstance(value, bytes):
        return redacted(value[: _MAX_CHARS + 1].decode("utf-8", "replace"))
    # Whatever else it is, the renderer would print its repr, so it is made here, where it can be judged.
    return redacted(str(value) if isinstance(value, str | Exception) else repr(value))


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The last processor before the renderer: nothing secret passes, also not in the text of an exception."""
    return {key: MASK if value and _SECRET_KEY.search(key) else _masked(value) for key, value in event.items()}


class _Handler(logging.StreamHandler[TextIO]):
    """Writes lines; one that cannot be written (a full disk, a closed pipe) must not stop the work."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        """Drop the record."""


def configure_logging(log_format: Literal["auto", "console", "json"], level: str, stream: TextIO) -> None:
    """Send our own and the libraries' log lines to one stream, in one form, without secrets.

    Args:
        log_format: `auto` is `console` on a terminal, else `json`.
        level: The least that is logged, in small letters.
        stream: Where the lines go.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    structlog.configure(
        processors=[*common, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,  # a logger that spoke before this call would keep its old form
    )
    handler = _Handler(stream)
    handler.setFormatter(_formatter(common, _renderer(log_format, terminal=stream.isatty())))
    logging.basicConfig(handlers=[handler], level=number, force=True)
    logging.captureWarnings(capture=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True


def _renderer(log_format: Literal["auto", "console", "json"], *, terminal: bool) -> Processor:
    if log_format == "json" or (log_format == "auto" and not terminal):
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(
        colors=terminal,
        exception_formatter=structlog.dev.plain_traceback,  # the rich one prints local variables, and so secrets
        repr_native_str=True,
        timestamp_key="time",
    )


def _formatter(common: list[Processor], renderer: Processor) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=common,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            redact,
            renderer,
        ],
    )


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
    MetricRow("remora_jobs", "gauge", ("status",), "jobs in each state, counted when asked"),
    MetricRow("remora_job_state_changes_total", "counter", ("provider", "status"), "changes of state, by the new one"),
    MetricRow("remora_submits_total", "counter", ("provider", "verdict"), "submit tries, by what came of them"),
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
    MetricRow("remora_writer_batch_commands", "histogram", (), "commands that shared one commit", _COUNTS),
    MetricRow("remora_writer_commit_seconds", "histogram", (), "how long a commit took", _FAST_S),
    MetricRow(
        "remora_http_requests_total", "counter", ("method", "route", "status"), "requests served, by route template"
    ),
    MetricRow("remora_http_request_seconds", "histogram", ("route",), "how long a request took", _FAST_S),
    MetricRow(
        "remora_loop_failures_total", "counter", ("loop",), "runs of a loop that ended in an error it did not expect"
    ),
)


class Metrics:
    """Counters and histograms in a registry of their own, so that two services in one process do not mix."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody reads
        self._registry = CollectorRegistry()
        self._metrics = {row.name: self._made(row) for row in METRICS}
        self._bound: dict[tuple[str, ...], Any] = {}
        ProcessCollector(registry=self._registry)

    def _made(self, row: MetricRow) -> Counter | Gauge | Histogram:
        if row.kind == "histogram":
            return Histogram(row.name, row.help, row.labels, registry=self._registry, buckets=row.buckets)
        return (Counter if row.kind == "counter" else Gauge)(row.name, row.help, row.labels, registry=self._registry)

    def _child(self, *key: str) -> Any:
        """The series of a metric and its label values, kept: `labels` takes a lock and costs as much as the counting."""
        child = self._bound.get(key)
        if child is None:
            metric = self._metrics[key[0]]
            child = self._bound[key] = metric.labels(*key[1:]) if len(key) > 1 else metric
        return child

    def set_jobs(self, counts: Mapping[str, int]) -> None:
        """How many jobs are in each state now."""
        for status in JobStatus:
            self._child("remora_jobs", status.value).set(counts.get(status, 0))

    def moved(self, provider: str, operation: str, old: JobStatus, new: JobStatus) -> None:
        """A job changed its state; committed."""
        self._child("remora_job_state_changes_total", provider, new.value).inc()

    def submitted(self, provider: str, verdict: str) -> None:
        """A submit try ended."""
        self._child("remora_submits_total", provider, verdict).inc()

    def callback(self, provider: str, outcome: str) -> None:
        """A callback came; `provider` is empty where its token is unknown."""
        self._child("remora_callbacks_total", provider, outcome).inc()

    def polled(self, provider: str, verdict: str) -> None:
        """A poll ended."""
        self._child("remora_polls_total", provider, verdict).inc()

    def unknown_word(self, provider: str) -> None:
        """A provider used a state word that its card does not know."""
        self._child("remora_unknown_status_words_total", provider).inc()

    def callback_became_event(self, seconds: float) -> None:
        """The final event of a job was stored and handed to its deliveries, so long after the callback's arrival."""
        self._child("remora_callback_to_event_seconds").observe(seconds)

    def attempted(self, outcome: str, duration_ms: int) -> None:
        """One delivery attempt ended; `delivered` and `dead` end the delivery, too."""
        self._child("remora_delivery_attempt_seconds", outcome).observe(duration_ms / 1000)
        if outcome in {"delivered", "dead"}:
            self._child("remora_deliveries_total", outcome).inc()

    def delivered(self, since_event_ms: int) -> None:
        """An event arrived at a destination, so long after it happened."""
        self._child("remora_event_delivery_seconds").observe(since_event_ms / 1000)

    def batch(self, size: int, commit_s: float) -> None:
        """The writer committed so many commands at once."""
        self._child("remora_writer_batch_commands").observe(size)
        self._child("remora_writer_commit_seconds").observe(commit_s)

    def request_served(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered; `route` is the template, never the path that was asked for."""
        self._child("remora_http_requests_total", method, route, str(status)).inc()
        self._child("remora_http_request_seconds", route).observe(seconds)

    def loop_failed(self, loop: str) -> None:
        """A loop's outermost guard caught something."""
        self._child("remora_loop_failures_total", loop).inc()

    def render(self) -> tuple[bytes, str]:
        """All metrics in Prometheus's text format, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
