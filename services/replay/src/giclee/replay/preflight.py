"""What putting a dead letter back would do, said before it is done: go, go with changes, or refuse, and why.

`verdict_on` is pure; `Preflight` fetches what it needs. The dry run and the runs ask the same, so a run refuses
what its dry run refused, unless the world has changed.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from giclee.bus import dlq
from giclee.bus.layers import codec, tracing
from giclee.bus.transport import Lookup, Partition, Record
from giclee.replay.ask import Neighbours
from giclee.replay.patch import Operation, edited
from giclee.replay.store import Row
from giclee.schemas import topics
from giclee.schemas.parts import usd_text
from giclee.schemas.strict import FieldError, InvalidInput

REPLAYS_MAX = 3
"""A record that came back this often needs a person and a changed cause, not another try."""
UNKNOWN = "unknown"
_PROJECTIONS = ("intake.status", "router.health")
"""Stages that want to hear of ended requests too."""


@dataclass(slots=True)
class Look:
    """One dead letter and what would become of it. `record` is what would be sent; None when nothing would."""

    row: Row
    verdict: str = "go"
    why: list[str] = field(default_factory=list)
    order: str = UNKNOWN
    claim: str = UNKNOWN
    blob: str = UNKNOWN
    paid_usd: Decimal | None = None
    cost_max_usd: Decimal | None = None
    record: Record | None = None
    changes: list[dict[str, Any]] = field(default_factory=list)
    errors: list[FieldError] = field(default_factory=list)

    def refuse(self, why: str) -> None:
        self.verdict, self.record, self.cost_max_usd = "refuse", None, Decimal(0)
        self.why.append(why)

    def change(self, why: str) -> None:
        self.verdict = self.verdict if self.verdict == "refuse" else "go with changes"
        self.why.append(why)

    def as_json(self) -> dict[str, Any]:
        return {
            "dlq_id": str(self.row["dlq_id"]), "verdict": self.verdict, "topic": self.row["original_topic"],
            "stage": self.row["stage"], "why": self.why, "order": self.order, "claim": self.claim, "blob": self.blob,
            "paid_usd": None if self.paid_usd is None else usd_text(self.paid_usd),
            "cost_max_usd": None if self.cost_max_usd is None else usd_text(self.cost_max_usd),
            "errors": [{"pointer": one.pointer, "detail": one.detail} for one in self.errors],
        }  # fmt: skip


def allowed_topics(pools: tuple[str, ...]) -> tuple[str, ...]:
    """Where anything may be put back: topics of the table, dead letters and held records aside."""
    return tuple(row.name for row in topics.all_topics(pools) if not row.name.endswith((".dlq", ".held")))


def refusal_by_row(row: Row, allowed: Sequence[str], *, again: bool) -> str | None:
    """Why the index alone says no. Pure."""
    if row["original_topic"] not in allowed:
        return f"{row['original_topic']} is no topic of ours"
    if row["omitted"]:
        return "was too large to be kept; its bytes are where it failed"
    if row["state"] == "replayed" and not again:
        return "was replayed already; say --again to send it once more"
    if row["state"] not in ("open", "replayed"):
        return f"is {row['state']}"
    if row["replay_count"] >= REPLAYS_MAX and not again:
        return f"came back {row['replay_count']} times; mend the cause, then say --again"
    return None


class Preflight:
    """Looks at dead letters before they are put back."""

    def __init__(self, lookup: Lookup, neighbours: Neighbours, pools: tuple[str, ...]) -> None:
        self.allowed = allowed_topics(pools)
        self._lookup = lookup
        self._neighbours = neighbours

    async def records(self, rows: Sequence[Row]) -> dict[uuid.UUID, Record]:
        """The records of these rows, by dlq-id, as they lie on their `.dlq` topics; what is gone is left out."""
        by_place: dict[Partition, dict[int, uuid.UUID]] = {}
        for row in rows:
            by_place.setdefault(Partition(row["dlq_topic"], row["dlq_partition"]), {})[row["dlq_offset"]] = row[
                "dlq_id"
            ]
        found: dict[uuid.UUID, Record] = {}
        for at, ids in by_place.items():
            for offset, record in (await self._lookup.read(at, ids)).items():
                if dict(record.headers).get("dlq-id") == str(ids[offset]).encode():  # else the topic was made anew
                    found[ids[offset]] = record
        return found

    async def look(self, rows: Sequence[Row], patch: Sequence[Operation] = (), *, run: str, action: str) -> list[Look]:
        """What would become of these rows, states aside. `run` is the id their replays carry. Errors: Transient."""
        letters = await self.records(rows)
        looks = [Look(row, cost_max_usd=row["cost_max_usd"], paid_usd=row["paid_usd"]) for row in rows]
        for one in looks:
            letter = letters.get(one.row["dlq_id"])
            if letter is None and not one.row["omitted"]:
                one.refuse(f"is no longer on {one.row['dlq_topic']}: retention removed it")
            elif letter is not None:
                _prepare(one, letter, run, discard=action == "discard")
        if action == "discard":
            return looks
        for one in looks:
            if patch and one.record is not None:
                _edit(one, patch)
        await self._ask([one for one in looks if one.record is not None])
        return looks

    async def _ask(self, looks: Sequence[Look]) -> None:
        keys = [_order_key(one.row) if _wants_order(one.row) else None for one in looks]
        orders = await self._neighbours.orders(list({key for key in keys if key is not None}))
        images = [_blob_key(one) for one in looks]
        blobs = await self._neighbours.blobs(list({key for key in images if key is not None}))
        claims = await self._claims(looks)
        for one, key, image in zip(looks, keys, images, strict=True):
            _by_order(one, orders.get(key or ("", "")))
            _by_claim(one, claims.get(one.row["dlq_id"]))
            _by_blob(one, blobs.get(image or ""))

    async def _claims(self, looks: Sequence[Look]) -> dict[uuid.UUID, Mapping[str, Any]]:
        by_pool: dict[str, dict[tuple[str, int], uuid.UUID]] = {}
        for one in looks:
            stage = one.row["stage"]
            if not stage.startswith("gpu-worker.") or one.row["candidate_id"] is None or one.record is None:
                continue
            hop = codec.peek(one.record.value).get("hop", 0)
            if isinstance(hop, int):
                mine = by_pool.setdefault(stage.removeprefix("gpu-worker."), {})
                mine[str(one.row["candidate_id"]), hop] = one.row["dlq_id"]
        found: dict[uuid.UUID, Mapping[str, Any]] = {}
        for pool, keys in by_pool.items():
            answers = await self._neighbours.claims(pool, list(keys))
            found |= {keys[key]: row for key, row in answers.items() if key in keys}
        return found


def _prepare(one: Look, letter: Record, run: str, *, discard: bool) -> None:
    """The record to send; its new trace is linked to the old one."""
    record = (dlq.discard_of if discard else dlq.replay_of)(letter, run_id=run)
    extra: list[tuple[str, bytes]] = []
    old = dict(letter.headers).get("traceparent")
    new = tracing.linked(old.decode(errors="replace"), "replay") if old else None
    if new:
        extra.append(("traceparent", new.encode()))
    one.record = record.to(record.topic, extra=tuple(extra)) if extra else record


def _edit(one: Look, patch: Sequence[Operation]) -> None:
    assert one.record is not None
    try:
        one.record, one.changes = edited(one.record, patch)
        one.change("its value is edited")
    except InvalidInput as error:
        one.errors = list(error.errors)
        one.refuse("; ".join(f"{each.pointer or '/'}: {each.detail}" for each in error.errors[:5]))


def _wants_order(row: Row) -> bool:
    return row["stage"] not in _PROJECTIONS and row["original_topic"] != "image.cancel-requested.v1"


def _order_key(row: Row) -> tuple[str, str] | None:
    return (row["tenant"], str(row["request_id"])) if row["tenant"] and row["request_id"] else None


def _by_order(one: Look, order: Mapping[str, Any] | None) -> None:
    if order is None:
        return
    one.order = order["outcome"] or order["state"]
    if order["state"] == "closed":
        one.refuse(f"its request has ended: {order['outcome']}")


def _by_claim(one: Look, claim: Mapping[str, Any] | None) -> None:
    if claim is None:
        return
    one.claim = claim["outcome"] or claim["state"]
    if claim["spent_usd"] is not None:
        one.paid_usd = max(one.paid_usd or Decimal(0), Decimal(claim["spent_usd"]))
    if claim["ended"]:
        one.refuse("its request has ended for the workers")
    elif claim["state"] == "live":
        one.change("a worker has it: nothing is done twice")
    elif claim["state"] == "done" and claim["outcome"] not in ("exhausted", "dead"):
        one.cost_max_usd = Decimal(0)
        one.change(f"its claim is done ({claim['outcome']}): it answers with what is there and pays nothing")
    elif claim["state"] == "done" and one.cost_max_usd is not None:
        one.cost_max_usd = max(Decimal(0), Decimal(claim["limit_usd"]) - (one.paid_usd or Decimal(0)))


def _blob_key(one: Look) -> str | None:
    """The image that a record of the scorer or publisher speaks of."""
    if one.row["original_topic"] != "image.generated.v1" or one.record is None:
        return None
    image = codec.peek(one.record.value).get("image")
    key = image.get("key") if isinstance(image, dict) else None
    return key if isinstance(key, str) else None


def _by_blob(one: Look, there: bool | None) -> None:
    if there is not None:
        one.blob = "there" if there else "gone"
    if there is False:
        one.refuse("its image is no longer in the bucket")
