"""What surrounds an event on Kafka: CloudEvents 1.0 attributes in binary mode, and W3C trace context.

Writing is exact; reading is forgiving, since on public-in topics anyone may write: a header that is not
UTF-8, too long or not ours is ignored, the last of a repeated header counts.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any

SPEC_VERSION = "1.0"
JSON = "application/json"
AVRO = "application/avro"
STRUCTURED = "application/cloudevents+json"

REPLAY_FOR = "giclee-replay-for"
"""Header of a replayed record: the one stage that should handle it; all others skip it."""
REPLAY_RUN = "giclee-replay-run"
REPLAY_COUNT = "giclee-replay-count"
DISCARD = "giclee-discard"
"""Header of a replay by which an operator gives a record up: contract rule 11."""

ATTRIBUTE_MAX_BYTES = 1024
"""A longer attribute is ignored: what is read here travels on in what we emit, which must fit its topic."""

Headers = tuple[tuple[str, bytes], ...]
EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(kw_only=True)
class Envelope:
    """How an event was delivered. Times are aware datetimes in UTC. Written once, where a record is read:
    not frozen only because freezing costs 5 us a record, and without slots because `read` sets all that was found
    at once.

    `origin` names the record ("topic:partition:offset"): an opaque identity for handlers, stable over
    redeliveries and different for every record. `recorded_at` is the record's own timestamp; `headers`
    and `value` are its bytes, for whoever must keep the record as it was.
    """

    id: str | None = None
    type: str | None = None
    source: str | None = None
    subject: str | None = None
    time: str | None = None
    cause: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    content_type: str = JSON
    replay_for: str | None = None
    replay_run: str | None = None
    replay_count: int = 0
    discard: bool = False
    origin: str = ""
    recorded_at: datetime = EPOCH
    headers: Headers = ()
    value: bytes | None = None

    def at(self, origin: str, timestamp_ms: int, value: bytes | None = None) -> Envelope:
        """This envelope, found at `origin`; a timestamp in the future or missing reads as now."""
        now_s = time.time()
        recorded_s = timestamp_ms / 1000 if 0 < timestamp_ms < now_s * 1000 else now_s
        self.origin, self.recorded_at, self.value = origin, datetime.fromtimestamp(recorded_s, UTC), value
        return self


_FIELD_OF_HEADER = {
    "ce_id": "id",
    "ce_type": "type",
    "ce_source": "source",
    "ce_subject": "subject",
    "ce_time": "time",
    "ce_causationid": "cause",
    "traceparent": "traceparent",
    "tracestate": "tracestate",
    "content-type": "content_type",
    REPLAY_FOR: "replay_for",
    REPLAY_RUN: "replay_run",
}
_PLAIN = {**_FIELD_OF_HEADER, REPLAY_COUNT: "needs care", DISCARD: "needs care"}


def read(headers: Iterable[tuple[str, bytes | None]]) -> Envelope:
    """The envelope that a record's headers carry; what cannot be read is left out."""
    headers = tuple(headers)
    return _of_plain(headers) or _of_any(headers)


def _of_plain(headers: tuple[tuple[str, bytes | None], ...]) -> Envelope | None:
    """What `_of_any` finds, at a third of its cost, where all headers are as our own are; None where one is not."""
    try:
        texts: dict[str, Any] = {_PLAIN.get(name, "foreign"): raw.decode() for name, raw in headers}  # type: ignore[union-attr]
    except (UnicodeDecodeError, AttributeError):  # not text, or None
        return None
    every = "".join(texts.values())
    if "needs care" in texts or len(every) > ATTRIBUTE_MAX_BYTES or "\x00" in every or not every.isascii():
        return None
    texts.pop("foreign", None)
    texts["headers"] = headers
    found = object.__new__(Envelope)
    found.__dict__ = texts
    return found


def _of_any(headers: tuple[tuple[str, bytes | None], ...]) -> Envelope:
    found = Envelope()
    kept: list[tuple[str, bytes]] = []
    for name, raw in headers:
        if raw is None:
            continue
        kept.append((name, raw))
        field = _FIELD_OF_HEADER.get(name)
        if field is not None and len(raw) <= ATTRIBUTE_MAX_BYTES and b"\x00" not in raw:
            try:
                setattr(found, field, raw.decode())
            except UnicodeDecodeError:
                continue
        elif name == REPLAY_COUNT and raw.isdigit():
            found.replay_count = int(raw[:6])
        elif name == DISCARD:
            found.discard = True
    found.headers = tuple(kept)
    found.discard = found.discard and found.replay_for is not None
    return found


def write(
    *,
    id: str,
    type: str,
    source: str,
    subject: str | None,
    cause: str | None,
    traceparent: str | None,
    dataschema: str,
) -> Headers:
    """Headers of one of our own records; its value is JSON."""
    found = (
        *_same_for_all(type, source, dataschema),
        ("ce_id", id.encode()),
        ("ce_time", _moment(time.time_ns() // 1_000_000)),
    )
    if subject:
        found += (("ce_subject", subject.encode()),)
    if cause:
        found += (("ce_causationid", cause.encode()),)
    if traceparent:
        found += (("traceparent", traceparent.encode()),)
    return found


@lru_cache(maxsize=1)
def _moment(ms: int) -> bytes:
    """RFC 3339 of milliseconds since 1970. Kept for the next record: many are written in one millisecond."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").encode()


@cache
def _same_for_all(type: str, source: str, dataschema: str) -> Headers:
    """The headers that every event of one type from one stage shares."""
    return (
        ("ce_specversion", SPEC_VERSION.encode()),
        ("ce_type", type.encode()),
        ("ce_source", source.encode()),
        ("ce_dataschema", dataschema.encode()),
        ("content-type", JSON.encode()),
    )
