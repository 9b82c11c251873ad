"""Dead letters, causes and runs as the API tells them. Pure; amounts are decimal strings in US dollars."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import orjson

from giclee.bus import dlq
from giclee.bus.layers import codec
from giclee.bus.transport import Record
from giclee.replay.patch import errors_of
from giclee.schemas.parts import usd_text

_TEXTS = (
    "stage", "error_type", "message", "fingerprint", "tenant", "batch_id", "provider", "model", "state",
    "service_version", "attempts", "replay_count",
)  # fmt: skip
_IDS = ("dlq_id", "request_id", "candidate_id", "run_id")
CSV_COLUMNS = (
    "dlq_id", "state", "stage", "class", "error_type", "message", "fingerprint", "tenant", "request_id",
    "candidate_id", "batch_id", "provider", "model", "service_version", "attempts", "replay_count", "paid_usd",
    "cost_max_usd", "key", "died_at",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
STATES = ("open", "replaying", "replayed", "parked", "discarded")


def letter(row: Any) -> dict[str, Any]:
    """What a list shows of a dead letter."""
    return {
        **{name: str(row[name]) if row[name] is not None else None for name in _IDS},
        "class": row["dead_class"],
        **{name: row[name] for name in _TEXTS},
        "paid_usd": _usd(row["paid_usd"]),
        "cost_max_usd": _usd(row["cost_max_usd"]),
        "key": row["key"].decode(errors="replace") if row["key"] is not None else None,
        "original": _place(row, "original"),
        "dead_letter": _place(row, "dlq"),
        "died_at": row["died_at"].isoformat(),
        "changed_at": row["changed_at"].isoformat(),
    }


def _place(row: Any, prefix: str) -> dict[str, Any]:
    return {name: row[f"{prefix}_{name}"] for name in ("topic", "partition", "offset")}


def _usd(amount: Decimal | None) -> str | None:
    return None if amount is None else usd_text(amount)


def value_of(record: Record) -> dict[str, Any]:
    """The value of a record: decoded where it is a JSON object, else its bytes."""
    decoded = codec.peek(record.value)
    return {"value": decoded} if decoded else {"value_base64": base64.b64encode(record.value or b"").decode()}


def in_full(row: Any, record: Record | None) -> dict[str, Any]:
    """One dead letter with its bytes, and what the event's schema says of them."""
    if record is None or row["omitted"]:
        why = "was too large for its topic" if row["omitted"] else f"retention removed it from {row['dlq_topic']}"
        return {**letter(row), "missing": why, "headers": [], "size_bytes": None, "errors": []}
    told = errors_of(dlq.replay_of(record, run_id=""))
    return {
        **letter(row),
        **value_of(record),
        "missing": None,
        "size_bytes": len(record.value or b""),
        "headers": [[name, (text or b"").decode(errors="replace")] for name, text in record.headers],
        "errors": [{"pointer": one.pointer, "detail": one.detail} for one in told],
    }


def deed(row: Any) -> dict[str, Any]:
    """One row of the audit."""
    return {
        "at": row["at"].isoformat(), "actor": row["actor"], "action": row["action"], "reason": row["reason"],
        "run_id": str(row["run_id"]) if row["run_id"] else None,
        "dlq_id": str(row["dlq_id"]) if row["dlq_id"] else None, "details": row["details"],
    }  # fmt: skip


def cluster(row: Any) -> dict[str, Any]:
    """Dead letters of one cause."""
    return {
        "fingerprint": row["fingerprint"], "stage": row["stage"], "class": row["dead_class"],
        "error_type": row["error_type"], "message": row["message"], "count": row["count"],
        "states": {name: row[name] for name in STATES},
        "first_seen": row["first_seen"].isoformat(), "last_seen": row["last_seen"].isoformat(),
        "tenants": row["tenants"] or [], "service_versions": row["service_versions"] or [],
        "paid_usd": usd_text(row["paid_usd"]), "cost_max_usd": usd_text(row["cost_max_usd"]),
    }  # fmt: skip


def run(row: Any) -> dict[str, Any]:
    """A run as it stands. What is left of one that has ended was given back."""
    same = ("action", "state", "why", "actor", "reason", "selection", "again", "canary", "rate_per_s", "patch")
    counts = ("total", "sent", "came_back", "refused")
    ended = row["state"] in ("done", "aborted")
    return {
        "run_id": str(row["run_id"]),
        **{name: row[name] for name in (*same, *counts)},
        "left": 0 if ended else row["total"] - row["sent"] - row["refused"],
        "max_cost_usd": _usd(row["max_cost_usd"]),
        "cost_max_usd": usd_text(row["cost_max_usd"]),
        **{name: row[name].isoformat() if row[name] else None for name in ("created_at", "changed_at", "finished_at")},
    }


# ---- lines of an export -------------------------------------------------------------------------


def json_line(row: Any, record: Record | None) -> bytes:
    """A letter and its value."""
    return orjson.dumps({**letter(row), **(value_of(record) if record else {"missing": True})}) + b"\n"


def record_line(row: Any, record: Record | None) -> bytes:
    """The record as it lies on its `.dlq` topic; nothing where it no longer does."""
    if record is None:
        return b""
    named = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
    raw = {"key_base64": _base64(record.key), "value_base64": _base64(record.value)}
    headers = [[name, _base64(text)] for name, text in record.headers]
    return orjson.dumps({**named, "timestamp_ms": record.timestamp_ms, **raw, "headers": headers}) + b"\n"


def _base64(raw: bytes | None) -> str | None:
    return None if raw is None else base64.b64encode(raw).decode()


def csv_line(found: Mapping[str, Any] | None) -> bytes:
    """A letter's summary, or for None the names of the columns. A cell that a spreadsheet would compute gets an
    apostrophe in front: anyone who can send a request can choose what stands in these texts."""
    cells = [found[name] if found is not None else name for name in CSV_COLUMNS]
    texts = ["" if one is None else str(one).replace("\x00", "") for one in cells]
    out = io.StringIO()
    csv.writer(out).writerow([f"'{one}" if one.lstrip(" ").startswith(_FORMULA) else one for one in texts])
    return out.getvalue().encode()
