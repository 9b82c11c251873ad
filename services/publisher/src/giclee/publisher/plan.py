"""An order's locked row and what was decided about it, between the statements of one transaction. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from giclee.publisher.facts import Fact
from giclee.publisher.funnel import Decision
from giclee.publisher.order import Order

Key = tuple[str, uuid.UUID]


@dataclass(frozen=True, slots=True)
class Row:
    """An order's locked row."""

    id: int
    key: Key
    alarm: datetime | None
    closed: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What was decided about one order, and the order before and after it."""

    row: Row
    order: Order
    decision: Decision
    own: tuple[Fact, ...]
    after: Order


def compared(plans: Iterable[Plan]) -> Iterator[tuple[int, int, str]]:
    """Order, candidate and fingerprint of approvals that may not resemble earlier ones."""
    for plan in plans:
        if plan.order.verdict is None or plan.order.verdict.copies != "tenant":
            continue
        for index in plan.decision.approve:
            score = plan.order.score_of(index)
            if score is not None and score.phash is not None:
                yield plan.row.id, index, score.phash
