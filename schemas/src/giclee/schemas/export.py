"""Writes the contract for other languages: `json/`, `avro/` and `asyncapi.yaml` (`make schemas`).

JSON Schema is the contract; Avro mirrors it. Needs PyYAML, which only development has.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from giclee.schemas import avro, topics
from giclee.schemas.events import EVENTS, Event

ROOT = Path(__file__).parents[3]
HEADERS = {
    "ce_specversion": "always 1.0",
    "ce_id": "uuid5 of the type and what the event is about: a redelivery has the same id",
    "ce_type": "giclee.<Event>.v1",
    "ce_source": "giclee/<stage>",
    "ce_time": "RFC 3339, UTC",
    "ce_subject": "the request id",
    "ce_causationid": "the ce_id of the event that led to this one",
    "ce_dataschema": "identifier of the JSON Schema",
    "content-type": "application/json; application/avro with Confluent framing where a registry is used",
    "traceparent": "W3C trace context",
}


def json_schema(event: type[Event]) -> dict[str, Any]:
    """JSON Schema of an event's value as it stands on the wire."""
    schema = event.model_json_schema(by_alias=True, mode="validation")
    name = event.__name__
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"{name}.v1.json", **schema}


# ---- AsyncAPI -----------------------------------------------------------------------------------


def _message(event: type[Event], root: Path) -> dict[str, Any]:
    example = json.loads((root / "examples" / f"{event.__name__}.json").read_text())
    return {
        "name": event.__name__,
        "title": (event.__doc__ or "").strip().splitlines()[0],
        "contentType": "application/json",
        "headers": {
            "type": "object",
            "properties": {name: {"type": "string", "description": text} for name, text in HEADERS.items()},
        },
        "payload": {"$ref": f"json/{event.__name__}.v1.json"},
        "examples": [{"name": "real", "payload": example}],
    }


def _channel(row: topics.Topic) -> dict[str, Any]:
    retention = "for ever, compacted" if row.compacted else f"{row.retention_days} days"
    return {
        "address": row.name.replace(topics.POOL, "{pool}"),
        "description": f"Key {row.key}. Kept {retention}. Written by {', '.join(row.written_by)}.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in row.events},
        "bindings": {"kafka": {"partitions": row.partitions, "bindingVersion": "0.5.0"}},
        **({"parameters": {"pool": {"enum": list(topics.POOLS)}}} if topics.POOL in row.name else {}),
    }


def _slug(row: topics.Topic) -> str:
    return row.name.replace(".", "-").replace("<", "").replace(">", "")


def asyncapi(root: Path = ROOT) -> dict[str, Any]:
    """The AsyncAPI 3.1 document of every topic."""
    operations = {}
    for row in topics.TABLE:
        channel = {"$ref": f"#/channels/{_slug(row)}"}
        if row.public == "in":
            operations[f"receive-{_slug(row)}"] = {"action": "receive", "channel": channel}
        elif row.public == "out":
            operations[f"send-{_slug(row)}"] = {"action": "send", "channel": channel}
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "Giclee",
            "version": "1.0.0",
            "description": "Image requests in, approved images out. Operations name the public topics.",
        },
        "defaultContentType": "application/json",
        "channels": {_slug(row): _channel(row) for row in topics.TABLE},
        "operations": operations,
        "components": {"messages": {event.__name__: _message(event, root) for event in EVENTS.values()}},
    }


# ---- writing ------------------------------------------------------------------------------------


def files(root: Path = ROOT) -> dict[Path, str]:
    """Every generated file with its text."""
    found = {
        root / "json" / f"{event.__name__}.v1.json": json.dumps(json_schema(event), indent=2) + "\n"
        for event in EVENTS.values()
    }
    for event in avro.EVENTS:
        text = json.dumps(avro.schema_of(event), indent=2) + "\n"
        found[root / "avro" / f"{event.__name__}.v1.avsc"] = text
    found[root / "asyncapi.yaml"] = yaml.safe_dump(asyncapi(root), sort_keys=False, width=120, allow_unicode=True)
    return found


def main() -> int:
    """Write all files; with `--check` only say which differ (exit code 1)."""
    different = {path: text for path, text in files().items() if not path.exists() or path.read_text() != text}
    if "--check" in sys.argv:
        for path in different:
            sys.stderr.write(f"{path.relative_to(ROOT)} is not what `make schemas` writes\n")
        return 1 if different else 0
    for path, text in different.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        sys.stdout.write(f"wrote {path.relative_to(ROOT)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
