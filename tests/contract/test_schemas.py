"""The committed exports are what the models say, examples are real, and changes only ever add."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fastavro
import jsonschema
import pytest
import yaml

from giclee.schemas import avro, events, export, reasons, topics
from giclee.schemas.events import EVENTS

ROOT = export.ROOT
NAMES = sorted(event.__name__ for event in EVENTS.values())


def example(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "examples" / f"{name}.json").read_text())
    return found


def test_exports_are_current() -> None:
    """`make schemas` would change nothing."""
    stale = [path.name for path, text in export.files().items() if not path.exists() or path.read_text() != text]

    assert stale == []


@pytest.mark.parametrize("name", NAMES)
def test_every_event_has_an_example_that_its_schema_accepts(name: str) -> None:
    """AsyncAPI's own parser does not validate examples, so this does."""
    schema = json.loads((ROOT / "json" / f"{name}.v1.json").read_text())

    jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(example(name))


@pytest.mark.parametrize("name", NAMES)
def test_an_event_survives_the_wire(name: str) -> None:
    """Reading what was written gives an equal event with the same id."""
    model = EVENTS[f"giclee.{name}.v1"]
    read = model.model_validate_json(json.dumps(example(name)))

    again = model.model_validate_json(read.model_dump_json(exclude_none=True, by_alias=True))

    assert again == read
    assert again.event_id() == read.event_id()


@pytest.mark.parametrize("event", avro.EVENTS, ids=lambda event: event.__name__)
def test_avro_schemas_parse(event: type[events.Event]) -> None:
    """The generated Avro schema is one that fastavro takes, without recursion."""
    parsed = fastavro.parse_schema(json.loads((ROOT / "avro" / f"{event.__name__}.v1.avsc").read_text()))

    assert parsed["name"] == f"giclee.v1.{event.__name__}"


def test_asyncapi_names_every_topic_and_message() -> None:
    """A subscriber finds every topic of the table in the AsyncAPI document."""
    document = yaml.safe_load((ROOT / "asyncapi.yaml").read_text())

    addresses = {channel["address"] for channel in document["channels"].values()}

    assert addresses == {row.name.replace(topics.POOL, "{pool}") for row in topics.TABLE}
    assert set(document["components"]["messages"]) == set(NAMES)


def test_every_event_has_exactly_one_topic() -> None:
    """No event is left without a row, none has two."""
    rows = [name for row in topics.TABLE for name in row.events]

    assert sorted(rows) == NAMES


def test_dead_letters_keep_the_partitions_of_their_source() -> None:
    """A dead letter goes to the partition its record came from, so that one must exist."""
    rows = {row.name: row for row in topics.all_topics()}

    shadows = [row for row in rows.values() if row.name.endswith((".dlq", ".held"))]

    assert shadows
    assert all(row.partitions == rows[row.name.rpartition(".")[0]].partitions for row in shadows)


def test_reason_codes_have_a_sentence() -> None:
    """Every code of the table says what it means in one sentence."""
    assert all(text.endswith(".") and len(text) > 20 for text in reasons.TABLE.values())


# ---- only additive changes ----------------------------------------------------------------------


def breaks(old: dict[str, Any], new: dict[str, Any], at: str = "") -> list[str]:
    """What a reader or writer of `old` could not live with in `new`."""
    found = []
    for name, inner in old.get("properties", {}).items():
        if name not in new.get("properties", {}):
            found.append(f"{at}/{name} was removed")
        else:
            found += breaks(inner, new["properties"][name], f"{at}/{name}")
    found += [f"{at}/{name} became required" for name in set(new.get("required", ())) - set(old.get("required", ()))]
    for word in ("type", "$ref", "format"):
        if old.get(word) != new.get(word):
            found.append(f"{at} changed its {word} from {old.get(word)} to {new.get(word)}")
    found += [f"{at} lost the word {word}" for word in set(old.get("enum", ())) - set(new.get("enum", ()))]
    for name, inner in old.get("$defs", {}).items():
        found += breaks(inner, new.get("$defs", {}).get(name, {}), f"{at}/$defs/{name}")
    return found


@pytest.mark.parametrize("name", sorted(json.loads((ROOT / "released.json").read_text())))
def test_changes_are_additive(name: str) -> None:
    """Against the last release (`schemas/released.json`), an event only gained optional fields and enum words."""
    released = json.loads((ROOT / "released.json").read_text())[name]

    assert breaks(released, export.json_schema(EVENTS[f"giclee.{name}.v1"])) == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda schema: schema["properties"].pop("outcome"), "was removed"),
        (lambda schema: schema["required"].append("labels"), "became required"),
        (lambda schema: schema["properties"]["wanted"].update(type="string"), "changed its type"),
        (lambda schema: schema["properties"]["outcome"]["enum"].remove("failed"), "lost the word"),
    ],
)
def test_the_additive_check_sees_a_break(change: Any, why: str) -> None:
    """A removed field, a new requirement, a changed type and a lost word are each named."""
    old = export.json_schema(events.RequestClosed)
    new = json.loads(json.dumps(old))
    change(new)

    assert any(why in one for one in breaks(old, new))


def test_ids_are_stable() -> None:
    """Derived ids are part of the contract: this one was computed when it was written."""
    first = EVENTS["giclee.ImageRequested.v1"].model_validate_json(
        Path(ROOT / "examples/ImageRequested.json").read_text()
    )

    assert str(first.event_id()) == "b6e22b5b-fcd0-54b4-8b18-04337dbe0dce"
