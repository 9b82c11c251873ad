"""Events of one request as the status stage reads them: the examples of the contract, and what a test cares about."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from giclee.intake import facts, status
from giclee.intake.facts import Known
from giclee.schemas import events
from giclee.schemas.envelope import Envelope
from giclee.schemas.events import Event, ImageRequested
from giclee.schemas.parts import Reason, asset_id, candidate_id

EXAMPLES = Path(__file__).parents[3] / "schemas" / "examples"
START = datetime(2026, 11, 21, 12, tzinfo=UTC)
TTL = timedelta(hours=72)
E = TypeVar("E", bound=Event)


def example(kind: type[E], **changed: Any) -> E:
    """The contract's example of an event with some fields changed."""
    values = json.loads((EXAMPLES / f"{kind.__name__}.json").read_text())
    return kind.model_validate({**values, **changed})


class Line:
    """Makes the events of one request; each is recorded a second after the one made before it."""

    def __init__(self, *, tenant: str = "default", request_id: uuid.UUID | None = None, **asked: Any) -> None:
        self.id = request_id or uuid.uuid4()
        self.tenant = tenant
        self.own: dict[str, Any] = {"request_id": self.id, "tenant": tenant, "labels": {}, "client_ref": None}
        self.own |= {"batch_id": None, "set_id": None}
        self.request = ImageRequested.model_validate(
            {"request_id": str(self.id), "tenant": tenant, "prompt": "a red circle", "wanted": 2} | asked
        )
        self._second = 0

    def at(self, event: E) -> E:
        """The event as if a record had carried it."""
        self._second += 1
        at = START + timedelta(seconds=self._second)
        event.delivered(Envelope(origin=f"t:0:{self._second}", recorded_at=at))
        return event

    def _candidate(self, index: int, hop: int) -> dict[str, Any]:
        return self.own | {"candidate_id": self.candidate(index), "index": index, "hop": hop}

    def candidate(self, index: int) -> uuid.UUID:
        return candidate_id(self.tenant, self.id, index)

    def asset(self, index: int) -> uuid.UUID:
        return asset_id(self.candidate(index))

    def sha(self, index: int, hop: int = 0) -> str:
        return sha256(f"{self.id}/{index}/{hop}".encode()).hexdigest()

    def requested(self, **changed: Any) -> ImageRequested:
        return self.at(self.request.model_copy(update=changed))

    def cancel(self, *, complete: bool = False, reason: str = "user") -> events.CancelRequested:
        request = self.request if complete else None
        return self.at(events.CancelRequested(**self.own, reason=reason, request=request))

    def cleared(self) -> events.ImageCleared:
        return self.at(example(events.ImageCleared, **self.own, closes_by=START + TTL))

    def refused(self) -> events.ImageRefused:
        return self.at(example(events.ImageRefused, **self.own))

    def routed(self, index: int, hop: int = 0, wave: int = 0) -> events.ImageRouted:
        chain = example(events.ImageRouted).chain
        routed = example(events.ImageRouted, **self._candidate(index, hop), wave=wave, chain=[chain[0]] * 3)
        return self.at(routed)

    def generated(self, index: int, hop: int = 0, spent_usd: str = "0.0004") -> events.ImageGenerated:
        made = example(events.ImageGenerated, **self._candidate(index, hop))
        image = made.image.model_copy(update={"sha256": self.sha(index, hop)})
        return self.at(made.model_copy(update={"image": image, "spent_usd": Decimal(spent_usd)}))

    def failed(self, index: int, hop: int = 0, spent_usd: str = "0") -> events.GenerationFailed:
        fields = self._candidate(index, hop) | {"spent_usd": spent_usd}
        return self.at(example(events.GenerationFailed, **fields))

    def scored(self, index: int, hop: int = 0, *, passes: bool = True) -> events.ImageScored:
        verdict = "pass" if passes else "fail"
        score = {"value": 0.9, "threshold": 0.5, "verdict": verdict, "evaluator": "clip", "evaluator_version": "1"}
        fields = {"sha256": self.sha(index, hop), "scores": {"alignment": score}, "verdict": verdict}
        return self.at(example(events.ImageScored, **self._candidate(index, hop), **fields))

    def review_requested(self, index: int, why: str = "review_doubt") -> events.ReviewRequested:
        reason = {"code": why, "stage": "publisher", "message": "look"}
        told = {"sha256": self.sha(index), "reasons": (reason,)}
        return self.at(example(events.ReviewRequested, **self._candidate(index, 0), **told))

    def reviewed(self, index: int, verdict: str) -> events.ImageReviewed:
        return self.at(
            example(events.ImageReviewed, **self._candidate(index, 0), sha256=self.sha(index), verdict=verdict)
        )

    def approved(self, index: int, version: int = 1) -> events.ImageApproved:
        names = {"candidate_id": self.candidate(index), "asset_id": self.asset(index), "version": version}
        return self.at(example(events.ImageApproved, **self.own, **names))

    def revoked(self, index: int, version: int = 2) -> events.ImageRevoked:
        return self.at(example(events.ImageRevoked, **self.own, asset_id=self.asset(index), version=version))

    def closed(self, outcome: str = "approved", *assets: int, **changed: Any) -> events.RequestClosed:
        named = [{"asset_id": self.asset(index), "version": 1} for index in assets]
        fields = {"outcome": outcome, "assets": named, "approved": len(assets), "wanted": self.request.wanted}
        return self.at(example(events.RequestClosed, **{**self.own, **fields, **changed}))

    def stalled(
        self, stage: str, index: int | None = None, *, dead_class: str = "bug", **changed: Any
    ) -> events.ImageStalled:
        fields: dict[str, Any] = {**self.own, "stage": stage, "class": dead_class, "candidate_id": None, "hop": None}
        fields |= {"wave": None, "paid_usd": None, "index": index} | changed
        if index is not None:
            fields |= {"candidate_id": self.candidate(index), "hop": changed.get("hop", 0)}
        fields["source"] = {"topic": f"image.{stage}.v1", "partition": 0, "offset": self._second}
        fields["reasons"] = [Reason(code="bug", stage=stage, message="a bug")]
        return self.at(example(events.ImageStalled, **fields))

    def whole_story(self) -> list[Event]:
        """Everything that may be read of a request with two waves, a fallback, a stall, a cancel and a closing."""
        return [
            self.requested(),
            self.cleared(),
            *(self.routed(index) for index in range(3)),
            self.generated(0),
            self.scored(0),
            self.routed(1, hop=1),
            self.generated(1, hop=1, spent_usd="0.002"),
            self.scored(1, hop=1, passes=False),
            self.stalled("gpu-worker.local", 2, paid_usd="0.0007"),
            self.failed(2, spent_usd="0.0009"),
            self.routed(3, wave=1),
            self.generated(3),
            self.scored(3),
            self.review_requested(3),
            self.reviewed(3, "pass"),
            self.cancel(),
            self.approved(0),
            self.approved(3),
            self.revoked(3),
            self.closed("approved", 0, 3, cost_usd="0.05", cost_final=False, candidates=4),
        ]


def known(line: Line) -> Known:
    """A request of which nothing is known yet."""
    return Known(1, line.tenant, line.id, now=START + timedelta(days=1), ttl=TTL)


def tallies(known: Known) -> list[status.Tally]:
    """What the database counts, without one."""
    found: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    for candidate in known.candidates.values():
        row = status.columns_of(candidate)
        found.setdefault((row["state"], row["stalled"]), []).append(row)
    return [
        status.Tally(
            *key,
            len(rows),
            sum(row["settled"] for row in rows),
            sum((Decimal(row["spent_usd"]) for row in rows), Decimal(0)),
            max((row["wave"] for row in rows if row["wave"] is not None), default=None),
        )
        for key, rows in found.items()
    ]


def standing(line: Line, *told: Event) -> status.Standing:
    """How far a request is after these events."""
    one = known(line)
    for event in told:
        facts.learn(one, event)
    return status.standing(one, tallies(one))
