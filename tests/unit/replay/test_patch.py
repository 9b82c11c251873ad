"""Edits of dead letters: what changes is kept, and what cannot be done is said with its pointer and nothing else."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from giclee.replay.patch import Operation, edited
from giclee.schemas.strict import InvalidInput
from tests.kit.loops import request_record

SECRET = "a very private circle"


def _edited(*operations: dict[str, Any], **fields: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    record = request_record(uuid.UUID(int=7), **{"prompt": SECRET, **fields})
    made, changes = edited(record, [Operation.model_validate(one) for one in operations])
    return json.loads(made.value or b""), changes


def test_what_changes_is_kept_with_what_was_there() -> None:
    """Before and after of every operation but a test."""
    value, changes = _edited(
        {"op": "test", "path": "/prompt", "value": SECRET},
        {"op": "replace", "path": "/prompt", "value": "a square"},
        {"op": "add", "path": "/labels", "value": {"a": "1"}},
        {"op": "copy", "path": "/client_ref", "from": "/labels/a"},
        {"op": "move", "path": "/labels/b", "from": "/labels/a"},
        {"op": "remove", "path": "/labels/b"},
    )

    assert (value["prompt"], value["labels"], value["client_ref"]) == ("a square", {}, "1")
    assert [(one["op"], one["before"], one["after"]) for one in changes] == [
        ("replace", SECRET, "a square"),
        ("add", None, {"a": "1"}),
        ("copy", None, "1"),
        ("move", None, "1"),
        ("remove", "1", None),
    ]


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/nope"},
        {"op": "replace", "path": "/nope", "value": 1},
        {"op": "add", "path": "/nope/deeper", "value": 1},
        {"op": "add", "path": "/prompt/x", "value": 1},
        {"op": "copy", "path": "/client_ref", "from": "/nope"},
        {"op": "move", "path": "/client_ref"},
        {"op": "move", "path": "/labels/a/b", "from": "/labels"},
        {"op": "remove", "path": ""},
        {"op": "test", "path": "/wanted", "value": True},
        {"op": "test", "path": "/nope", "value": None},
        {"op": "replace", "path": "/wanted", "value": 0},
        {"op": "add", "path": "/unknown", "value": 1},
    ],
    ids=str,
)
def test_what_cannot_be_done_names_its_place_and_not_the_letter(operation: dict[str, Any]) -> None:
    """An operation without its place, a value that the event does not take: an error with a pointer, no text of it."""
    with pytest.raises(InvalidInput) as refused:
        _edited(operation, wanted=1, labels={"a": "1"})

    assert [one.pointer for one in refused.value.errors] == [operation["path"]]
    assert SECRET not in str(refused.value)
