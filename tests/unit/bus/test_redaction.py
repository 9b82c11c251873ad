"""No secret in what is written about an error: canaries in every secret setting and in callers' words, every fault."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel, ValidationError

from giclee.bus import redaction, settings, telemetry
from giclee.bus.errors import Exhausted, Poison, Transient
from giclee.bus.layers import around
from giclee.bus.stage import Context, Delivery, Stage
from giclee.bus.transport import Record
from giclee.publisher.settings import PublisherSettings
from giclee.schemas import envelope as wire
from giclee.schemas.events import ImageRequested
from giclee.schemas.parts import Position, Reason
from tests.kit.loops import request_record

CANARY = "canary/7f3a+91bd-e6c4"
"""With characters that connection strings and query strings escape."""
WORDS = "a canary-coloured prompt of somebody"


ENVIRONMENT = {
    "DATABASE_URL": f"postgresql://giclee:{quote(CANARY, safe='')}@db/giclee",
    "AWS_ACCESS_KEY_ID": CANARY,
    "AWS_SECRET_ACCESS_KEY": CANARY,
    "GICLEE_BUCKET": "pictures",
    "GICLEE_API_KEY": CANARY,
    "KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
    "SCHEMA_REGISTRY_URL": f"http://giclee:{quote(CANARY, safe='')}@registry:8081",
}


@pytest.fixture(autouse=True)
def _settings() -> None:
    redaction.hide_secrets_of(settings.read(PublisherSettings, ENVIRONMENT))


class Inner(BaseModel):
    number: int


def _misfit() -> ValidationError:
    """A bug that quotes what a caller wrote."""
    try:
        Inner.model_validate({"number": WORDS})
    except ValidationError as error:
        return error
    raise AssertionError


def _chained(message: str) -> Exception:
    try:
        try:
            raise KeyError(message)
        except KeyError as cause:
            raise RuntimeError(f"failed: {message}") from cause
    except RuntimeError as error:
        return error


FORMS = (CANARY, quote(CANARY, safe=""), f"postgresql://giclee:{CANARY}@db", f"https://s3/x?X-Amz-Signature={CANARY}")
FAULTS: dict[str, Any] = {
    "poison": lambda text: Poison(text, reasons=(Reason(code="poison", stage="s", message=text),)),
    "exhausted": lambda text: Exhausted(text),
    "record": lambda text: Transient(text, scope="record"),
    "deadline": lambda text: Poison(text, dead_class="deadline"),
    "bug": _chained,
    "group": lambda text: ExceptionGroup(text, [ValueError(text)]),
    "misfit": lambda text: _misfit(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_every_fault_leaves_no_canary_anywhere(fault: str, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither in headers of the dead letter, nor in the stall, nor in a log line or its traceback."""
    sent: list[Record] = []

    async def send(records: Sequence[Record]) -> Sequence[Position]:
        sent.extend(records)
        return [Position(topic=record.topic, partition=0, offset=1) for record in records]

    async def fails(event: Any) -> list[Any]:
        raise FAULTS[fault](form)

    async def at_once(seconds: float) -> None: ...

    stage = Stage(name="policy", reads=(ImageRequested,), emits=(), handle=fails)
    context = Context(stage=stage, send=send, cluster_id="c", parts={"sleep": at_once})
    record = dataclasses.replace(request_record(), partition=0, offset=1, timestamp_ms=1)
    found = wire.read(record.headers).at(record.origin(), 1, record.value)
    emitted = await around(context, lambda delivery: fails(delivery.event))(Delivery(record=record, envelope=found))

    (letter,) = sent
    (stall,) = emitted
    written = [raw for _, raw in letter.headers] + [stall.value or b""]
    log = capsys.readouterr().out
    assert "dead letter" in log
    for canary in (CANARY, quote(CANARY, safe=""), WORDS):
        assert not any(canary.encode() in raw for raw in written), fault
        assert canary not in log and json.dumps(canary)[1:-1] not in log, fault


def test_a_log_line_hides_secrets_in_any_field_and_says_where_an_error_came_from(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whatever the field is called, however deep; places in the code are kept, causes too."""
    error = _chained(f"password {CANARY}")
    telemetry.logger("t").error("away", error=f"cannot reach {CANARY}", more={"deep": [CANARY]}, exc_info=error)
    out = capsys.readouterr().out

    assert CANARY not in out
    assert "RuntimeError" in out and "KeyError" in out and "test_redaction.py" in out


async def test_spans_carry_no_words_of_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage reaches the outermost layer; its message is no event of a span."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("opentelemetry.trace.get_tracer", provider.get_tracer)

    async def away(event: Any) -> list[Any]:
        raise Transient(f"no bucket with {CANARY}")

    async def send(records: Sequence[Record]) -> Sequence[Position]:
        return []

    monkeypatch.setattr(telemetry, "is_sampled", lambda traceparent: True)
    stage = Stage(name="policy", reads=(ImageRequested,), emits=(), handle=away)
    record = dataclasses.replace(request_record(), partition=0, offset=1, timestamp_ms=1)
    found = wire.read(record.headers).at(record.origin(), 1, record.value)
    context = Context(stage=stage, send=send, cluster_id="c")
    with pytest.raises(Transient):
        await around(context, lambda delivery: away(delivery.event))(Delivery(record=record, envelope=found))

    (span,) = exporter.get_finished_spans()
    assert CANARY not in span.to_json()
