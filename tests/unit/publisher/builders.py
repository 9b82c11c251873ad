"""Events of one request as the publisher reads them, and the set of facts they add up to, without a database."""

from __future__ import annotations

import io
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any

from PIL import Image

from giclee.publisher import funnel
from giclee.publisher.facts import Fact, facts_of, facts_of_routed, review_fact
from giclee.publisher.funnel import Decision
from giclee.publisher.order import Order
from giclee.publisher.standing import Outlook
from giclee.schemas.envelope import Envelope
from giclee.schemas.events import (
    CancelRequested,
    Cleared,
    Event,
    GenerationFailed,
    ImageCleared,
    ImageGenerated,
    ImageRefused,
    ImageRequested,
    ImageReviewed,
    ImageRouted,
    ImageScored,
    ImageStalled,
)
from giclee.schemas.parts import BlobRef, Position, Reason, Score, candidate_id

START = datetime(2026, 11, 21, 12, tzinfo=UTC)
OUTLOOK = Outlook()


def picture(index: int, request_id: uuid.UUID | None = None) -> bytes:
    """A PNG that no other candidate has."""
    seed = sha256(f"{request_id}/{index}".encode()).digest()
    out = io.BytesIO()
    Image.new("RGB", (32, 16), tuple(seed[:3])).save(out, "PNG", compress_level=0)
    return out.getvalue()


class Request:
    """Builds the events of one request. Everything a test does not care about has a plain default."""

    def __init__(self, *, closes_by: datetime = START + timedelta(hours=72), tenant: str = "default", **asked: Any):
        self.id = uuid.uuid4()
        self.tenant = tenant
        self.echo: dict[str, Any] = {
            "request_id": self.id,
            "tenant": tenant,
            "labels": {"campaign": "winter"},
            "client_ref": "order-7",
        }
        limit_usd = Decimal(asked.pop("limit_usd", "0.01"))
        wanted = asked.pop("wanted", 1)
        self.first_wave = asked.pop("first_wave", wanted)
        self.closes_by = closes_by
        self.cleared_request = Cleared(
            prompt="a small red circle on blue",
            asset_type=asked.pop("asset_type", "generic"),
            wanted=wanted,
            max_candidates=asked.pop("max_candidates", max(8, 4 * wanted)),
            selection=asked.pop("selection", "best"),
            budget_usd=asked.pop("budget_usd", None),
            quality=asked.pop("quality", "final"),
            priority=asked.pop("priority", "standard"),
            privacy="public",
            seed=7,
            limit_usd=limit_usd,
            policy_version="p1",
            accepted_at=START,
            closes_by=closes_by,
            **asked,
        )

    def cleared(self) -> ImageCleared:
        asked = self.cleared_request
        return ImageCleared(
            **self.echo,
            request=asked,
            first_wave=self.first_wave,
            limit_usd=asked.limit_usd,
            closes_by=self.closes_by,
        )

    def refused(self) -> ImageRefused:
        reason = Reason(code="policy_rule", stage="policy", message="a blocked term", rule="blocked-terms")
        return ImageRefused(**self.echo, reasons=(reason,), policy_version="p1", accepted_at=START)

    def cancel(self, reason: str = "user", *, complete: bool = False, note: str | None = None) -> CancelRequested:
        request = ImageRequested(prompt="a red circle", wanted=self.cleared_request.wanted, **self.echo)
        return CancelRequested(
            **self.echo,
            reason=reason,
            note=note,
            request=request if complete else None,
            accepted_at=START if complete else None,
        )

    def _candidate(self, index: int, hop: int) -> dict[str, Any]:
        return {
            **self.echo,
            "candidate_id": candidate_id(self.tenant, self.id, index),
            "index": index,
            "hop": hop,
        }

    def image(self, index: int, hop: int = 0) -> BlobRef:
        body = picture(index + 1000 * hop, self.id)
        return BlobRef(
            bucket="memory",
            key=f"candidates/{self.tenant}/{self.id}/{index}-{hop}-1",
            sha256=sha256(body).hexdigest(),
            size_bytes=len(body),
            content_type="image/png",
            width=32,
            height=16,
        )

    def routed(
        self, index: int, provider: str = "slow", *, hop: int = 0, hedge_after_s: float | None = 4.0
    ) -> ImageRouted:
        """Given to `provider`; somebody waits for it unless `hedge_after_s` is None."""
        model = {"name": "flux", "revision": "r1"}
        hops = [
            {"provider": one, "pool": "hosted", "model": model, "price_usd": "0.004", "width": 64, "height": 64}
            for one in ("another", provider)[1 - hop :]
        ]
        return ImageRouted(
            **self._candidate(index, hop), wave=0, chain=hops, limit_usd=self.cleared_request.limit_usd, seed=7,
            request=self.cleared_request, hedge_after_s=hedge_after_s,
        )  # fmt: skip

    def generated(self, index: int, *, spent_usd: str = "0.004", hop: int = 0) -> ImageGenerated:
        return ImageGenerated(
            **self._candidate(index, hop),
            image=self.image(index, hop),
            prompt="a small red circle on blue",
            asset_type="generic",
            seed=100 + index,
            provider="diffusion",
            model={"name": "shapes-final", "revision": "r1", "weights_sha256": "ab"},
            spent_usd=Decimal(spent_usd),
        )

    def failed(
        self, index: int, *, code: str = "provider_failed", spent_usd: str = "0", hop: int = 0
    ) -> GenerationFailed:
        reason = Reason(code=code, stage="gpu-worker", message="no picture", provider="diffusion")
        return GenerationFailed(**self._candidate(index, hop), reasons=(reason,), spent_usd=Decimal(spent_usd))

    def scored(
        self,
        index: int,
        value: float = 0.9,
        *,
        passes: bool = True,
        sha: str | None = None,
        hop: int = 0,
        phash: str | None = None,
    ) -> ImageScored:
        verdict = "pass" if passes else "fail"
        score = Score(value=value, threshold=0.5, verdict=verdict, evaluator="clip", evaluator_version="1")
        return ImageScored(
            **self._candidate(index, hop),
            sha256=sha or self.image(index, hop).sha256,
            scores={"alignment": score},
            verdict=verdict,
            gate_version="g1",
            phash=phash,
        )

    def doubted(self, index: int, value: float = 0.6, *, hop: int = 0) -> ImageScored:
        """The gate could not tell; every picture looks different."""
        score = Score(value=value, threshold=0.7, verdict="unsure", evaluator="clip", evaluator_version="1")
        sha = self.image(index, hop).sha256
        return ImageScored(
            **self._candidate(index, hop), sha256=sha, scores={"alignment": score}, verdict="unsure",
            gate_version="g1", phash=sha * 3,
        )  # fmt: skip

    def reviewed(self, index: int, *, passes: bool, reviewer: str = "mira", sha: str | None = None) -> ImageReviewed:
        return ImageReviewed(
            **self._candidate(index, 0), sha256=sha or self.image(index).sha256, verdict="pass" if passes else "fail",
            reviewer=reviewer, reason_codes=("on-brief",) if passes else ("hands",), note="looked twice", seconds=4.5,
            reviewed_at=START,
        )  # fmt: skip

    def stalled(
        self,
        index: int | None = None,
        *,
        wave: int | None = None,
        stage: str = "scorer",
        dead_class: str = "poison",
        offset: int = 0,
        paid_usd: str | None = None,
    ) -> ImageStalled:
        at = Position(topic=f"image.{stage}", partition=0, offset=offset)
        return ImageStalled(
            **self.echo,
            candidate_id=None if index is None else candidate_id(self.tenant, self.id, index),
            wave=wave,
            stage=stage,
            dead_class=dead_class,
            reasons=(Reason(code="poison", stage=stage, message="it broke"),),
            source=at,
            dead_letter=at,
            fingerprint="f",
            paid_usd=None if paid_usd is None else Decimal(paid_usd),
            stalled_at=START,
        )


def delivered(event: Event, origin: str = "t:0:0") -> Any:
    """The event as a handler gets it."""
    return event.delivered(Envelope(id=str(event.event_id()), origin=origin))


class Book:
    """The facts of one order in memory: first stored wins, decisions are applied as the store applies them."""

    def __init__(self, request: Request, *events: Event) -> None:
        self.request = request
        self.now = START
        self.facts: dict[tuple[str, str], Fact] = {}
        self.ending: str | None = None
        self.because: str | None = None
        self.endings = 0
        self.approved: list[int] = []
        self.waves: list[tuple[int, int, int]] = []
        self.repeated: list[int] = []
        self.put_to_people: list[tuple[int, str]] = []
        for event in events:
            self.tell(event)

    @property
    def order(self) -> Order:
        return Order.of(self.request.tenant, self.request.id, self.facts.values())

    def store(self, *facts: Fact) -> None:
        for fact in facts:
            self.facts.setdefault((fact.kind, fact.name), replace(fact, at=self.now))

    def tell(self, *events: Event) -> Book:
        """Store what events teach, without deciding."""
        for event in events:
            self.store(*(facts_of_routed(event) if isinstance(event, ImageRouted) else facts_of(event)))
        return self

    def look(self, index: int, *, passes: bool, sha: str | None = None) -> Book:
        """A person's verdict takes effect, without deciding."""
        self.store(review_fact(self.request.reviewed(index, passes=passes, sha=sha)))
        return self

    def later(self, seconds: float) -> Book:
        self.now += timedelta(seconds=seconds)
        return self

    def seal(self, *indices: int) -> Book:
        """Seal these candidates, or all that passed."""
        order = self.order
        for index in (indices or order.unsealed()) if self.ending is None else ():
            score = order.score_of(index)
            self.store(Fact(kind="seal", name=str(index), says={"measure": score.measure if score else 0.0}))
        return self

    def decide(self) -> Decision:
        """Decide now and apply it."""
        if self.ending is not None:
            return Decision()
        order = self.order
        decision = funnel.decide(order, self.now, OUTLOOK)
        self.store(*funnel.facts_of_decision(order, decision))
        self.approved += decision.approve
        self.repeated += decision.repeat
        self.put_to_people += [(index, kind) for index, _, kind in funnel.reviews_of(order, decision)]
        if decision.ask:
            self.waves.append((decision.ask.number, decision.ask.first, decision.ask.count))
        if decision.ending:
            self.ending, self.because, self.endings = decision.ending, decision.because, self.endings + 1
        return decision

    def alarm(self) -> datetime | None:
        """When the clock looks at the order again."""
        return funnel.wake_at(self.order, self.now, OUTLOOK)
