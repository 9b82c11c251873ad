"""Orders on a line without machines: the real funnel decides, a coin or real pictures say what passes.

A worker makes a few images at a time and has begun the next ones before the last are judged, so an order that ends
has always paid for a few that it did not wait for.
"""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any

from giclee.publisher.belief import Belief
from giclee.publisher.funnel import decide
from giclee.publisher.order import Order, Outcome, Scored, Verdict, Wave
from giclee.publisher.rates import Rates, beliefs_of
from giclee.publisher.standing import Kind, Outlook, Pace
from giclee.schemas.parts import BlobRef
from tests.unit.publisher.builders import START

AT_ONCE = 8
"""Images that a worker makes together."""
ROUND_S = 2.0
"""From the first of them begun to the last of them judged."""
MODELS = {"draft": "quick@1", "final": "stub@1"}
PRICES_USD = {"draft": Decimal("0.0002"), "final": Decimal("0.0008")}
Images = Iterator[tuple[bool, float]]
"""Of each image, whether it passes, and what it is worth among those that do."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What an order came to: images made by quality and in all, images approved, waves asked for, seconds.

    `chosen`: the indices of what was approved.
    """

    of: Mapping[str, int]
    approved: int
    waves: int
    seconds: float
    ending: str
    chosen: tuple[int, ...] = ()
    qualities: tuple[str, ...] = ()
    """Of each index."""

    @property
    def made(self) -> int:
        return sum(self.of.values())


class Shop:
    """Orders of one asset type, one after the other; what they came to is believed of the next."""

    def __init__(self, pass_rate: float, seed: int, *, pace: Pace | None = None) -> None:
        self.pass_rate, self.dice, self.pace = pass_rate, random.Random(seed), pace or Pace()
        self.rates = Rates()
        self.counts: Counter[tuple[Kind, bool]] = Counter()

    @property
    def beliefs(self) -> Mapping[Kind, Belief]:
        kinds = {kind for kind, _ in self.counts}
        return beliefs_of((kind, (self.counts[kind, True], self.counts[kind, False])) for kind in kinds)

    def coins(self) -> Images:
        """By the shop's pass rate."""
        while True:
            yield self.dice.random() < self.pass_rate, self.dice.random()

    def order(self, wanted: int, images: Images | None = None, better: Images | None = None, /, **asked: Any) -> Fate:
        """One order from clearance to closing. `images`: what its candidates come to, else coins are thrown; `better`:
        what those of a draft's order come to from where it goes on with final."""
        from_ = {"draft": images or self.coins(), "final": better or images or self.coins()}
        values = {"max_candidates": 400, "first_wave": wanted, "closes_by": START + timedelta(hours=72),
                  "quality": "final", **asked}  # fmt: skip
        verdict = Verdict(cleared=True, wanted=wanted, at=START, limit_usd=PRICES_USD[values["quality"]], **values)
        outlook = Outlook(self.pace, self.beliefs)
        waves = [_wave(0, 0, verdict.first_wave, verdict.limit_usd, START, verdict.quality)]
        qualities = [verdict.quality] * verdict.first_wave
        outcomes: dict[int, Outcome] = {}
        scores: dict[tuple[int, str], Scored] = {}
        seals: dict[int, float] = {}
        now = START
        while True:
            judged = range(len(outcomes), min(len(outcomes) + AT_ONCE, len(qualities)))
            made = Counter(qualities[: judged.stop + AT_ONCE])
            now += timedelta(seconds=ROUND_S)
            for index in judged:
                passes, worth = next(from_[qualities[index]])
                outcomes[index] = Outcome(candidate_id=_ID, hop=0, image=_image(index), model=MODELS[qualities[index]])
                scores[index, _image(index).sha256] = Scored(passes, worth, () if passes else ("alignment",))
                if passes:
                    seals[index] = worth
            order = Order(tenant="default", request_id=_ID, verdict=verdict, waves=tuple(waves), outcomes=outcomes,
                          scores=scores, seals=seals)  # fmt: skip
            decision = decide(order, now, outlook)
            if decision.ending:
                self._learn(order)
                seconds = (now - START).total_seconds()
                return Fate(made, len(decision.approve), len(waves), seconds, decision.ending, decision.approve,
                            tuple(qualities))  # fmt: skip
            if ask := decision.ask:
                waves.append(_wave(ask.number, ask.first, ask.count, ask.limit_usd, now, ask.quality))
                qualities += [ask.quality] * ask.count

    def _learn(self, order: Order) -> None:
        self.rates.note(order)
        for kind, (passes, fails) in self.rates.taken().items():
            self.counts[kind, True] += int(passes)
            self.counts[kind, False] += int(fails)


_ID = uuid.UUID(int=7)
_IMAGES: dict[int, BlobRef] = {}


def _image(index: int) -> BlobRef:
    if index not in _IMAGES:
        digest = sha256(str(index).encode()).hexdigest()
        _IMAGES[index] = BlobRef(bucket="b", key=str(index), sha256=digest, size_bytes=1, content_type="image/png",
                                 width=1, height=1)  # fmt: skip
    return _IMAGES[index]


def _wave(number: int, first: int, count: int, limit_usd: Decimal, at: datetime, quality: str) -> Wave:
    return Wave(number=number, first=first, count=count, limit_usd=limit_usd, asked_at=at, last_asked_at=at,
                quality=quality)  # fmt: skip
