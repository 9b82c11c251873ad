"""Public events as Avro: our own round trip, foreign and hostile frames, and the real registry."""

from __future__ import annotations

import asyncio
import io
import json
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import fastavro
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from giclee.bus import avro
from giclee.bus.avro import Avro
from giclee.bus.errors import Poison, Transient
from giclee.bus.layers import codec
from giclee.bus.transport import Record
from giclee.schemas import envelope as wire
from giclee.schemas import topics
from giclee.schemas.events import Event, ImageApproved, ImageRequested, RequestClosed
from giclee.schemas.strict import InvalidInput
from tests.kit.stack import RegistryRunning, registry_part

SCHEMAS_FOLDER = Path(__file__).parents[2] / "schemas"
EVENTS: tuple[type[Event], ...] = (ImageRequested, ImageApproved, RequestClosed)
SCHEMAS = {
    event.type_name: json.loads((SCHEMAS_FOLDER / "avro" / f"{event.__name__}.v1.avsc").read_text()) for event in EVENTS
}


class MemoryRegistry:
    """A registry in a dict."""

    def __init__(self) -> None:
        self.schemas: dict[int, Any] = {}
        self.away = False

    async def schema(self, number: int) -> Any:
        if self.away:
            raise Transient("away")
        if number not in self.schemas:
            raise avro._invalid("unknown")
        return self.schemas[number]

    async def number(self, subject: str, schema: Any) -> int:
        if self.away:
            raise Transient("away")
        self.schemas.setdefault(len(self.schemas) + 1, schema)
        return next(number for number, known in self.schemas.items() if known == schema)


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


@pytest.fixture
def both_ways(registry: MemoryRegistry) -> Avro:
    return Avro(registry, SCHEMAS)


def example(event: type[Event]) -> Event:
    return event.model_validate_json((SCHEMAS_FOLDER / "examples" / f"{event.__name__}.json").read_bytes())


def record_of(event: Event) -> Record:
    return codec.encode(event, source="test")


def framed(number: int, schema: Any, value: Any) -> Record:
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(schema), value)
    return Record(topic=topics.topic_of(ImageRequested), value=struct.pack(">bI", 0, number) + body.getvalue())


@pytest.mark.parametrize("event", EVENTS)
async def test_an_event_survives_both_ways(both_ways: Avro, event: type[Event]) -> None:
    """JSON to Avro and back is the same event, and the content type says what it is on the way."""
    record = record_of(example(event))
    sent = await both_ways.from_json(record)
    assert both_ways.framed(sent) and sent.value is not None and sent.value[:1] == b"\x00"
    assert wire.read(sent.headers).content_type == wire.AVRO
    back = await both_ways.to_json(sent)
    assert wire.read(back.headers).content_type == wire.JSON and not both_ways.framed(back)
    assert event.model_validate_json(back.value or b"") == example(event)


async def test_values_of_any_shape_survive(both_ways: Avro) -> None:
    """Objects of any shape travel as text; template variables keep their types; what is absent stays absent."""
    asked = {
        "template": {"id": "tile", "version": 2, "variables": {"n": 3, "b": True, "s": "x", "f": 1.5}},
        "extensions": {"deep": [{"a": None}, 1, "ü"]},
        "budget_usd": "0.0004",
        "labels": {"k": "v"},
    }
    event = ImageRequested.model_validate({**asked, "request_id": "0" * 8 + "-0000-4000-8000-" + "0" * 12})
    back = await both_ways.to_json(await both_ways.from_json(record_of(event)))
    assert json.loads(back.value or b"")["template"] == asked["template"]
    assert ImageRequested.model_validate_json(back.value or b"") == event


async def test_an_event_without_a_schema_stays_json(both_ways: Avro) -> None:
    """Only the events that have an Avro schema become Avro."""
    revoked = Record(topic="t", value=b"{}", headers=(("ce_type", b"giclee.ImageRevoked.v1"),))
    assert await both_ways.from_json(revoked) is revoked


async def test_a_foreign_schema_is_read_by_what_it_says(both_ways: Avro, registry: MemoryRegistry) -> None:
    """An upstream system may register a smaller schema of its own; enums and named types are followed."""
    registry.schemas[7] = {
        "type": "record",
        "name": "Ask",
        "namespace": "shop",
        "fields": [
            {"name": "prompt", "type": "string"},
            {"name": "quality", "type": {"type": "enum", "name": "Quality", "symbols": ["draft", "final"]}},
            {"name": "size", "type": {"type": "record", "name": "Size", "fields": [
                {"name": "width", "type": "int"}, {"name": "height", "type": "int"}]}},
            {"name": "other_size", "type": ["null", "Size"], "default": None},
        ],
    }  # fmt: skip
    value = {"prompt": "a red circle", "quality": "draft", "size": {"width": 64, "height": 32}, "other_size": None}
    found = await both_ways.to_json(framed(7, registry.schemas[7], value))
    assert json.loads(found.value or b"") == {key: one for key, one in value.items() if one is not None}


RECORD = {"type": "record", "name": "R", "fields": [{"name": "prompt", "type": "string"}]}
RECURSIVE = {"type": "record", "name": "R", "fields": [{"name": "r", "type": ["null", "R"]}]}
INNER = {"type": "record", "name": "B", "fields": [{"name": "a", "type": ["null", "A"]}]}
MUTUAL = {"type": "record", "name": "A", "fields": [{"name": "b", "type": INNER}]}
NULLS = {"type": "record", "name": "R", "fields": [{"name": "a", "type": {"type": "array", "items": "null"}}]}
HOLLOW = {"type": "array", "items": {"type": "record", "name": "E", "fields": [{"name": "x", "type": "null"}]}}


def doubling(depth: int) -> Any:
    """Records of two of the next: 2^depth empty parts from no bytes at all."""
    schema: Any = {"type": "record", "name": "N0", "fields": []}
    for number in range(1, depth):
        fields = [{"name": "a", "type": schema}, {"name": "b", "type": f"N{number - 1}"}]
        schema = {"type": "record", "name": f"N{number}", "fields": fields}
    return schema


@pytest.mark.parametrize(
    "schema", [RECURSIVE, MUTUAL, NULLS, HOLLOW, doubling(20), doubling(60), {"type": "nonsense"}, "Unknown", {}, 3, []]
)
async def test_a_schema_that_could_hurt_is_refused(both_ways: Avro, registry: MemoryRegistry, schema: Any) -> None:
    """Recursion, items of no size and parts without number are refused before a byte is read with them."""
    registry.schemas[9] = schema
    record = Record(topic="t", value=struct.pack(">bI", 0, 9) + b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f" * 3)
    with pytest.raises(InvalidInput):
        await asyncio.wait_for(both_ways.to_json(record), 5)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x00",
        b"\x00\x00\x00\x00",
        b"\x01\x00\x00\x00\x01\x02a",  # the other framing
        b"{}",
        b"\x00\x00\x00\x00\x63\x02a",  # an id that nobody knows
        b"\x00\x00\x00\x00\x01",  # no body
        b"\x00\x00\x00\x00\x01\x04a",  # cut off
        b"\x00\x00\x00\x00\x01\x02ab",  # something left over
        b"\x00\x00\x00\x00\x01\x02\xff",  # not UTF-8
        b"\x00\x00\x00\x00\x01\x01",  # a negative length
        b"\x00\x00\x00\x00\x01" + b"\xff" * 12,  # a number without end
        b"\x00\x00\x00\x00\x01\xfe\xff\xff\xff\xff\xff\xff\xff\x7f",  # 2^55 bytes announced
        b"\x00\x00\x00\x00\x01" + b"x" * (avro.VALUE_MAX_BYTES + 1),
    ],
)
async def test_a_bad_frame_is_invalid_input(both_ways: Avro, registry: MemoryRegistry, value: bytes) -> None:
    """Whatever the bytes: an error of the record, never a crash, never an outage."""
    registry.schemas[1] = RECORD
    with pytest.raises(InvalidInput):
        await both_ways.to_json(Record(topic="t", value=value))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
async def test_a_number_that_is_none_is_invalid(both_ways: Avro, registry: MemoryRegistry, number: float) -> None:
    """NaN must not turn into a missing value on the way to JSON."""
    schema = {"type": "record", "name": "R", "fields": [{"name": "x", "type": ["null", "double"]}]}
    registry.schemas[1] = schema
    with pytest.raises(InvalidInput):
        await both_ways.to_json(framed(1, schema, {"x": number}))


async def test_a_registry_that_is_away_is_an_outage(both_ways: Avro, registry: MemoryRegistry) -> None:
    """No record dies of it, in either direction; what is known already needs no registry."""
    sent = await both_ways.from_json(record_of(example(RequestClosed)))
    await both_ways.to_json(sent)
    registry.away = True
    await both_ways.to_json(sent)
    with pytest.raises(Transient) as caught:
        await Avro(registry, SCHEMAS).to_json(sent)
    assert caught.value.scope == "dependency"
    with pytest.raises(Transient):
        await both_ways.from_json(record_of(example(RequestClosed)))


async def test_a_value_that_does_not_fit_is_poison(both_ways: Avro) -> None:
    """An event that our own schema cannot hold is not sent as something else."""
    record = Record(topic="t", value=b'{"wanted": "many"}', headers=(("ce_type", b"giclee.RequestClosed.v1"),))
    with pytest.raises(Poison):
        await both_ways.from_json(record)


# ---- the real one -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> Iterator[RegistryRunning]:
    with registry_part() as running:
        yield running


@asynccontextmanager
async def connected(real: RegistryRunning) -> AsyncIterator[Avro]:
    async with avro.connect(real.schema_registry_url, SCHEMAS) as opened:
        yield opened


@pytest.mark.parametrize("event", EVENTS)
async def test_others_read_what_we_wrote(real: RegistryRunning, event: type[Event]) -> None:
    """Confluent's own deserializer reads our record, and a second process of ours does."""
    async with connected(real) as ours, connected(real) as other:
        sent = await ours.from_json(record_of(example(event)))
        theirs = AvroDeserializer(SchemaRegistryClient({"url": real.schema_registry_url}))
        context = SerializationContext(sent.topic, MessageField.VALUE)
        found = await asyncio.to_thread(theirs, sent.value, context)
        assert found["request_id"] == str(example(event).request_id)  # type: ignore[attr-defined]
        assert event.model_validate_json((await other.to_json(sent)).value or b"") == example(event)


async def test_we_read_what_others_wrote(real: RegistryRunning) -> None:
    """A request by Confluent's own serializer, without any header of ours, is the same request."""
    schema = SCHEMAS[ImageRequested.type_name]
    registry = SchemaRegistryClient({"url": real.schema_registry_url})
    write = AvroSerializer(registry, json.dumps(schema), conf={"auto.register.schemas": True})
    asked: dict[str, Any] = {field["name"]: None for field in schema["fields"]}
    asked |= {"request_id": "6b1d2c5e-51f0-4d0a-9a52-67696c636565", "prompt": "a red circle", "wanted": 2}
    topic = topics.topic_of(ImageRequested)
    value = await asyncio.to_thread(write, asked, SerializationContext(topic, MessageField.VALUE))
    async with connected(real) as ours:
        record = Record(topic=topic, value=value)
        assert ours.framed(record)
        found = json.loads((await ours.to_json(record)).value or b"")
        assert found == {name: one for name, one in asked.items() if one is not None}
        unknown = Record(topic=topic, value=b"\x00\x00\xff\xff\xff" + (value or b"")[5:])
        with pytest.raises(InvalidInput):
            await ours.to_json(unknown)


async def test_a_stopped_registry_is_an_outage() -> None:
    """Nobody listens: Transient, soon."""
    async with avro.connect("http://127.0.0.1:9/apis/ccompat/v7", SCHEMAS) as ours:
        with pytest.raises(Transient):
            await asyncio.wait_for(ours.from_json(record_of(example(RequestClosed))), 5)
