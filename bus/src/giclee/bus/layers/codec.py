"""Bytes to events and back. On public-in topics anyone may write, so there the strict door parses; inside,
our own encoder is trusted. The first reader of a topic (its row in the topics table) owns what cannot be
decoded and makes the dead letter; other readers skip such a record and count it.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

import orjson
from pydantic import ValidationError

from giclee.bus import telemetry
from giclee.bus.errors import Poison
from giclee.bus.layers import tracing
from giclee.bus.stage import Context, Delivery, Emits, Next
from giclee.bus.transport import Record
from giclee.schemas import envelope as wire
from giclee.schemas import ids, parts, strict, topics
from giclee.schemas.envelope import Envelope
from giclee.schemas.events import CancelRequested, Event, ImageRequested, RequestEvent
from giclee.schemas.parts import Reason

SCHEMA_URI = "https://giclee.dev/schemas/json/{name}.v1.json"
"""`ce_dataschema`: an identifier, not a promise that something answers there."""

EVENT_MAX_BYTES = topics.MIB - 16 * 1024
"""Of an event's value: with its headers it must fit its topic, or nothing behind it would ever be sent."""

_PUBLIC_IN: dict[str, type[Event]] = {topics.topic_of(event): event for event in (ImageRequested, CancelRequested)}


class Undecodable(Poison):
    """A record that is no event of its topic; `dead_class` is `invalid`."""


def _undecodable(errors: Sequence[strict.FieldError], stage: str) -> Undecodable:
    reasons = tuple(Reason(code=e.code, stage=stage, message=e.detail, pointer=e.pointer) for e in errors)
    text = "; ".join(f"{error.pointer or '/'}: {error.detail}" for error in errors[:5])
    return Undecodable(text, dead_class="invalid", reasons=reasons)


# ---- encode -------------------------------------------------------------------------------------


def encode(event: Event, *, source: str, cause: Envelope | None = None) -> Record:
    """The record of an event of ours, for the topic that the topics table names."""
    key = event.key()
    headers = wire.write(
        id=event.event_id_text(),
        type=event.type_name,
        source=source,
        subject=key if type(event).key is RequestEvent.key else _subject_of(event),
        cause=cause.id if cause else None,
        traceparent=tracing.traceparent(),
        dataschema=_schema_of(type(event)),
    )
    value = event.__pydantic_serializer__.to_json(event, exclude_none=True, by_alias=True)
    return Record(topic=topics.topic_for(event), key=key.encode(), value=value, headers=headers)


def _subject_of(event: Event) -> str | None:
    """The request of an event that has another key, if it belongs to one."""
    request_id = getattr(event, "request_id", None)
    return str(request_id) if request_id else None


@cache
def _schema_of(event: type[Event]) -> str:
    return SCHEMA_URI.format(name=event.__name__)


# ---- decode -------------------------------------------------------------------------------------


def _structured(value: Any, envelope: Envelope) -> tuple[Any, Envelope]:
    """A CloudEvent in structured mode, taken apart. Errors: InvalidInput."""
    if not isinstance(value, dict) or ("data" not in value and "data_base64" not in value):
        raise strict.InvalidInput([strict.FieldError("/data", "a structured CloudEvent needs data")])
    named = {name: value.get(name) for name in ("id", "type", "source", "subject", "time")}
    texts = {name: text for name, text in named.items() if isinstance(text, str)}
    known: dict[str, Any] = {name: text for name, text in texts.items() if len(text) <= wire.ATTRIBUTE_MAX_BYTES}
    inner = value.get("data")
    if inner is None:
        inner = strict.parse_json(_from_base64(str(value.get("data_base64"))))
    return inner, replace(envelope, **known)


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise strict.InvalidInput([strict.FieldError("/data_base64", "is not base64")]) from None


def _request_id(envelope: Envelope, record: Record, cluster_id: str) -> str:
    """The id of a request that brought none: contract 3.1, first row. Put back, it keeps the id it had."""
    if envelope.source and envelope.id:
        return ids.derived_text(envelope.source, envelope.id)
    if envelope.replay_for and envelope.subject and parts.is_uuid(envelope.subject):
        return envelope.subject
    place = (cluster_id, record.topic, record.partition, record.offset, record.timestamp_ms)
    return ids.derived_text(*place)


def decode_public(record: Record, envelope: Envelope, cluster_id: str) -> Event:
    """A request or cancel as anyone may have written it, its envelope remembered. Errors: InvalidInput with every
    reason."""
    if not record.value:
        raise strict.InvalidInput([strict.FieldError("", "the record has no value", "empty_value")])
    model = _PUBLIC_IN[record.topic]
    value = strict.parse_json(record.value)
    if envelope.content_type.partition(";")[0].strip().lower() == wire.STRUCTURED:
        value, envelope = _structured(value, envelope)
    if envelope.type not in (None, model.type_name):
        raise strict.InvalidInput([strict.FieldError("", f"ce_type is {envelope.type!r}, not {model.type_name}")])
    if model is CancelRequested:
        return strict.cancel_from(value).delivered(envelope)
    if isinstance(value, dict) and value.get("request_id") is None:
        value = {**value, "request_id": _request_id(envelope, record, cluster_id)}
    return strict.request_from(value).delivered(envelope)


def decode_own(record: Record, envelope: Envelope) -> Event:
    """An event that one of our stages wrote. Errors: InvalidInput."""
    model = _model_of(record.topic, envelope.type)
    if model is None:
        raise strict.InvalidInput(
            [strict.FieldError("", f"ce_type {envelope.type!r} does not belong on {record.topic}")]
        )
    if not record.value:
        raise strict.InvalidInput([strict.FieldError("", "the record has no value", "empty_value")])
    try:
        found: Event = model.__pydantic_validator__.validate_json(record.value)
        return found
    except ValidationError as error:
        rows = error.errors(include_url=False, include_context=False, include_input=False)
        raise strict.InvalidInput(
            [strict.FieldError(strict.pointer(row["loc"]), row["msg"], "undecodable") for row in rows]
        ) from None


@lru_cache(maxsize=256)
def _model_of(topic: str, type_name: str | None) -> type[Event] | None:
    """The event that a record must be; without a type, the topic's only one. Bounded: anyone may write types."""
    known = topics.events_on(topic)
    if type_name is None:
        return known[0] if len(known) == 1 else None
    return next((event for event in known if event.type_name == type_name), None)


def decode(record: Record, envelope: Envelope, cluster_id: str) -> Event:
    """The event in a record, its envelope remembered. Errors: InvalidInput."""
    if record.topic in _PUBLIC_IN:
        return decode_public(record, envelope, cluster_id)
    return decode_own(record, envelope).delivered(envelope)


def peek(value: bytes | None) -> dict[str, Any]:
    """Whatever can be read of a value that may be anything: a dict, empty when it is none."""
    try:
        found = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


# ---- the layer ----------------------------------------------------------------------------------


def layer(context: Context, inner: Next) -> Next:
    """Decodes for the handler, encodes what it returns, and refuses what the stage may not emit."""
    stage = context.stage
    source = f"giclee/{stage.name}"
    allowed = frozenset(stage.emits)
    avro = context.parts.get("avro")

    def owns(topic: str) -> bool:
        return topics.owner_of(topic) == stage.name

    async def coded(delivery: Delivery) -> Emits:
        envelope, record = delivery.envelope, delivery.record
        if envelope.replay_for is not None and envelope.replay_for != stage.name:
            if owns(record.topic) and not topics.is_read_by(record.topic, envelope.replay_for):
                nobody = f"{wire.REPLAY_FOR}: no stage {envelope.replay_for[:64]} reads {record.topic}"
                raise _undecodable([strict.FieldError("", nobody)], stage.name)
            return ()
        try:
            if avro is not None and avro.framed(record):
                record = await avro.to_json(record)
            delivery.event = decode(record, envelope, context.cluster_id)
            delivery.envelope = envelope = delivery.event.envelope
        except strict.InvalidInput as error:
            if owns(record.topic) and not envelope.discard:  # who gives up what is no event ends nothing
                raise _undecodable(error.errors, stage.name) from error
            telemetry.count("giclee_records_skipped_total", stage=stage.name, why="undecodable")
            return ()
        made: Sequence[Event] = await inner(delivery)
        for event in made:
            if type(event) not in allowed:
                raise TypeError(f"{stage.name} emitted {type(event).__name__}, which its stage does not name")
        emits = [encode(event, source=source, cause=envelope) for event in made]
        for record in emits:
            if len(record.value or b"") > EVENT_MAX_BYTES:
                raise Poison(f"emitted {len(record.value or b'')} bytes; {record.topic} takes {EVENT_MAX_BYTES}")
        return emits

    return coded
