"""Public events as Avro with Confluent framing (byte 0, a 4-byte schema id), where a schema registry is set.

Inside the process everything stays JSON: `from_json` runs in the outbox' relays, `to_json` before the codec.
Avro has null where JSON has nothing, and text where JSON has an object of any shape (`"giclee": "json"`).
Whoever registers a schema decides what we read with it, so ones that could hurt the reader are refused:
recursion (the library dies of it), items without a size (a few bytes could claim 2^60 of them), too many parts.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import aiohttp
import fastavro
import orjson

from giclee.bus.errors import Poison, Transient
from giclee.bus.settings import KafkaSettings
from giclee.bus.transport import Record
from giclee.schemas import avro as generated
from giclee.schemas import envelope as wire
from giclee.schemas import topics
from giclee.schemas.strict import FieldError, InvalidInput

VALUE_MAX_BYTES = topics.MIB
SCHEMA_MAX_BYTES = 256 * 1024
SCHEMA_DEPTH_MAX = 32
SCHEMA_PARTS_MAX = 10_000
SCHEMAS_KEPT = 500
REGISTRY_TIMEOUT_S = 3.0
_FRAME = struct.Struct(">bI")

_UNREADABLE = (
    ArithmeticError, AttributeError, AssertionError, EOFError, LookupError, MemoryError, RecursionError, TypeError,
    ValueError, struct.error, fastavro.schema.SchemaParseException, fastavro.read.SchemaResolutionError,
)  # fmt: skip
"""What the library raises for bytes that are not of their schema; it has no error of its own for that."""

Schema = Any
"""An Avro schema as JSON: a word, a list (union), or a dict."""


class Registry(Protocol):
    """A schema registry. Errors: Transient when it does not answer, InvalidInput for an id that it lacks."""

    async def schema(self, number: int) -> Schema: ...
    async def number(self, subject: str, schema: Schema) -> int: ...


class _Reader(NamedTuple):
    """A schema that others wrote with, and its named types."""

    schema: Schema
    parsed: Any
    named: Mapping[str, Schema]


class Avro:
    """Both directions. `schemas`: ce_type -> the schema that we write it with."""

    def __init__(self, registry: Registry, schemas: Mapping[str, Schema], *, topic_prefix: str = "") -> None:
        self._registry = registry
        self._schemas = schemas
        self._prefix = topic_prefix
        self._writers = {name: fastavro.parse_schema(schema) for name, schema in schemas.items()}
        self._readers: dict[int, _Reader] = {}

    def framed(self, record: Record) -> bool:
        """Whether the value is Avro: by its content type, or by a first byte that JSON cannot have."""
        value = record.value or b""
        return value[:1] == b"\x00" or wire.read(record.headers).content_type == wire.AVRO

    async def to_json(self, record: Record) -> Record:
        """The same record as JSON. Errors: InvalidInput for a frame, an id or a body that cannot be read,
        Transient when the registry is away."""
        value = record.value or b""
        if len(value) > VALUE_MAX_BYTES:
            raise _invalid(f"{len(value)} bytes are more than {VALUE_MAX_BYTES}", "too_large")
        if len(value) < _FRAME.size or value[0] != 0:
            raise _invalid("the value does not start with Confluent's frame: byte 0 and a 4-byte schema id")
        reader = await self._reader(_FRAME.unpack_from(value)[1])
        body = io.BytesIO(value[_FRAME.size :])
        with _readable():
            plain = _thawed(reader.schema, fastavro.schemaless_reader(body, reader.parsed, None), reader.named)
        if body.read(1):
            raise _invalid("bytes are left over behind the Avro body")
        return replace(record, value=orjson.dumps(plain), headers=_typed(record, wire.JSON))

    async def _reader(self, number: int) -> _Reader:
        if number not in self._readers:
            schema = await self._registry.schema(number)
            with _readable():
                named = _harmless(schema)
                reader = _Reader(schema, fastavro.parse_schema(schema), named)
            if len(self._readers) >= SCHEMAS_KEPT:
                self._readers.clear()
            self._readers[number] = reader
        return self._readers[number]

    async def from_json(self, record: Record) -> Record:
        """The same record as Avro where its event has a schema, else as it is. Errors: Transient when the
        registry is away or refuses our schema, Poison when the value does not fit it."""
        name = wire.read(record.headers).type or ""
        if name not in self._schemas or record.value is None:
            return record
        schema = self._schemas[name]
        number = await self._registry.number(f"{self._prefix}{record.topic}-value", schema)
        body = io.BytesIO()
        body.write(_FRAME.pack(0, number))
        try:
            fastavro.schemaless_writer(body, self._writers[name], _frozen(schema, orjson.loads(record.value), {}))
        except _UNREADABLE as error:
            raise Poison(f"{name} does not fit its Avro schema: {error}") from error
        return replace(record, value=body.getvalue(), headers=_typed(record, wire.AVRO))


def _typed(record: Record, content_type: str) -> wire.Headers:
    kept = tuple(pair for pair in record.headers if pair[0] != "content-type")
    return (*kept, ("content-type", content_type.encode()))


def _invalid(detail: str, code: str = "undecodable") -> InvalidInput:
    return InvalidInput([FieldError("", detail, code)])


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except InvalidInput:
        raise
    except _UNREADABLE as error:
        raise _invalid(f"the body is not of its schema: {type(error).__name__} {str(error)[:200]}") from error


# ---- JSON and Avro ------------------------------------------------------------------------------


_KINDS: dict[type, tuple[str, ...]] = {dict: ("record", "map"), list: ("array",), str: ("string", "enum")}


def _is_json_text(schema: Schema) -> bool:
    return isinstance(schema, dict) and schema.get("giclee") == "json"


def _thawed(schema: Schema, value: Any, named: Mapping[str, Schema]) -> Any:
    """What the reader gave, as the event's JSON has it: no nulls, objects where Avro had their text."""
    schema = named.get(schema, schema) if isinstance(schema, str) else schema
    if isinstance(schema, list):
        return _thawed(_branch(schema, value, named), value, named)
    if isinstance(value, float) and not math.isfinite(value):
        raise _invalid("a number is not finite", "not_finite")
    if _is_json_text(schema) and isinstance(value, str):
        return orjson.loads(value)
    if isinstance(value, bytes):
        raise _invalid("bytes have no JSON form")
    kind = schema.get("type") if isinstance(schema, dict) else schema
    if kind == "record":
        fields = {field["name"]: field["type"] for field in schema["fields"]}
        return {name: _thawed(fields[name], one, named) for name, one in value.items() if one is not None}
    if kind == "array":
        return [_thawed(schema["items"], one, named) for one in value]
    if kind == "map":
        return {name: _thawed(schema["values"], one, named) for name, one in value.items()}
    return value if not isinstance(kind, (dict, list)) else _thawed(kind, value, named)


def _branch(union: list[Schema], value: Any, named: Mapping[str, Schema]) -> Schema:
    """The branch that a value came from, as far as it matters: which record, whether JSON text."""
    whole = [named.get(one, one) if isinstance(one, str) else one for one in union]
    kinds = _KINDS.get(type(value), ())
    fitting = [one for one in whole if isinstance(one, dict) and one.get("type") in kinds]
    if isinstance(value, dict):
        keys = value.keys()
        fitting.sort(key=lambda one: keys != {field["name"] for field in one.get("fields", ())})
    return fitting[0] if fitting else "null"


def _frozen(schema: Schema, value: Any, named: dict[str, Schema]) -> Any:
    """An event's JSON as the writer wants it: every field there, objects of any shape as their text."""
    if isinstance(schema, dict) and "name" in schema:
        named[schema["name"]] = schema
    schema = named.get(schema, schema) if isinstance(schema, str) else schema
    if isinstance(schema, list):
        others = [one for one in schema if one != "null"]
        return None if value is None else _frozen(others[0], value, named) if len(others) == 1 else value
    if _is_json_text(schema):
        return orjson.dumps(value).decode()
    kind = schema.get("type") if isinstance(schema, dict) else schema
    if kind == "record":
        return {field["name"]: _frozen(field["type"], value.get(field["name"]), named) for field in schema["fields"]}
    if kind == "array":
        return [_frozen(schema["items"], one, named) for one in value]
    if kind == "map":
        return {name: _frozen(schema["values"], one, named) for name, one in value.items()}
    return value


class _Extent(NamedTuple):
    """The fewest bytes a value of a schema has, and how many parts it has whatever its bytes."""

    bytes: int
    parts: int


def _harmless(schema: Schema) -> Mapping[str, Schema]:
    """The named types of a schema that cannot hurt. Errors: InvalidInput for one that could."""
    inspection = _Inspection()
    if inspection.extent(schema, ()).parts > SCHEMA_PARTS_MAX:
        raise _invalid("the schema has too many parts")
    return inspection.named


class _Inspection:
    """Walks a schema once. `inside` are the names of the records we are in."""

    def __init__(self) -> None:
        self.named: dict[str, Schema] = {}
        self._extents: dict[str, _Extent] = {}

    def extent(self, schema: Schema, inside: tuple[str, ...]) -> _Extent:
        if len(inside) > SCHEMA_DEPTH_MAX:
            raise _invalid("the schema is nested too deeply")
        if isinstance(schema, list):
            every = [self.extent(one, (*inside, "")) for one in schema]
            return _Extent(1, 1 + max((one.parts for one in every), default=0))
        if isinstance(schema, str):
            return self._word(schema, inside)
        kind = schema["type"]
        if kind == "array" or kind == "map":
            return self._many(self.extent(schema["items" if kind == "array" else "values"], (*inside, "")), kind)
        if kind == "record" or kind == "error":
            every = [self.extent(field["type"], (*inside, schema["name"])) for field in schema["fields"]]
            found = _Extent(sum(one.bytes for one in every), 1 + sum(one.parts for one in every))
            return self._remember(schema, found)
        if kind == "fixed" or kind == "enum":
            return self._remember(schema, _Extent(int(schema.get("size", 1)), 1))
        return self.extent(kind, (*inside, ""))

    def _word(self, word: str, inside: tuple[str, ...]) -> _Extent:
        if word in self._extents:
            return self._extents[word]
        if word.rpartition(".")[2] in {name.rpartition(".")[2] for name in inside if name}:
            raise _invalid("the schema is recursive")
        return _Extent(0 if word == "null" else 1, 1)

    def _many(self, one: _Extent, kind: str) -> _Extent:
        if one.bytes == 0 and kind == "array":
            raise _invalid("the schema has items of no size")
        return _Extent(1, 1 + one.parts)

    def _remember(self, schema: Schema, found: _Extent) -> _Extent:
        name = str(schema["name"])
        for one in (name, f"{schema.get('namespace', '')}.{name}".lstrip(".")):
            self.named[one], self._extents[one] = schema, found
        return found


# ---- the registry -------------------------------------------------------------------------------


@asynccontextmanager
async def connect(url: str, schemas: Mapping[str, Schema], *, topic_prefix: str = "") -> AsyncIterator[Avro]:
    """Avro with the registry at `url` (Confluent's API). Nothing is contacted before it is needed."""
    timeout = aiohttp.ClientTimeout(total=REGISTRY_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as http:
        yield Avro(HttpRegistry(http, url.rstrip("/")), schemas, topic_prefix=topic_prefix)


@asynccontextmanager
async def of_settings(settings: KafkaSettings) -> AsyncIterator[Avro | None]:
    """Avro of the public events where SCHEMA_REGISTRY_URL is set; None where everything stays JSON."""
    if settings.schema_registry_url is None:
        yield None
        return
    ours = {event.type_name: generated.schema_of(event) for event in generated.EVENTS}
    async with connect(settings.schema_registry_url, ours, topic_prefix=settings.topic_prefix) as found:
        yield found


class HttpRegistry:
    """A registry over Confluent's HTTP API. Our own ids are kept; schemas are kept by whoever reads with them."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url
        self._numbers: dict[str, int] = {}

    async def schema(self, number: int) -> Schema:
        said = await self._ask("GET", f"/schemas/ids/{number}")
        if said is None:
            raise _invalid(f"the registry has no schema {number}")
        if said.get("schemaType", "AVRO") != "AVRO" or said.get("references"):
            raise _invalid(f"schema {number} is not a whole Avro schema")
        return _schema_in(said)

    async def number(self, subject: str, schema: Schema) -> int:
        if subject not in self._numbers:
            said = await self._ask("POST", f"/subjects/{subject}/versions", {"schema": orjson.dumps(schema).decode()})
            if said is None or not isinstance(said.get("id"), int):
                # incompatible with what others registered there: for an operator to mend, so nothing dies of it
                raise Transient(f"the schema registry does not take our schema for {subject}")
            self._numbers[subject] = said["id"]
        return self._numbers[subject]

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """The answer's object; None when the registry says no (4xx). Errors: Transient."""
        try:
            async with self._http.request(method, self._url + path, json=body) as answer:
                text = await _at_most(answer.content, SCHEMA_MAX_BYTES + 1)
                if answer.status >= 500 or answer.status in (401, 403, 408, 429):
                    raise Transient(f"the schema registry answers {answer.status}")
                if answer.status >= 400 or len(text) > SCHEMA_MAX_BYTES:
                    return None
                said = orjson.loads(text)
                return said if isinstance(said, dict) else None
        except (aiohttp.ClientError, OSError, TimeoutError, orjson.JSONDecodeError) as error:
            raise Transient(f"the schema registry is away: {type(error).__name__} {error}") from error


async def _at_most(content: aiohttp.StreamReader, size_bytes: int) -> bytes:
    found = b""
    while len(found) < size_bytes and (piece := await content.read(size_bytes - len(found))):
        found += piece
    return found


def _schema_in(said: dict[str, Any]) -> Schema:
    try:
        return orjson.loads(said["schema"])
    except (KeyError, TypeError, orjson.JSONDecodeError) as error:
        raise _invalid("the registry's schema cannot be read") from error
