"""Records of `.dlq` and `.held` topics as rows of the index. Pure; called by the store, tested through it."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from giclee.bus import dlq
from giclee.bus.errors import Poison
from giclee.bus.layers import codec
from giclee.bus.transport import Record
from giclee.schemas.parts import derived_id, is_uuid

COSTS_NOTHING = ("scorer", "publisher", "router.health", "intake.status")
"""Stages behind the worker: doing their work again pays no provider."""


def as_text(raw: bytes) -> str:
    """Bytes as jsonb can keep them: one character each, and U+0100 for the zero byte, which it refuses."""
    return raw.decode("latin-1").replace("\x00", "\u0100")


def as_bytes(text: str) -> bytes:
    """What `as_text` was made of."""
    return text.replace("\u0100", "\x00").encode("latin-1")


def headers_as_json(record: Record) -> list[list[str]]:
    """Headers as jsonb keeps them."""
    return [[as_text(name.encode(errors="surrogatepass")), as_text(raw or b"")] for name, raw in record.headers]


def held_record(row: Any, topic: str) -> Record:
    """The record of a row of `held`, byte for byte."""
    named = ((as_bytes(name).decode(errors="surrogatepass"), as_bytes(text)) for name, text in row["headers"])
    return Record(topic=topic, key=row["key"], value=row["value"], headers=tuple(named))


def held_row(record: Record) -> tuple[Any, ...]:
    """The row of a held record."""
    named = {name: (raw or b"").decode(errors="replace") for name, raw in record.headers if name.startswith("held-")}
    origin = named.get("held-origin", record.origin())
    stage, scope = named.get("held-stage", "unknown"), named.get("held-scope", "all")
    # the place in the held topic is part of the id: a record that is released and held again waits twice
    held_id = derived_id("held", stage, origin, record.origin())
    topic = record.topic.removesuffix(".held")
    return held_id, stage, scope, topic, record.key, record.value, headers_as_json(record)


def dead_letter_row(record: Record) -> tuple[Any, ...]:
    """The row of a dead letter. Errors: Poison for a record that does not carry a dead letter's headers."""
    named = {name: text.replace("\x00", "\ufffd") for name, text in dlq.read_headers(record.headers).items()}
    try:
        return _row_from(named, record)
    except (KeyError, ValueError, ArithmeticError) as error:
        raise Poison(f"not a dead letter's headers: {type(error).__name__} {error}") from error


def _row_from(named: dict[str, str], record: Record) -> tuple[Any, ...]:
    paid = Decimal(named["dlq-paid-usd"]) if named.get("dlq-paid-usd") else None
    value = codec.peek(record.value)
    batch = value.get("batch_id")
    return (
        uuid.UUID(named["dlq-id"]),
        named["dlq-stage"],
        named.get("dlq-class", "other"),
        named.get("dlq-error-type", ""),
        named.get("dlq-error-message", ""),
        named.get("dlq-fingerprint", ""),
        _int4(named.get("dlq-attempts", "1")),
        named.get("dlq-tenant"),
        _uuid(named.get("dlq-request-id")),
        _uuid(named.get("dlq-candidate-id")),
        batch.replace("\x00", "\ufffd")[:128] if isinstance(batch, str) else None,
        named.get("dlq-provider"),
        named.get("dlq-model"),
        paid,
        cost_max_usd(named["dlq-stage"], value, paid),
        _int4(named.get("dlq-replay-count", "0")),
        named.get("dlq-service-version", ""),
        named["dlq-original-topic"],
        _int4(named["dlq-original-partition"]),
        _int8(named["dlq-original-offset"]),
        record.topic,
        record.partition,
        record.offset,
        record.key,
        dlq.OMITTED in named,
        _uuid(named.get("dlq-replay-run-id")),
        _moment(named.get("dlq-last-failed-at"), record.timestamp_ms),
    )


def cost_max_usd(stage: str, value: dict[str, Any], paid: Decimal | None) -> Decimal | None:
    """The most that doing a record again may cost, in US dollars; None where the record cannot tell.

    A candidate may spend what is left of its limit, a wave its limit for each of its candidates, a request its
    budget. Whatever stands in `value` is believed only as far as it is an amount.
    """
    if stage in COSTS_NOTHING:
        return Decimal(0)
    if stage.startswith("gpu-worker"):
        limit = _amount(value.get("limit_usd"))
        spent = max(paid or Decimal(0), _amount(value.get("spent_usd")) or Decimal(0))
        return None if limit is None else max(Decimal(0), limit - spent)
    if stage == "router":
        limit, count = _amount(value.get("limit_usd")), value.get("count", value.get("first_wave"))
        return limit * count if limit is not None and isinstance(count, int) and 0 < count <= 400 else None
    return _amount(value.get("budget_usd"))


def _amount(given: object) -> Decimal | None:
    try:
        amount = Decimal(str(given))
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and 0 <= amount <= 1_000_000 else None


def _int4(text: str) -> int:
    """Errors: ValueError."""
    number = int(text)
    if not -(2**31) <= number < 2**31:
        raise ValueError(f"{number} is no count")
    return number


def _int8(text: str) -> int:
    number = int(text)
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{number} is no offset")
    return number


def _uuid(text: str | None) -> uuid.UUID | None:
    return uuid.UUID(text) if text and is_uuid(text) else None


def _moment(text: str | None, timestamp_ms: int) -> datetime:
    """When it died, as its header says; the record's own time where the header does not."""
    try:
        moment = datetime.fromisoformat(text or "")
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    except ValueError:
        return datetime.fromtimestamp(max(timestamp_ms, 0) / 1000, UTC)
