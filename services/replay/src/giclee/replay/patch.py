"""RFC 6902 JSON Patch on the value of a dead letter, checked by the event's own model before anything is sent."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from jsonpatch import JsonPatch, JsonPatchException, JsonPatchPathNotFound, JsonPatchTestFailed
from jsonpointer import EndOfList, JsonPointerException, resolve_pointer
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
    after, changes = strict.parse_json(record.value or b""), []
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
    """The document, patched in place: it is ours, and nobody wants it when an operation fails."""
    spoken = one.model_dump(by_alias=True, exclude={"source"} if one.source is None else None)
    try:
        return JsonPatch([spoken]).apply(document, in_place=True)
    except JsonPatchTestFailed:
        raise _cannot(one.path, "is not what the patch expects") from None
    except (JsonPatchPathNotFound, JsonPointerException):  # their words quote the whole letter
        raise _cannot(one.path, f"is not there, or not {one.source}" if one.source else "is not there") from None
    except JsonPatchException as error:
        raise _cannot(one.path, str(error)) from None


def _found(document: Any, path: str) -> Any:
    """What is at a path, as it is kept in the audit: None where there is nothing."""
    found = resolve_pointer(document, path, None)
    return None if isinstance(found, EndOfList) else copy.deepcopy(found)


def _cannot(path: str, why: str) -> InvalidInput:
    return InvalidInput([FieldError(path, why, "patch")])
