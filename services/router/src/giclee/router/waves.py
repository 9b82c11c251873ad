"""A wave as the router remembers it, and the one answer to each of its indices. Pure.

Identity and seed of a candidate follow from the request and the index alone, so a wave that comes again, at
another replica or after a restart, is answered with the same events.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from giclee.router.choose import Choice, no_route
from giclee.schemas.events import GenerationFailed, ImageRouted, WaveEvent
from giclee.schemas.parts import candidate_id, derived_id

Key = tuple[str, UUID, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """The choice that counts for a run of indices."""

    first_index: int
    count: int
    limit_usd: Decimal
    choice: Choice


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A wave that wants a choice, with the one that is its own if it comes for the first time."""

    tenant: str
    request_id: UUID
    number: int
    wave: Wave
    tables: str
    closes_by: datetime

    @property
    def key(self) -> Key:
        return (self.tenant, self.request_id, self.number)

    def row(self) -> dict[str, Any]:
        """As a statement reads it."""
        return {
            "tenant": self.tenant,
            "request_id": str(self.request_id),
            "wave": self.number,
            "first_index": self.wave.first_index,
            "count": self.wave.count,
            "limit_usd": str(self.wave.limit_usd),
            "choice": self.wave.choice.model_dump(mode="json", exclude_none=True),
            "tables": self.tables,
            "closes_by": self.closes_by.isoformat(),
        }


def seed_of(event: WaveEvent, index: int) -> int:
    """The seed of a candidate: follows from the request's and the index; 0 to 2^32 - 1."""
    return int.from_bytes(derived_id("candidate seed", event.request.seed, index).bytes[:4], "big")


def answers(event: WaveEvent, wave: Wave) -> list[ImageRouted | GenerationFailed]:
    """Exactly one event per index of the stored wave: routed, or failed with every loser's reason."""
    reasons = () if wave.choice.chain else no_route(wave.choice)
    made: list[ImageRouted | GenerationFailed] = []
    for index in range(wave.first_index, wave.first_index + wave.count):
        candidate = {
            **event.echo(),
            "candidate_id": candidate_id(event.tenant, event.request_id, index),
            "index": index,
        }
        if reasons:
            made.append(GenerationFailed(**candidate, reasons=reasons, spent_usd=Decimal(0)))
            continue
        made.append(
            ImageRouted(
                **candidate,
                wave=event.wave_number(),
                chain=wave.choice.chain,
                limit_usd=wave.limit_usd,
                seed=seed_of(event, index),
                request=event.request,
                weighed=wave.choice.weighed,
                losers=wave.choice.losers,
                hedge_after_s=wave.choice.hedge_after_s,
            )
        )
    return made
