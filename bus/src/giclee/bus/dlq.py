"""What a dead letter is: the record as it was, and `dlq-*` headers that say what happened to it.

Written by the dead-letter layer, read by the replay service and by the command line; both only through
this file. Contract section 6 names every header.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache

from giclee.bus.transport import Record
from giclee.schemas import envelope as wire
from giclee.schemas.envelope import Headers
from giclee.schemas.parts import derived_id, usd_text

SPRING_TOPIC = "kafka_dlt-original-topic"
OMITTED = "dlq-omitted-bytes"
"""Header of a dead letter without its record's bytes: how many there were. It cannot be replayed from here."""
_OLDER_DEATH = ("dlq-", "kafka_dlt-")
_STRIPPED_PREFIXES = (*_OLDER_DEATH, "giclee-replay-")
_STRIPPED = frozenset(
    (wire.DISCARD, "held-stage", "held-scope", "held-origin", "held-request-id", "traceparent", "tracestate")
)
_VARIABLE = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|0x[0-9a-f]+|[0-9a-f]{16,}|\d+|'[^']*'|\"[^\"]*\"")


def fingerprint(stage: str, error_type: str, message: str) -> str:
    """The cause's identity: dead letters of one fault share it, whatever ids and numbers they name."""
    shape = _VARIABLE.sub("#", message.lower())
    return hashlib.sha256(f"{stage}\x1f{error_type}\x1f{shape}".encode()).hexdigest()[:16]


def dead_letter_id(stage: str, origin: str) -> uuid.UUID:
    """Identity of a dead letter: the stage and the place of the record that failed (contract rule 12)."""
    return derived_id("dead-letter", stage, origin)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """Everything the headers of one dead letter say. `origin` is "topic:partition:offset"."""

    stage: str
    dead_class: str
    error_type: str
    message: str
    attempts: int
    origin: str
    timestamp_ms: int
    group: str
    first_failed_at: str
    last_failed_at: str
    version: str
    tenant: str | None = None
    request_id: str | None = None
    candidate_id: str | None = None
    provider: str | None = None
    model: str | None = None
    paid_usd: Decimal | None = None
    replay_count: int = 0
    replay_run: str | None = None

    @property
    def id(self) -> str:
        return str(dead_letter_id(self.stage, self.origin))

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.stage, self.error_type, self.message)

    def place(self) -> tuple[str, int, int]:
        """Topic, partition and offset of the record that failed."""
        topic, partition, offset = self.origin.rsplit(":", 2)
        return topic, int(partition), int(offset)

    def headers(self) -> Headers:
        """The headers to add to the record, UTF-8."""
        topic, partition, offset = self.place()
        named = {
            "dlq-id": self.id,
            "dlq-stage": self.stage,
            "dlq-class": self.dead_class,
            "dlq-error-type": self.error_type,
            "dlq-error-message": self.message,
            "dlq-attempts": self.attempts,
            "dlq-original-topic": topic,
            "dlq-original-partition": partition,
            "dlq-original-offset": offset,
            "dlq-original-timestamp": self.timestamp_ms,
            "dlq-group": self.group,
            "dlq-first-failed-at": self.first_failed_at,
            "dlq-last-failed-at": self.last_failed_at,
            "dlq-fingerprint": self.fingerprint,
            "dlq-tenant": self.tenant,
            "dlq-request-id": self.request_id,
            "dlq-candidate-id": self.candidate_id,
            "dlq-provider": self.provider,
            "dlq-model": self.model,
            "dlq-paid-usd": None if self.paid_usd is None else usd_text(self.paid_usd),
            "dlq-replay-count": self.replay_count,
            "dlq-replay-run-id": self.replay_run,
            "dlq-service-version": self.version,
            SPRING_TOPIC: topic,
        }
        return tuple((name, str(value).encode()) for name, value in named.items() if value is not None)

    def record(self, failed: Record) -> Record:
        """The dead letter of `failed`: same bytes, key and headers, same partition."""
        topic, partition, _ = self.place()
        kept = tuple(pair for pair in failed.headers if not pair[0].startswith(_OLDER_DEATH))
        letter = failed.to(f"{topic}.dlq", partition=partition)
        return Record(
            topic=letter.topic,
            partition=partition,
            key=failed.key,
            value=failed.value,
            headers=(*kept, *self.headers()),
        )

    def without_bytes(self, failed: Record) -> Record:
        """What is left of a dead letter that its topic does not take: everything but the record's own bytes.

        A batch that was compressed well may hold records larger than any limit; they stay where they came from.
        """
        topic, partition, _ = self.place()
        headers = sum(len(name) + len(raw or b"") for name, raw in failed.headers)
        omitted = len(failed.key or b"") + len(failed.value or b"") + headers
        extra = (OMITTED, str(omitted).encode())
        return Record(topic=f"{topic}.dlq", partition=partition, value=None, headers=(*self.headers(), extra))


def read_headers(headers: Iterable[tuple[str, bytes | None]]) -> dict[str, str]:
    """The `dlq-*` headers of a dead letter as text; a byte that is no UTF-8 becomes U+FFFD."""
    return {name: (raw or b"").decode(errors="replace") for name, raw in headers if name.startswith("dlq-")}


def about(request_id: str | None, headers: Iterable[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """`headers` with the request's id as their subject: a request without an id of its own keeps the one it had."""
    if not request_id:
        return list(headers)
    return [*[pair for pair in headers if pair[0] != "ce_subject"], ("ce_subject", request_id.encode())]


def replay_of(letter: Record, *, run_id: str) -> Record:
    """The record to send when a dead letter is put back: for the one stage that failed, `ce_id` and key kept.

    Every `dlq-*`, `kafka_dlt-*` and old trace header is gone; the replay count is one higher.
    Errors: KeyError when the headers are not a dead letter's.
    """
    named = dict(letter.headers)
    asked = named.get("dlq-request-id", b"").decode(errors="replace")
    kept = about(asked, [pair for pair in letter.headers if not _is_stripped(pair[0])])
    count = int(named.get("dlq-replay-count") or b"0") + 1
    kept += [
        (wire.REPLAY_FOR, named["dlq-stage"]),
        (wire.REPLAY_RUN, run_id.encode()),
        (wire.REPLAY_COUNT, str(count).encode()),
    ]
    topic = named["dlq-original-topic"].decode(errors="replace")
    return Record(topic=topic, key=letter.key, value=letter.value, headers=tuple(kept))


@lru_cache(1024)  # asked of some twenty names a letter, the same of every letter
def _is_stripped(name: str) -> bool:
    return name.startswith(_STRIPPED_PREFIXES) or name in _STRIPPED


def discard_of(letter: Record, *, run_id: str) -> Record:
    """The record to send when a dead letter is given up: a replay whose stage ends what hung on it (rule 11).

    Errors: KeyError when the headers are not a dead letter's.
    """
    back = replay_of(letter, run_id=run_id)
    return replace(back, headers=(*back.headers, (wire.DISCARD, b"1")))
