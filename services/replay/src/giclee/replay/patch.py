"""RFC 6902 JSON Patch on the value of a dead letter, checked by the event's own model before anything is sent."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from giclee.bus.layers import codec
from giclee.bus.transport import Record
from giclee.schemas import envelope as wire
from giclee.schemas import strict
from giclee.schemas.strict import FieldError, InvalidInput

Pointer = Annotated[str, Field(pattern=r"^(/([^~/]|~[01])*)*$", max_length=1024)]


class Operation(BaseModel):
    """One operation; `value` for add, replace and test, `from` for move and copy."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    op: Literal["add", "remove", "replace", "move", "copy", "test"]
    path: Pointer
    value: Any = None
    source: Annotated[Pointer | None, Field(alias="from")] = None


def errors_of(record: Record) -> list[FieldError]:
    """What the event's model says of a record that would be sent: nothing when it is well. JSON values only."""
    try:
        codec.decode(record, wire.read(record.headers).at(record.origin(), record.timestamp_ms), "replay")
    except InvalidInput as error:
        return list(error.errors)
    except KeyError as error:
        return [FieldError("", str(error))]
    return []


def edited(record: Record, operations: Sequence[Operation]) -> tuple[Record, list[dict[str, Any]]]:
    """The record with its value patched, and what changed: `{op, path, before, after}` per operation.

    Errors: InvalidInput, with the pointer of an operation that cannot be done or of a value that would be invalid.
    """
    before = strict.parse_json(record.value or b"")
    after, changes = copy.deepcopy(before), []
    for one in operations:
        was = _found(after, one.path)
        after = _applied(after, one)
        if one.op != "test":
            changes.append({"op": one.op, "path": one.path, "before": was, "after": _found(after, one.path)})
    value = json.dumps(after, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    made = replace(record, value=value)
    if errors := errors_of(made):
        raise InvalidInput(errors)
    return made, changes


def _applied(document: Any, one: Operation) -> Any:
    if one.op == "test":
        if _get(document, one.path) != one.value:
            raise _cannot(one.path, "is not what the patch expects")
        return document
    if one.op == "remove":
        return _without(document, one.path)
    if one.op == "replace":
        _get(document, one.path)
        return one.value if not one.path else _with(_without(document, one.path), one.path, one.value)
    if one.op == "add":
        return _with(document, one.path, copy.deepcopy(one.value))
    if one.source is None:
        raise _cannot(one.path, f"{one.op} needs a from")
    if one.op == "move" and one.path.startswith(f"{one.source}/"):
        raise _cannot(one.path, "cannot be moved into itself")
    taken = copy.deepcopy(_get(document, one.source))
    return _with(document if one.op == "copy" else _without(document, one.source), one.path, taken)


def _steps(path: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")[1:]]


def _get(document: Any, path: str) -> Any:
    for step in _steps(path):
        if isinstance(document, dict) and step in document:
            document = document[step]
        elif isinstance(document, list):
            document = document[_index(step, len(document) - 1, path)]
        else:
            raise _cannot(path, "is not there")
    return document


def _found(document: Any, path: str) -> Any:
    """What is at a path, as it is kept in the audit: None where there is nothing."""
    try:
        return copy.deepcopy(_get(document, path))
    except InvalidInput:
        return None


def _with(document: Any, path: str, value: Any) -> Any:
    if not path:
        return value
    steps = _steps(path)
    parent = _get(document, path.rpartition("/")[0])
    if isinstance(parent, dict):
        parent[steps[-1]] = value
    elif isinstance(parent, list):
        at = len(parent) if steps[-1] == "-" else _index(steps[-1], len(parent), path)
        parent.insert(at, value)
    else:
        raise _cannot(path, "has no members")
    return document


def _without(document: Any, path: str) -> Any:
    _get(document, path)
    if not path:
        return None
    parent, last = _get(document, path.rpartition("/")[0]), _steps(path)[-1]
    del parent[last if isinstance(parent, dict) else int(last)]
    return document


def _index(step: str, last: int, path: str) -> int:
    if not step.isdecimal() or (len(step) > 1 and step[0] == "0") or int(step) > last:
        raise _cannot(path, "is no place in the list")
    return int(step)


def _cannot(path: str, why: str) -> InvalidInput:
    return InvalidInput([FieldError(path, why, "patch")])
