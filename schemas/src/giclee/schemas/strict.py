"""The strict door: JSON from outside, with every error named by its JSON pointer.

Both doors (HTTP and the public-in topics) parse here, so that they agree. Refused: duplicate keys, NUL,
lone surrogates, NaN and infinities, nesting over 32, bytes that are not UTF-8, more than 1 MiB, unknown
fields, and by name whatever the contract promises and this release cannot do yet.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from giclee.schemas.events import EXTENSIONS_MAX_BYTES, UNSUPPORTED, CancelRequested, ImageRequested

DEPTH_MAX = 32
ERRORS_MAX = 50
POINTER_MAX_CHARS = 256
"""Errors named in one answer, and the longest name of a place: a hostile value could otherwise make an answer
larger than itself, and too large for the topic that announces it."""
INTEGER_MAX = 2**63 - 1
DEADLINE_MAX = timedelta(days=30)
VALUE_MAX_BYTES = 1024 * 1024
Asked = TypeVar("Asked", bound=BaseModel)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing that is wrong: where (JSON pointer, "" is the whole), what, and a code of `reasons.TABLE`."""

    pointer: str
    detail: str
    code: str = "invalid_field"


class InvalidInput(ValueError):
    """A value from outside that cannot be used; `errors` names every reason at once."""

    def __init__(self, errors: list[FieldError]) -> None:
        self.errors = tuple(errors[:ERRORS_MAX])
        super().__init__("; ".join(f"{error.pointer or '/'}: {error.detail}" for error in self.errors[:5]))


class _Object(dict[str, Any]):
    """A JSON object that remembers which of its keys came twice."""

    twice: tuple[str, ...] = ()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) == len(pairs):
        return dict(pairs)
    found = _Object(pairs)
    seen: set[str] = set()
    found.twice = tuple(dict.fromkeys(key for key, _ in pairs if key in seen or seen.add(key)))  # type: ignore[func-returns-value]
    return found


def pointer(path: tuple[object, ...]) -> str:
    """A path as an RFC 6901 JSON pointer that can be stored: not too long, bad characters as U+FFFD."""
    text = "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)
    return _UNSTORABLE.sub("\ufffd", text if len(text) <= POINTER_MAX_CHARS else f"{text[:POINTER_MAX_CHARS]}…")


def _text_error(text: str) -> str | None:
    if "\x00" in text:
        return "contains NUL (U+0000)"
    if any("\ud800" <= char <= "\udfff" for char in text):
        return "contains a lone surrogate"
    return None


def _walk(root: Any) -> Iterator[FieldError]:
    """Everything wrong with a parsed value that no schema would see. Iterative: depth is the caller's choice."""
    stack: list[tuple[Any, tuple[object, ...]]] = [(root, ())]
    while stack:
        value, path = stack.pop()
        if len(path) > DEPTH_MAX:
            yield FieldError(pointer(path[:4]), f"is nested deeper than {DEPTH_MAX} levels", "too_deep")
            return
        if isinstance(value, str):
            if error := _text_error(value):
                yield FieldError(pointer(path), error, "invalid_text")
        elif isinstance(value, float) and not math.isfinite(value):
            yield FieldError(pointer(path), "is not a finite number", "not_finite")
        elif isinstance(value, int) and abs(value) > INTEGER_MAX:
            yield FieldError(pointer(path), "is an integer of more than 64 bits", "invalid_field")
        elif isinstance(value, dict):
            for key in getattr(value, "twice", ()):
                yield FieldError(pointer((*path, key)), "is given twice", "duplicate_key")
            for key, inner in value.items():
                if error := _text_error(key):
                    yield FieldError(pointer(path), f"has a key that {error}", "invalid_text")
                stack.append((inner, (*path, key)))
        elif isinstance(value, list):
            stack += [(inner, (*path, at)) for at, inner in enumerate(value)]


def parse_json(raw: bytes, *, max_bytes: int = VALUE_MAX_BYTES) -> Any:
    """The JSON value in `raw`. Errors: InvalidInput with every reason."""
    if len(raw) > max_bytes:
        raise InvalidInput([FieldError("", f"is {len(raw)} bytes; at most {max_bytes} are read", "too_large")])
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput([FieldError("", f"is not UTF-8 (byte {error.start})", "not_utf8")]) from None
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise InvalidInput([FieldError("", f"is nested deeper than {DEPTH_MAX} levels", "too_deep")]) from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise InvalidInput([FieldError("", f"is not JSON: {error.msg} at {where}", "not_json")]) from None
    except ValueError:  # an integer of more digits than Python converts
        raise InvalidInput([FieldError("", "has a number with too many digits", "not_json")]) from None
    if errors := list(islice(_walk(value), ERRORS_MAX)):
        raise InvalidInput(errors)
    return value


def _schema_errors(error: ValidationError) -> list[FieldError]:
    found = []
    for row in error.errors(include_url=False, include_context=False, include_input=False):
        unknown = row["type"] == "extra_forbidden"
        detail = "is not a field of this message" if unknown else row["msg"].removeprefix("Value error, ")
        found.append(FieldError(pointer(row["loc"]), detail, "unknown_field" if unknown else "invalid_field"))
    return found


def _unsupported(values: dict[str, Any]) -> list[FieldError]:
    return [
        FieldError(pointer((name,)), f"{name} is not supported by this release; leave it out", f"{name}_unsupported")
        for name in UNSUPPORTED
        if values.get(name) is not None
    ]


def _validated(model: type[BaseModel], values: dict[str, Any], errors: list[FieldError]) -> Any:
    known_bad = {error.pointer for error in errors}
    cleaned = {key: inner for key, inner in values.items() if pointer((key,)) not in known_bad}
    try:
        found = model.model_validate(cleaned)
    except ValidationError as error:
        raise InvalidInput(errors + _schema_errors(error)) from None
    if errors:
        raise InvalidInput(errors)
    return found


def part_from(model: type[Asked], values: Any) -> Asked:
    """A part of a call from parsed JSON. Errors: InvalidInput with every reason."""
    if not isinstance(values, dict):
        raise InvalidInput([FieldError("", "must be a JSON object", "invalid_field")])
    found: Asked = _validated(model, values, [])
    return found


def request_from(values: Any, *, now: datetime | None = None) -> ImageRequested:
    """A request from parsed JSON (with `request_id` and `tenant` already settled by the door).

    Errors: InvalidInput with every reason; `now` (default: the clock) bounds the deadline.
    """
    if not isinstance(values, dict):
        raise InvalidInput([FieldError("", "must be a JSON object", "invalid_field")])
    errors = _unsupported(values)
    extensions = values.get("extensions")
    if isinstance(extensions, dict) and len(json.dumps(extensions).encode()) > EXTENSIONS_MAX_BYTES:
        errors.append(FieldError("/extensions", f"is larger than {EXTENSIONS_MAX_BYTES} bytes", "too_large"))
    request: ImageRequested = _validated(ImageRequested, values, errors)
    if request.deadline and request.deadline > (now or datetime.now(UTC)) + DEADLINE_MAX:
        raise InvalidInput([FieldError("/deadline", f"is more than {DEADLINE_MAX.days} days ahead")])
    return request


def cancel_from(values: Any) -> CancelRequested:
    """A cancel from parsed JSON. Errors: InvalidInput with every reason."""
    if not isinstance(values, dict):
        raise InvalidInput([FieldError("", "must be a JSON object", "invalid_field")])
    errors = []
    if values.get("batch_id") is not None and values.get("request_id") is None:
        errors.append(
            FieldError("/batch_id", "cancelling a batch is not supported by this release", "batches_unsupported")
        )
        raise InvalidInput(errors)
    found: CancelRequested = _validated(CancelRequested, values, errors)
    carried = found.request
    if carried is not None and (carried.tenant, carried.request_id) != (found.tenant, found.request_id):
        raise InvalidInput([FieldError("/request", "is another request than the one to cancel")])
    return found
