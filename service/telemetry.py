"""What operators see of a running process: log lines and metrics.

Owns the format of logs, the masking of secrets in them, and the counting; the table of the metrics is `metrics`. It must
not know who logs or counts: the loops and the edge are handed a `Metrics`.
"""

from __future__ import annotations

import logging
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Literal, TextIO

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from structlog.typing import EventDict, Processor, WrappedLogger

from service.clock import Clock
from service.metrics import METRICS
from service.printable import one_line
from service.states import JobStatus

LogFormat = Literal["auto", "console", "json"]

MASK: Final = "…"
LINES_PER_S: Final = 20  # about jobs or deliveries
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
    "uvicorn",  # "Started server process", "Waiting for application startup" …: `serve` says it in its own words
)

_SECRET_KEY: Final = re.compile(
    r"(?:^|[_-])(?:authorization|api[_-]?key|admin_key|secret_key|secret|token|signature|cookie|password)$",
    re.IGNORECASE,
)
_SECRET_TEXT: Final = re.compile(
    r"(?P<keep>\brmk_\w{4}|\bwhsec_[\w+/-]{4})[\w+/=-]+"  # the first four characters are public, as in the API
    r"|(?P<scheme>\b(?:Bearer|Basic)\s+)[^\s\"',]+"
    r"|(?P<path>(?<=[/f])callbacks(?:/|\\+/|%(?:25)*+2f|\\+u002f)++|/r/++)[^\s/?#\"'<>\\]+"
    r"|(?P<sign>\bv1a?,)[\w+/=-]{20,}"
    r"|(?P<query>[?&][\w-]*(?:signature|token|secret|password|api[_-]?key|sig)=)[^\s&\"'<>]+"
    r"|(?P<user>://)[^\s/@\"']+(?=@)",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """The text without keys, signing secrets, tokens in paths and queries, and passwords in URLs.

    What a terminal would obey is escaped; only line feeds and tabs are left, which the form of the log judges.
    """
    cut = text if len(text) <= _MAX_CHARS else f"{text[:_MAX_CHARS]}{MASK} ({len(text)} characters)"
    return one_line(_SECRET_TEXT.sub(lambda match: f"{match[match.lastgroup or 0]}{MASK}", cut), keep="\n\t")


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


def configure_logging(log_format: LogFormat, level: str, stream: TextIO) -> None:
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
    handler.setFormatter(_formatter(common, *_rendering(log_format, terminal=stream.isatty())))
    logging.basicConfig(handlers=[handler], level=number, force=True)
    logging.captureWarnings(capture=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True


def is_json(log_format: LogFormat, *, terminal: bool) -> bool:
    """Whether lines of this form are JSON on such a stream."""
    return log_format == "json" or (log_format == "auto" and not terminal)


def _rendering(log_format: LogFormat, *, terminal: bool) -> list[Processor]:
    if is_json(log_format, terminal=terminal):
        return [structlog.processors.JSONRenderer()]
    console = structlog.dev.ConsoleRenderer(
        colors=terminal,
        exception_formatter=structlog.dev.plain_traceback,  # the rich one prints local variables, and so secrets
        repr_native_str=True,
        timestamp_key="time",
        pad_event_to=0,
        pad_level=False,
    )
    return [_shortened, console]


def _shortened(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A line for a terminal of 80 columns: the time of day, a request as people say it, our loggers without their names."""
    event["time"] = event["time"][11:23] + "Z"
    if {"method", "path", "status"} <= event.keys():
        event.pop("route", None)
        event["event"] = f"{event.pop('method')} {event.pop('path')} {event.pop('status')}"
    if str(event.get("logger")).startswith("service"):
        del event["logger"]
    # The renderer escapes values by their repr, and these not. Only a traceback keeps its lines, indented, so that none of
    # them can pass for a line of the log.
    event.update({key: one_line(str(event[key])) for key in ("event", "logger") if key in event})
    if "exception" in event:
        event["exception"] = "\n".join(f"  {line}" for line in event["exception"].split("\n"))
    return event


def _formatter(common: list[Processor], *rendering: Processor) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=common,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            redact,
            *rendering,
        ],
    )


class SparingLog:
    """Lines about single jobs and deliveries, of which an outage brings thousands: at most so many a second.

    What is kept back is counted, and the count told with the next line that goes through.

    Args:
        name: The logger's.
    """

    def __init__(self, name: str, clock: Clock, per_s: int = LINES_PER_S) -> None:
        self._log = structlog.get_logger(name)
        self._clock = clock
        self._per_s = per_s
        self._second = -1
        self._said = 0
        self._kept_back = 0

    def has_room(self) -> bool:
        """Whether the next line goes through."""
        second = int(self._clock.monotonic())
        if second != self._second:
            self._second, self._said = second, 0
        return self._said < self._per_s

    def say(self, level: Literal["info", "warning"], event: str, **fields: object) -> None:
        """A line, if this second has room for it."""
        if not self.has_room():
            self._kept_back += 1
            return
        self._said += 1
        if self._kept_back:
            fields["lines_kept_back"] = self._kept_back
            self._kept_back = 0
        getattr(self._log, level)(event, **fields)


_ENDLESS: Final = {"/v1/events/stream"}  # lasts as long as its client likes, which says nothing of how fast we are
_BUCKETS: Final = {row.name: row.buckets for row in METRICS}


@dataclass(slots=True)
class _Histogram:
    """Observations by bucket; the last count is of those above all bounds."""

    bounds: tuple[float, ...]
    counts: list[int]
    total: float = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, as the format wants them."""
        names = [*(str(bound) for bound in self.bounds), "+Inf"]
        return list(zip(names, (float(n) for n in accumulate(self.counts)), strict=True))


class Metrics:
    """Counters and histograms in a registry of their own, so that two services in one process do not mix.

    They are counted in plain dictionaries and become Prometheus's families when asked for: the loop is the only writer,
    and the client library's own counters take a lock each time, which an event would pay ten times over.
    """

    def __init__(self) -> None:
        self._values: dict[tuple[str, ...], float] = {}  # by name and label values
        self._histograms: dict[tuple[str, ...], _Histogram] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)  # what is asked of a collector is `collect`
        ProcessCollector(registry=self._registry)

    def collect(self) -> Iterator[Metric]:
        """All families, for the registry."""
        for row in METRICS:
            if row.kind == "histogram":
                family = HistogramMetricFamily(row.name, row.help, labels=row.labels)
                for key, histogram in self._histograms.items():
                    if key[0] == row.name:
                        family.add_metric(key[1:], histogram.buckets(), histogram.total)
                yield family
                continue
            made = (CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily)(
                row.name, row.help, labels=row.labels
            )
            for key, value in self._values.items():
                if key[0] == row.name:
                    made.add_metric(key[1:], value)
            yield made

    def _count(self, *key: str) -> None:
        self._values[key] = self._values.get(key, 0.0) + 1

    def _observe(self, value: float, *key: str) -> None:
        histogram = self._histograms.get(key)
        if histogram is None:
            bounds = _BUCKETS[key[0]]
            histogram = self._histograms[key] = _Histogram(bounds, [0] * (len(bounds) + 1))
        histogram.observe(value)

    def set_jobs(self, counts: Mapping[str, int]) -> None:
        """How many jobs are in each state now."""
        for status in JobStatus:
            self._values["remora_jobs", status.value] = counts.get(status, 0)

    def moved(self, provider: str, operation: str, old: JobStatus, new: JobStatus) -> None:
        """A job changed its state; committed."""
        self._count("remora_job_state_changes_total", provider, new.value)

    def submitted(self, provider: str, verdict: str) -> None:
        """A submit try ended."""
        self._count("remora_submits_total", provider, verdict)

    def work_failed(self, kind: str) -> None:
        """A piece of work (`submit`, `poll`) ended in an error that it did not expect."""
        self._count("remora_work_failed_total", kind)

    def moderated(self, verdict: str) -> None:
        """A job was judged before it was sent."""
        self._count("remora_moderated_total", verdict)

    def callback(self, provider: str, outcome: str) -> None:
        """A callback came; `provider` is empty where its token is unknown."""
        self._count("remora_callbacks_total", provider, outcome)

    def polled(self, provider: str, verdict: str) -> None:
        """A poll ended."""
        self._count("remora_polls_total", provider, verdict)

    def unknown_word(self, provider: str) -> None:
        """A provider used a state word that its card does not know."""
        self._count("remora_unknown_status_words_total", provider)

    def callback_became_event(self, seconds: float) -> None:
        """The final event of a job was stored and handed to its deliveries, so long after the callback's arrival."""
        self._observe(seconds, "remora_callback_to_event_seconds")

    def set_gauges(self, name: str, values: Mapping[tuple[str, ...], float]) -> None:
        """All series of a gauge as they are now, by label values; those it had before and has no more are gone."""
        for key in [key for key in self._values if key[0] == name and key[1:] not in values]:
            del self._values[key]
        self._values.update({(name, *labels): value for labels, value in values.items()})

    def attempted(self, outcome: str, error_class: str | None, duration_ms: int) -> None:
        """One delivery attempt ended; `delivered` and `dead` end the delivery, too."""
        self._count("remora_delivery_attempts_total", outcome, error_class or "")
        self._observe(duration_ms / 1000, "remora_delivery_attempt_seconds", outcome)
        if outcome in {"delivered", "dead"}:
            self._count("remora_deliveries_total", outcome)

    def delivered(self, since_event_ms: int) -> None:
        """An event arrived at a destination, so long after it happened."""
        self._observe(since_event_ms / 1000, "remora_event_delivery_seconds")

    def swept(self, what: str, count: int) -> None:
        """So many rows of a kind were removed for their age."""
        key = ("remora_retention_removed_total", what)
        self._values[key] = self._values.get(key, 0.0) + count

    def files_not_removed(self, count: int) -> None:
        """So many jobs' files were left because the storage would not remove them."""
        key = ("remora_files_not_removed_total",)
        self._values[key] = self._values.get(key, 0.0) + count

    def captured(self, outcome: str, size_bytes: int) -> None:
        """A result was fetched, or not."""
        self._count("remora_results_total", outcome)
        if size_bytes:
            key = ("remora_results_bytes_total",)
            self._values[key] = self._values.get(key, 0.0) + size_bytes

    def set_captures(self, waiting: int) -> None:
        """How many results wait to be fetched now."""
        self._values["remora_results_waiting",] = waiting

    def batch(self, size: int, commit_s: float) -> None:
        """The writer committed so many commands at once."""
        self._observe(size, "remora_writer_batch_commands")
        self._observe(commit_s, "remora_writer_commit_seconds")

    def log_size(self, size_bytes: int) -> None:
        """The database's log has so many bytes now."""
        self._values["remora_database_log_bytes",] = size_bytes

    def request_served(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered; `route` is the template, never the path that was asked for."""
        self._count("remora_http_requests_total", method, route, str(status))
        if route not in _ENDLESS:
            self._observe(seconds, "remora_http_request_seconds", route)

    def loop_failed(self, loop: str) -> None:
        """A loop's outermost guard caught something."""
        self._count("remora_loop_failures_total", loop)

    def render(self) -> tuple[bytes, str]:
        """All metrics in Prometheus's text format, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
