"""Avro schemas of the public events that may travel as Avro; they mirror the events' JSON form.

Money, times and ids stay strings, so that nothing is rounded on the way; free-form objects are JSON text
(a string with the property `giclee: json`). Read by the exports and, at run time, by the bus.
"""

from __future__ import annotations

from typing import Any

from giclee.schemas import events
from giclee.schemas.events import Event

EVENTS = (events.ImageRequested, events.ImageApproved, events.RequestClosed)
JSON_TEXT = "json"
"""Value of the property `giclee` on an Avro string that holds JSON text."""


class _Avro:
    """Turns one event's JSON Schema into an Avro schema; named types are defined once."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._definitions = schema.get("$defs", {})
        self._named: set[str] = set()

    def record(self, name: str, schema: dict[str, Any]) -> Any:
        if name in self._named:
            return name
        self._named.add(name)
        needed = schema.get("required", ())
        fields = [self._field(key, inner, key in needed) for key, inner in schema.get("properties", {}).items()]
        return {"type": "record", "name": name, "fields": fields}

    def _field(self, name: str, schema: dict[str, Any], needed: bool) -> dict[str, Any]:
        kind = self.kind(schema, f"{name}_type")
        if needed and not (isinstance(kind, list) and "null" in kind):
            return {"name": name, "type": kind}
        rest = [one for one in kind if one != "null"] if isinstance(kind, list) else [kind]
        return {"name": name, "type": ["null", *rest], "default": None}

    def kind(self, schema: dict[str, Any], name: str) -> Any:
        if "$ref" in schema:
            target = schema["$ref"].rsplit("/", 1)[1]
            return self.record(target, self._definitions[target])
        if "anyOf" in schema:
            return self._union(schema["anyOf"], name)
        word = schema.get("type", "object")
        if word == "array":
            return {"type": "array", "items": self.kind(schema.get("items", {}), name)}
        values = schema.get("additionalProperties") or next(iter(schema.get("patternProperties", {}).values()), None)
        if word == "object" and isinstance(values, dict):
            return {"type": "map", "values": self.kind(values, name)}
        if word == "object":
            return {"type": "string", "giclee": JSON_TEXT}
        return {"integer": "long", "number": "double", "boolean": "boolean", "null": "null"}.get(word, "string")

    def _union(self, options: list[dict[str, Any]], name: str) -> list[Any]:
        found: list[Any] = []
        for option in options:
            kind = self.kind(option, name)
            if kind not in found:
                found.append(kind)
        return sorted(found, key=lambda kind: ("null", "boolean").index(kind) if kind in ("null", "boolean") else 2)


def schema_of(event: type[Event]) -> dict[str, Any]:
    """Avro schema that mirrors the event's JSON form."""
    schema = event.model_json_schema(by_alias=True, mode="validation")
    found = _Avro(schema).record(event.__name__, schema)
    return {**found, "namespace": "giclee.v1"}
