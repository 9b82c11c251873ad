"""One span per handled record, linked to the span that sent it, and the request id in every log line.

A link and not a parent: a consumer takes records of many traces in one poll. A span costs 44 us, and still
11 us where a sampler drops it, so what is not sampled makes no span at all.
"""

from __future__ import annotations

from contextvars import ContextVar

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from giclee.bus import telemetry
from giclee.bus.stage import Context, Delivery, Emits, Next

_PROPAGATOR = TraceContextTextMapPropagator()


_PASSED_ON: ContextVar[str | None] = ContextVar("traceparent", default=None)
"""The sender's traceparent, for records that are not sampled: their trace goes on without a span of ours."""


def traceparent() -> str | None:
    """The handler's span as a W3C header, else the sender's; None where there is neither."""
    return _PASSED_ON.get()


def linked(old: str | None, name: str) -> str | None:
    """The header of a new trace that is linked to the one of the header `old`; None where that is not sampled."""
    if old is None or not telemetry.is_sampled(old):
        return None
    remote = trace.get_current_span(_PROPAGATOR.extract({"traceparent": old})).get_span_context()
    links = [trace.Link(remote)] if remote.is_valid else []
    with trace.get_tracer("giclee.bus").start_as_current_span(name, links=links, kind=trace.SpanKind.PRODUCER):
        return _of_this_span()


def _of_this_span() -> str | None:
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get("traceparent")


def _links(delivery: Delivery) -> list[trace.Link]:
    if delivery.envelope.traceparent is None:
        return []
    remote = _PROPAGATOR.extract({"traceparent": delivery.envelope.traceparent})
    sender = trace.get_current_span(remote).get_span_context()
    return [trace.Link(sender)] if sender.is_valid else []


def layer(context: Context, inner: Next) -> Next:
    """Opens the handler's span and binds what log lines should carry."""
    tracer = trace.get_tracer("giclee.bus")
    stage = context.stage.name
    name = f"handle {stage}"

    async def traced(delivery: Delivery) -> Emits:
        envelope = delivery.envelope
        telemetry.handling(stage, envelope.subject)
        _PASSED_ON.set(envelope.traceparent)
        if not telemetry.is_sampled(envelope.traceparent):
            passed: Emits = await inner(delivery)
            return passed
        place = {"giclee.stage": stage, "messaging.destination.name": delivery.record.topic}
        links = _links(delivery)
        # an error's own words stay out of traces: they may quote what nobody should read
        with tracer.start_as_current_span(
            name,
            links=links,
            attributes=place,
            kind=trace.SpanKind.CONSUMER,
            record_exception=False,
            set_status_on_exception=False,
        ):
            _PASSED_ON.set(_of_this_span())
            emits: Emits = await inner(delivery)
            return emits

    return traced
