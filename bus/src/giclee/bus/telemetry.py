"""Logs, metrics and traces of a process, cheap enough for every event (at most 5 metric calls each).

Logs are JSON, one line each, on stdout, with request_id, tenant and stage of what is being handled. Metrics
are the table in metrics.py; a name that is not in it is a bug. Spans leave the process only when OpenTelemetry's
own variables say where to, and 1 % of them unless OTEL_TRACES_SAMPLER says otherwise.
"""

from __future__ import annotations

import json
import logging
import os
import random
import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import structlog
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from giclee.bus import redaction
from giclee.bus.metrics import METRICS as METRICS
from giclee.bus.metrics import Metric

# ---- metrics ------------------------------------------------------------------------------------

SERIES_MAX = 200
"""Label sets kept per metric. A label fed from outside must not grow the process: the rest counts as `other`."""

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

_REGISTRY = CollectorRegistry()
_FAMILIES: dict[str, Any] = {}
_SERIES: dict[tuple[str, tuple[str, ...]], Any] = {}
ProcessCollector(registry=_REGISTRY)


def count(name: str, amount: float = 1, /, **labels: str) -> None:
    """Add to a counter. Errors: KeyError for a name that METRICS lacks, ValueError for other labels than its."""
    _series(name, labels).inc(amount)


def gauge(name: str, value: float, /, **labels: str) -> None:
    """Set a gauge. Errors as `count`."""
    _series(name, labels).set(value)


def observe(name: str, value_s: float, /, **labels: str) -> None:
    """Put seconds into a histogram. Errors as `count`."""
    _series(name, labels).observe(value_s)


def observer(name: str, /, **labels: str) -> Callable[[float], None]:
    """What `observe` does for one set of labels, at half of its cost. Errors as `count`."""
    found: Callable[[float], None] = _series(name, labels).observe
    return found


def value(name: str, /, **labels: str) -> float:
    """What a counter or gauge stands at, or how often a histogram was fed; 0.0 before the first time."""
    sample = f"{name}_count" if METRICS[name].kind == "seconds" else name
    return _REGISTRY.get_sample_value(sample, labels) or 0.0


def exposition() -> bytes:
    """All metrics in Prometheus' text format."""
    return bytes(generate_latest(_REGISTRY))


def _series(name: str, labels: dict[str, str]) -> Any:
    key = (name, tuple(labels.values()))
    found = _SERIES.get(key)
    return found if found is not None else _new_series(name, labels)


def _new_series(name: str, labels: dict[str, str]) -> Any:
    row = METRICS[name]
    if tuple(labels) != row.labels:
        if set(labels) != set(row.labels):
            raise ValueError(f"{name} has the labels {row.labels}, not {tuple(labels)}")
        return _series(name, {label: labels[label] for label in row.labels})
    family = _FAMILIES.get(name) or _new_family(name, row)
    values = tuple(str(one) for one in labels.values())
    if sum(1 for metric, _ in _SERIES if metric == name) >= SERIES_MAX:
        return family.labels(*("other" for _ in values))
    found = family.labels(*values) if values else family
    _SERIES[(name, tuple(labels.values()))] = found
    return found


def _new_family(name: str, row: Metric) -> Any:
    if row.kind == "seconds":
        family: Any = Histogram(name, row.says, row.labels, buckets=SECONDS, registry=_REGISTRY)
    else:
        family = (Counter if row.kind == "counter" else Gauge)(name, row.says, row.labels, registry=_REGISTRY)
    _FAMILIES[name] = family
    return family


# ---- logs ---------------------------------------------------------------------------------------

TEXT_MAX_CHARS = 2000
PRIVATE = frozenset({"prompt", "negative_prompt", "asked_prompt", "template", "variables", "alt_text"})
"""What callers wrote: logged at debug only."""
SECRET = frozenset({"authorization", "api_key", "password", "secret_access_key", "database_url", "url_signed"})

Line = MutableMapping[str, Any]


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger: `log.info("order closed", outcome="approved")`. `name` is the module's."""
    found: structlog.stdlib.BoundLogger = structlog.get_logger(module=name)
    return found


_HANDLING: ContextVar[tuple[str, str | None]] = ContextVar("handling", default=("", None))


def handling(stage: str, request_id: str | None) -> None:
    """Every line that this task logs from here on carries the stage and request; a tenth of the cost of `bound`."""
    _HANDLING.set((stage, request_id))


def _handled(_: Any, __: str, line: Line) -> Line:
    stage, request_id = _HANDLING.get()
    if stage:
        line.setdefault("stage", stage)
    if request_id:
        line.setdefault("request_id", request_id)
    return line


@contextmanager
def bound(**names: object) -> Iterator[None]:
    """Every line logged inside carries these (request_id, tenant, stage, ...); None is left out."""
    with structlog.contextvars.bound_contextvars(**{name: one for name, one in names.items() if one is not None}):
        yield


class _Stdout:
    """Writes to the stdout of the moment, one call a line, so that lines of several threads stay whole."""

    def msg(self, line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    log = debug = info = warn = warning = error = critical = exception = failure = fatal = msg


def _discreet(_: Any, method: str, line: Line) -> Line:
    for name in SECRET & line.keys():
        line[name] = "[redacted]"
    if line.get("level") != "debug":
        for name in PRIVATE & line.keys():
            del line[name]
    return line


def _plain(one: Any) -> Any:
    """A value as JSON takes it: finite, short enough, and without secrets."""
    if isinstance(one, str):
        one = redaction.redact(one)
        return one if len(one) <= TEXT_MAX_CHARS else f"{one[:TEXT_MAX_CHARS]}… ({len(one)} characters)"
    if one is None or isinstance(one, (bool, int)) or (isinstance(one, float) and one - one == 0):
        return one
    if isinstance(one, dict):
        return {str(name): _plain(inner) for name, inner in one.items()}
    if isinstance(one, (list, tuple, set, frozenset)):
        return [_plain(inner) for inner in one]
    return _plain(str(one))


def _json(_: Any, __: str, line: Line) -> str:
    # ASCII only: every control character, line separator and bidirectional mark is escaped
    return json.dumps({name: _plain(one) for name, one in line.items()}, ensure_ascii=True)


_SHARED: tuple[Any, ...] = (
    structlog.contextvars.merge_contextvars,
    _handled,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    structlog.processors.ExceptionRenderer(redaction.traceback_of),
    _discreet,
)


def _log_from(level: int) -> None:
    structlog.configure(
        processors=[*_SHARED, _json],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Stdout(),
        cache_logger_on_first_use=False,
    )


def _adopt_libraries(level: int) -> None:
    """Lines of libraries that use the standard logging come out in the same form."""
    handler = logging.StreamHandler(sys.stdout)
    name = structlog.stdlib.add_logger_name
    drop = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=(name, *_SHARED), processors=(drop, _json))
    )
    logging.root.handlers = [handler]
    logging.root.setLevel(max(level, logging.WARNING))


_log_from(logging.INFO)

# ---- traces -------------------------------------------------------------------------------------

SAMPLED = 0.01
"""Share of traces that are kept by default: a span costs 44 us, a dropped one 11 us."""


def _wants_export() -> bool:
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "").strip()
    where = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return exporter == "otlp" or (not exporter and any(os.environ.get(name) for name in where))


_RATIOS = {"always_on": 1.0, "parentbased_always_on": 1.0, "always_off": 0.0, "parentbased_always_off": 0.0}
_ratio = 0.0
"""Share of records that get a span; 0 until `start`. Decided before a span is made, which is most of its cost."""


def is_sampled(traceparent: str | None) -> bool:
    """Whether a record gets a span: as its sender decided where it says so, else by the ratio."""
    if _ratio == 0.0:
        return False
    return (traceparent is not None and traceparent.endswith("-01")) or random.random() < _ratio


def _ratio_from_environment() -> float:
    """What OpenTelemetry's own variables ask for."""
    name = os.environ.get("OTEL_TRACES_SAMPLER", "")
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return 0.0
    if name in _RATIOS:
        return _RATIOS[name]
    try:
        return min(1.0, max(0.0, float(os.environ.get("OTEL_TRACES_SAMPLER_ARG", SAMPLED))))
    except ValueError:
        return SAMPLED


def _trace_as(service: str) -> None:
    global _ratio
    _ratio = _ratio_from_environment()
    if _ratio == 0.0:
        return
    provider = TracerProvider(sampler=ALWAYS_ON, resource=Resource.create({"service.name": f"giclee-{service}"}))
    if _wants_export():
        # 20 MB of libraries that a process without a collector can do without
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def start(service: str, *, log_level: str = "info") -> None:
    """Set up logs and traces of this process; called once, before anything is opened."""
    level = logging.getLevelNamesMapping()[log_level.upper()]
    _log_from(level)
    _adopt_libraries(level)
    structlog.contextvars.bind_contextvars(service=service)
    _trace_as(service)
