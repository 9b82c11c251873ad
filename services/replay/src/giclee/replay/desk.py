"""What operators ask for, put together: a letter in full, a dry run, a run, a selection set aside. Called by api.py."""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from giclee.replay import shapes
from giclee.replay.ledger import Ledger, Order
from giclee.replay.patch import Operation
from giclee.replay.preflight import Look, Preflight, refusal_by_row
from giclee.replay.runs import Runs
from giclee.replay.selection import Selection
from giclee.replay.store import Note, Row, Store
from giclee.schemas.parts import usd_text
from giclee.schemas.strict import InvalidInput

LOOKED_AT_MAX = 1000
"""Letters that a dry run looks at one by one."""
PATCHED_AT_MAX = 100
"""Letters that a patch is tried on before a run is started; the run itself tries it on each."""


@dataclass(frozen=True, slots=True)
class Desk:
    """The parts of the service that requests need. Errors of every method: Transient, Poison."""

    store: Store
    ledger: Ledger
    preflight: Preflight
    runs: Runs

    async def in_full(self, dlq_id: uuid.UUID) -> dict[str, Any] | None:
        """One dead letter with its bytes and history."""
        row = await self.store.one(dlq_id)
        if row is None:
            return None
        record = (await self.preflight.records([row])).get(dlq_id)
        deeds = await self.store.audited(dlq_id, row["operations"], 1000)
        return {**shapes.in_full(row, record), "history": [shapes.deed(one) for one in deeds]}

    async def set_aside(
        self, verb: str, wanted: Selection, ids: list[uuid.UUID] | None, limit: int, *, by: tuple[str, str]
    ) -> dict[str, Any]:
        """Park open letters or release parked ones. `by` is who, and why."""
        states = ("open", "parked") if verb == "park" else ("parked", "open")
        who = Note(by[0], verb, by[1], uuid.uuid4())
        changed = await self.store.set_aside(wanted, ids, limit, states=states, who=who)
        return {"changed": changed, "run_id": str(who.operation)}

    async def start(self, order: Order, actor: str, reason: str) -> dict[str, Any]:
        """A run. Errors: InvalidInput, with pointers, where its patch makes a letter invalid."""
        if order.patch:
            rows = await self.store.oldest(order.selection, None, min(order.limit, PATCHED_AT_MAX), ids=order.ids)
            going = [row for row in rows if refusal_by_row(row, self.preflight.allowed, again=order.again) is None]
            for one in await self._looks(going, order):
                if one.errors:
                    raise InvalidInput(one.errors)
        return shapes.run(await self.runs.start(order, actor, reason))

    async def dry_run(self, order: Order) -> dict[str, Any]:
        """What a run of this order would do, letter by letter for the oldest, and in sum."""
        rows = await self.store.oldest(order.selection, None, min(order.limit, LOOKED_AT_MAX), ids=order.ids)
        looks = await self._looks(rows, order)
        left = order.max_cost_usd
        for one in looks:
            why = refusal_by_row(one.row, self.preflight.allowed, again=order.again)
            if why is not None and one.verdict != "refuse":
                one.refuse(why)
            if left is not None and one.verdict != "refuse":
                left = _within(one, left)
        totals = Counter(one.verdict for one in looks)
        going = [one.cost_max_usd for one in looks if one.verdict != "refuse"]
        counts = await self.store.counts(order.selection, order.ids)
        selected = None if counts is None else min(order.limit, sum(one["count"] for one in counts))
        return {
            "totals": {"go": totals["go"], "go_with_changes": totals["go with changes"], "refuse": totals["refuse"]},
            "counted": len(looks),
            "beyond": None if selected is None else max(0, selected - len(looks)),
            "cost_max_usd": usd_text(sum((one for one in going if one is not None), Decimal(0))),
            "cost_unknown": sum(one is None for one in going),
            "items": [one.as_json() for one in looks],
        }

    async def _looks(self, rows: list[Row], order: Order) -> list[Look]:
        patch = [Operation.model_validate(one) for one in order.patch or ()]
        return await self.preflight.look(rows, patch, run="", action=order.action)


def _within(one: Look, left: Decimal) -> Decimal:
    """What is left of a cap once this letter has gone, which it does only within it. The index' own bound counts."""
    bound = one.row["cost_max_usd"]
    if bound is None:
        one.refuse("what it may cost is not known, and there is a limit")
        return left
    if bound > left:
        one.refuse("it may cost more than is left of the limit")
        return Decimal(0)  # a run takes the oldest up to the limit and nothing behind them
    return left - Decimal(bound)
