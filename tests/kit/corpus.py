"""Records that nobody should have written (reliability.md F24 to F28), of many kinds, for every topic of the line.

A corpus is the same for the same `seed`. `dies` says whether the owner of the topic must make a dead letter of the
record; the others are odd but good, and must be served.
"""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from giclee.bus.transport import Record
from giclee.schemas import envelope as wire
from giclee.schemas import topics
from giclee.schemas.events import EVENTS

EXAMPLES = Path(__file__).parents[2] / "schemas" / "examples"
BIG = 800_000
"""Bytes of the largest values and headers: below the topic's limit, and well above what anybody expects."""
HALF_AN_HOUR_MS = 1_800_000
"""A broker refuses timestamps more than an hour ahead of its clock."""


@dataclass(frozen=True, slots=True)
class Odd:
    """One record, of which kind it is, and whether it must become a dead letter."""

    kind: str
    record: Record
    dies: bool = True


Values = dict[str, Any]


def example(topic: str) -> tuple[str, Values]:
    """The name and the values of the first event that a topic carries, as the committed example has them."""
    event = topics.events_on(topic)[0]
    values: Values = json.loads((EXAMPLES / f"{event.__name__}.json").read_text())
    values["request_id"] = str(uuid.uuid4())
    return event.type_name, values


def _headers(type_name: str) -> wire.Headers:
    return wire.write(
        id=str(uuid.uuid4()), type=type_name, source="corpus", subject=None, cause=None, traceparent=None,
        dataschema="x",
    )  # fmt: skip


# ---- bytes that are no event, whatever the topic ------------------------------------------------

RAW: dict[str, Callable[[bytes], bytes | None]] = {
    "null value": lambda good: None,
    "empty value": lambda good: b"",
    "one byte": lambda good: b"\x00",
    "text": lambda good: b"hello",
    "truncated JSON": lambda good: good[: len(good) // 2],
    "trailing bytes": lambda good: good + b"}",
    "two documents": lambda good: good + good,
    "array": lambda good: b"[" + good + b"]",
    "string": lambda good: json.dumps(good.decode()).encode(),
    "number": lambda good: b"7",
    "null": lambda good: b"null",
    "true": lambda good: b"true",
    "empty object": lambda good: b"{}",
    "empty array": lambda good: b"[]",
    "single quotes": lambda good: good.replace(b'"', b"'"),
    "comment": lambda good: b"// it\n" + good,
    "byte order mark": lambda good: b"\xef\xbb\xbf" + good,
    "UTF-16": lambda good: good.decode().encode("utf-16"),
    "Latin-1": lambda good: good[:-1] + b',"x":"caf\xe9"}',
    "overlong UTF-8": lambda good: good[:-1] + b',"x":"\xc0\xaf"}',
    "depth of 100,000 arrays": lambda good: b"[" * 100_000,
    "depth of 100,000 objects": lambda good: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "many zeros": lambda good: b"\x00" * BIG,
    "gzip": lambda good: b"\x1f\x8b\x08\x00" + good,
    "Avro frame, unknown schema id": lambda good: b"\x00\x00\x00\x7f\xff" + good,
    "Avro frame, cut": lambda good: b"\x00\x00\x00",
    "Avro frame with a GUID": lambda good: b"\x01" + bytes(16) + good,
    "Avro file": lambda good: b"Obj\x01" + good,
    "Avro, over-long varint": lambda good: b"\x00\x00\x00\x00\x01" + b"\xff" * 64,
}


def _raw(topic: str) -> Iterator[Odd]:
    type_name, values = example(topic)
    good = json.dumps(values).encode()
    for kind, spoil in RAW.items():
        yield Odd(kind, Record(topic=topic, key=b"k", value=spoil(good), headers=_headers(type_name)))


# ---- values of the wrong kind -------------------------------------------------------------------

LITERALS = {
    "NaN": "NaN",
    "infinity": "-Infinity",
    "5,000 digits": "9" * 5000,
    "1e999": "1e999",
    "lone surrogate": '"\\ud800"',
    "NUL": '"\\u0000"',
    "deep": "[" * 60 + "]" * 60,
}
"""JSON that a careless parser lets through, in place of a text or a number."""

WRONG: dict[str, Any] = {
    "an object": {"a": 1},
    "a list": [1],
    "a text": "no such thing",
    "a number": -7.5,
    "true": True,
}


def _with(values: Values, path: tuple[str, ...], text: str) -> bytes:
    """The JSON of `values` with raw `text` at a path."""
    changed = json.loads(json.dumps(values))
    inner = changed
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = "\x1a"
    return json.dumps(changed).replace(json.dumps("\x1a"), text, 1).encode()


NEEDED: dict[str, tuple[str, ...]] = {
    "ImageCleared": ("first_wave", "limit_usd", "closes_by", "request"),
    "ImageRefused": ("reasons", "policy_version", "accepted_at"),
    "ImageRouted": ("chain", "limit_usd", "seed", "index", "candidate_id", "request"),
    "ImageGenerated": ("image", "candidate_id", "index", "seed", "spent_usd"),
    "GenerationFailed": ("reasons", "spent_usd", "index", "candidate_id"),
    "ImageScored": ("sha256", "scores", "index", "candidate_id"),
    "CandidatesRequested": ("wave", "first_index", "count", "limit_usd", "closes_by"),
    "ReviewRequested": ("sha256", "image", "candidate_id"),
    "ImageReviewed": ("sha256", "reviewed_at", "candidate_id"),
    "ImageApproved": ("asset_id", "version", "image", "scores", "cost_usd"),
    "RequestClosed": ("wanted", "candidates", "cost_usd", "closed_at"),
    "ImageStalled": ("source", "dead_letter", "stalled_at"),
}
"""Fields of our own events that must be there, of their type."""


def _inside(topic: str) -> Iterator[Odd]:
    """Our own events gone wrong: fields missing, of another type, out of range, or of another event."""
    type_name, values = example(topic)
    headers = _headers(type_name)
    name = EVENTS[type_name].__name__

    def odd(kind: str, value: bytes) -> Odd:
        return Odd(kind, Record(topic=topic, key=b"k", value=value, headers=headers))

    for field in ("request_id", *NEEDED[name]):
        if field != "request_id" or name != "ImageStalled":
            left = {key: inner for key, inner in values.items() if key != field}
            yield odd("missing field", json.dumps(left).encode())
        yield odd("an object instead", _with(values, (field,), '{"a":1}'))
    yield odd("NUL", _with(values, ("tenant",), '"a\\u0000"'))
    yield odd("lone surrogate", _with(values, ("tenant",), '"\\ud800"'))
    yield odd("labels of another type", _with(values, ("labels",), "[1]"))
    yield odd("5,000 digits", _with(values, ("request_id",), "9" * 5000))
    other = Record(topic=topic, key=b"k", value=json.dumps(values).encode(), headers=_headers("giclee.Unheard.v1"))
    yield Odd("foreign type", other)
    if name == "ImageRouted":
        yield odd("hop beyond the chain", _with(values, ("hop",), "9"))
        yield odd("negative hop", _with(values, ("hop",), "-1"))
        yield odd("empty chain", _with(values, ("chain",), "[]"))
    if "index" in NEEDED[name]:
        yield odd("index out of range", _with(values, ("index",), "400"))


def _public(topic: str) -> Iterator[Odd]:
    """What anybody may write on a public topic, and the strict door refuses."""
    values = example(topic)[1]
    text = json.dumps(values)

    def odd(kind: str, value: bytes, *extra: tuple[str, bytes]) -> Odd:
        return Odd(kind, Record(topic=topic, value=value, headers=tuple(extra)))

    for kind, literal in LITERALS.items():
        yield odd(kind, _with(values, ("tenant",), literal))
        yield odd(f"{kind} in an unknown field", _with(values, ("request_id",), literal))
    for kind, wrong in WRONG.items():
        for field in ("request_id", "tenant", "labels"):
            if (field, kind) != ("labels", "an object"):
                yield odd(f"{kind} instead", json.dumps({**values, field: wrong}).encode())
    yield odd("duplicate key", (text[:-1] + ', "tenant": "acme"}').encode())
    yield odd("unknown field", json.dumps({**values, "tenent": "acme"}).encode())
    yield odd("too large", json.dumps({**values, "x": "y" * BIG}).encode())
    structured = ("content-type", wire.STRUCTURED.encode())
    broken: dict[str, Values] = {
        "without data": {},
        "data of a text": {"data": "x"},
        "bad base64": {"data_base64": "ü"},
        "base64 of garbage": {"data_base64": "AAAA"},
        "another type": {"type": "x", "data": values},
        "null data": {"data": None},
    }
    for kind, inner in broken.items():
        yield odd(f"structured, {kind}", json.dumps({"specversion": "1.0", "id": "1", **inner}).encode(), structured)
    yield odd("foreign type", text.encode(), ("ce_type", b"giclee.RequestClosed.v1"))
    yield odd("replay for nobody", text.encode(), (wire.REPLAY_FOR, b"polcy"))


REQUEST_FIELDS: dict[str, tuple[Any, ...]] = {
    "prompt": (None, "", "x" * 4001, 7, ["x"], "a\x00b"),
    "wanted": (0, 101, -1, 1.5, "2", True, 2**63),
    "max_candidates": (0, 401, "8"),
    "budget_usd": ("free", "-1", "NaN", "Infinity", "1e400", True, {}),
    "deadline": ("soon", "2026-11-21", "2026-11-21T10:00:00", "9999-12-31T00:00:00Z", 7),
    "quality": ("ultra", 1),
    "privacy": ("secret",),
    "selection": ("all",),
    "priority": ("",),
    "size": ({"width": 0, "height": 64}, {"width": 64}, "64x64", {"width": 64, "height": 64, "depth": 3}),
    "seed": (-1, 2**32, "7"),
    "params": ({"steps": 0}, {"steps": "many"}, {"unknown": 1}),
    "model": ({}, "shapes", {"name": 7}),
    "template": ({"id": "shape", "version": 1}, "shape"),
    "labels": ({str(number): "x" for number in range(33)}, {"UPPER": "x"}, {"a": "x" * 257}, {"a": None}),
    "extensions": ({"a": "x" * 9000}, "x"),
    "formats": ([{"name": "a", "width": 64, "height": 64}],),
    "inputs": ([],),
    "webhook": ({"url": "https://x"},),
    "parent": ({"request_id": "x", "relation": "retry"},),
    "strict": ("yes",),
    "client_ref": ("", "x" * 129),
    "locale": ("not a locale",),
    "asset_type": (7,),
}


def _requests() -> Iterator[Odd]:
    """Every field of a request, out of range or of another type."""
    topic = "image.requested.v1"
    for field, wrongs in REQUEST_FIELDS.items():
        for wrong in wrongs:
            values = {**example(topic)[1], field: wrong}
            yield Odd(f"request with a bad {field}", Record(topic=topic, value=json.dumps(values).encode()))


def _odd_but_good() -> Iterator[Odd]:
    """Requests with envelopes that nobody expects; what they ask for is fine."""

    def odd(kind: str, *headers: tuple[str, bytes], **record: Any) -> Odd:
        topic = "image.requested.v1"
        value = json.dumps(example(topic)[1]).encode()
        return Odd(kind, Record(topic=topic, value=value, headers=headers, **record), dies=False)

    yield odd("no key, no headers")
    yield odd("empty key", key=b"")
    yield odd("key of any bytes", key=b"\xff\xfe\x00")
    yield odd("large key", key=b"k" * 65_536)
    yield odd("header of any bytes", ("ce_id", b"\xff\xfe"), ("ce_source", b"\x00"))
    yield odd(
        "repeated header", ("ce_id", b"1"), ("ce_id", b"2"), ("ce_type", b"x"), ("ce_type", b"giclee.ImageRequested.v1")
    )
    yield odd("huge header", ("x", b"y" * BIG))
    yield odd("a thousand headers", *((f"h{number}", b"") for number in range(1000)))
    yield odd("empty header name", ("", b""))
    yield odd("broken trace", ("traceparent", b"00-zz-zz-zz"), ("tracestate", b"=,=;"))
    yield odd("marks of an older death", ("dlq-id", b"1"), ("dlq-stage", b"x"), ("kafka_dlt-original-topic", b"x"))
    yield odd("foreign content type", ("content-type", b"text/html; charset=latin-1"))
    yield odd("a replay count of many digits", ("giclee-replay-count", b"9" * 500))
    yield odd("a timestamp in the future", timestamp_ms=int(time.time() * 1000) + HALF_AN_HOUR_MS)
    yield odd("a timestamp of 1970", timestamp_ms=1)


def corpus(seed: int = 7) -> list[Odd]:
    """Every kind on every topic that somebody may fail on, shuffled."""
    found: list[Odd] = [*_requests(), *_odd_but_good()]
    for row in topics.all_topics(("local",)):
        if row.name.endswith((".dlq", ".held")) or row.name in topics.NO_DEAD_LETTERS or not row.readers:
            continue
        if row.name.startswith("giclee."):
            continue
        found += _raw(row.name)
        found += _public(row.name) if row.public == "in" else _inside(row.name)
    random.Random(seed).shuffle(found)
    return found
