"""The trace: requests of a week and what seven providers do meanwhile, all of it from one seed.

Prices jump, providers fail, hang, slow down, run out of credit and change how good they are, by asset type; requests
come by day and in bursts. Nothing here depends on who is asked: every policy meets the same world, and the same luck
(`World.luck` is a function of request, candidate and provider), so that differences are the policies' own.

The levels are those of the project's sources: one provider for everything at $0.035 a megapixel image, the cheapest
of the moment near $0.012. All else is made up, and stands in the tables below.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from random import Random
from statistics import NormalDist
from typing import NamedTuple

from giclee.schemas.events import Cleared, PriceSet
from giclee.schemas.models import Model
from giclee.schemas.prices import PriceRow

START_S = 1_796_000_000.0
"""When the week begins, in seconds since 1970; any time does."""
WEEK_S = 7 * 86400.0
WEEK_REQUESTS = 100_000
KINDS = ("product-tile", "lifestyle-scene", "paid-social", "landing-visual")
KIND_SHARES = (0.45, 0.2, 0.25, 0.1)
SIDES = ((768, 768), (1024, 1024), (1536, 1024))
SIDE_SHARES = (0.25, 0.55, 0.2)
PRIORITIES = ("interactive", "standard", "bulk")
PRIORITY_SHARES = (0.25, 0.5, 0.25)
CONFIDENTIAL_SHARE = 0.06
TIMEOUT_S = 60.0
SLOW_SHARE, SLOW_TIMES = 0.015, (4.0, 12.0)
"""Of all calls so many are stragglers (a cold start, a queue), and take so many times as long."""
FAILS, UNUSABLE = 0.004, 0.002
"""On a good day; a blank image is billed."""


class Maker(NamedTuple):
    """One seller. `usd` a `unit`, `passes` by asset type, `median_s` for a megapixel, `dry`: runs on credit."""

    name: str
    usd: str
    unit: str
    passes: tuple[float, float, float, float]
    median_s: float
    spread: float
    per_minute: int
    private: bool = False
    jumps: float = 0.25
    dry: bool = False


# fmt: off
MAKERS: tuple[Maker, ...] = (
    Maker("atlas", "0.035",  "image",     (0.82, 0.80, 0.80, 0.78), 5.0, 0.35, 600, private=True, jumps=0.0),
    Maker("brook", "0.012",  "megapixel", (0.78, 0.60, 0.72, 0.55), 4.0, 0.45, 90),
    Maker("cedar", "0.011",  "megapixel", (0.66, 0.72, 0.60, 0.66), 7.0, 0.55, 60, jumps=0.45),
    Maker("delta", "0.015",  "image",     (0.80, 0.78, 0.80, 0.74), 3.0, 0.35, 120),
    Maker("ember", "0.0008", "step",      (0.74, 0.82, 0.70, 0.80), 6.0, 0.40, 120, dry=True),
    Maker("fjord", "0.0021", "second",    (0.70, 0.66, 0.74, 0.62), 6.0, 0.25, 40, private=True, jumps=0.0),
    Maker("grove", "0.009",  "megapixel", (0.42, 0.38, 0.50, 0.35), 5.0, 0.60, 60, jumps=0.35),
)
# fmt: on
SINGLE = 0
"""The one provider of who has only one."""


class Change(NamedTuple):
    """From `at_s` on, `value` holds. `told_s`: when a price became known by an event; infinite for never."""

    at_s: float
    value: float
    told_s: float = math.inf


class Spell(NamedTuple):
    """A time of trouble: `fails` of calls fail (1: an outage), `hangs`: they do so by silence; `slow` times slower."""

    start_s: float
    end_s: float
    fails: float
    hangs: bool
    slow: float


class Request(NamedTuple):
    """One image wanted."""

    number: int
    at_s: float
    kind: int
    side: int
    cleared: Cleared

    @property
    def waits(self) -> bool:
        """Whether somebody waits for it."""
        return self.cleared.priority == "interactive"


@dataclass(slots=True)
class Seller:
    """A maker with its week: times in seconds since the start, sorted."""

    number: int
    maker: Maker
    model: Model
    prices: list[Change]
    spells: list[Spell]
    dry: list[Spell]
    passes: list[list[Change]]
    _spell_starts: list[float] = field(default_factory=list)

    def price_usd(self, at_s: float, side: int) -> float:
        """What one image costs, truly."""
        return self._units(side) * float(self.maker.usd) * _at(self.prices, at_s)

    def _units(self, side: int) -> float:
        width, height = SIDES[side]
        match self.maker.unit:
            case "megapixel":
                return width * height / 1e6
            case "step":
                return float(self.model.steps)
            case "second":
                return self.model.seconds * width * height / (self.model.width * self.model.height)
        return 1.0

    def pass_share(self, at_s: float, kind: int) -> float:
        return _at(self.passes[kind], at_s)

    def spell(self, at_s: float) -> Spell | None:
        return _within(self.spells, at_s)

    def is_dry(self, at_s: float) -> bool:
        return _within(self.dry, at_s) is not None

    def is_down(self, at_s: float) -> bool:
        """Whether every call fails."""
        spell = self.spell(at_s)
        return (spell is not None and spell.fails >= 1.0) or self.is_dry(at_s)


def _at(path: list[Change], at_s: float) -> float:
    return path[bisect_right(path, at_s, key=lambda change: change.at_s) - 1].value


def _within(spells: list[Spell], at_s: float) -> Spell | None:
    place = bisect_right(spells, at_s, key=lambda spell: spell.start_s) - 1
    return spells[place] if place >= 0 and at_s < spells[place].end_s else None


class World:
    """`count` requests at the rate of 100,000 a week, and the sellers."""

    def __init__(self, seed: int, count: int = WEEK_REQUESTS) -> None:
        self.seed = seed
        self.length_s = WEEK_S * count / WEEK_REQUESTS
        self.sellers = [_seller(seed, number, maker, self.length_s) for number, maker in enumerate(MAKERS)]
        self.requests = _requests(Random(f"{seed} requests"), count, self.length_s)
        self.changes = self._changes()

    def luck(self, request: int, candidate: int, seller: int, what: int) -> float:
        """Between 0 and 1, the same for every policy."""
        mixed = (self.seed * 0x9E3779B97F4A7C15 + request * 0xD1342543DE82EF95 + candidate * 0xAF251AF3B0F025B5) & _MASK
        mixed = (mixed + seller * 0xB564EF22EC7AECE5 + what * 0xF7C2EBC08F67F2B5) & _MASK
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return ((mixed ^ (mixed >> 31)) + 0.5) / 2.0**64

    def normal(self, request: int, candidate: int, seller: int, what: int) -> float:
        return _NORMAL.inv_cdf(self.luck(request, candidate, seller, what))

    def told_prices(self) -> list[tuple[float, PriceSet]]:
        """Price events in the order they became known; those that nobody told are missing."""
        found = []
        for seller in self.sellers:
            for change in seller.prices[1:]:
                if change.told_s < math.inf:
                    found.append((change.told_s, _price_set(seller, change)))
        return sorted(found, key=lambda pair: pair[0])

    def _changes(self) -> list[float]:
        """When anything changed that a policy should notice, one every ten seconds at most."""
        times: list[float] = []
        for seller in self.sellers:
            times += [change.at_s for change in seller.prices[1:]]
            times += [change.at_s for path in seller.passes for change in path[1:]]
            times += [edge for spell in (*seller.spells, *seller.dry) for edge in (spell.start_s, spell.end_s)]
        found: list[float] = []
        for at_s in sorted(times):
            if at_s < self.length_s and (not found or at_s - found[-1] > 10.0):
                found.append(at_s)
        return found


_MASK = 2**64 - 1
_NORMAL = NormalDist()


def rows() -> tuple[PriceRow, ...]:
    """The operator's prices as the week begins."""
    return tuple(
        PriceRow(provider=maker.name, unit=maker.unit, usd=Decimal(maker.usd))  # type: ignore[arg-type]
        for maker in MAKERS
    )


def _price_set(seller: Seller, change: Change) -> PriceSet:
    maker = seller.maker
    usd = Decimal(f"{float(maker.usd) * change.value:.6f}")
    row = PriceRow(provider=maker.name, unit=maker.unit, usd=usd)  # type: ignore[arg-type]
    at = datetime.fromtimestamp(START_S + change.told_s, UTC)
    return PriceSet(place=row.place(), row=row, reason="its price feed", actor="market", set_at=at)


# ---- making it ----------------------------------------------------------------------------------


def _seller(seed: int, number: int, maker: Maker, length_s: float) -> Seller:
    def chance(what: str) -> Random:
        return Random(f"{seed} {maker.name} {what}")

    model = Model(
        name=maker.name, revision="2026-11", location=maker.name, provider=maker.name, pool="hosted",
        private=maker.private, price_usd=Decimal(maker.usd), seconds=maker.median_s, steps=20, width=1024,
        height=1024, size_max=2048, per_minute=maker.per_minute,
    )  # fmt: skip
    spells = _spells(chance("outages"), length_s, every_h=44, median_min=18, outage=True)
    spells += _spells(chance("brown-outs"), length_s, every_h=30, median_min=30, outage=False)
    dry = []
    if maker.dry:
        start_s = chance("credit").uniform(0.3, 0.6) * length_s
        dry = [Spell(start_s, start_s + min(6 * 3600.0, 0.1 * length_s), 1.0, False, 1.0)]
    return Seller(
        number, maker, model, _prices(chance("prices"), maker, length_s), _apart(spells), dry,
        [_passes(chance(f"quality {kind}"), base, length_s) for kind, base in zip(KINDS, maker.passes, strict=True)],
    )  # fmt: skip


def _prices(chance: Random, maker: Maker, length_s: float) -> list[Change]:
    """A factor on the list price: it jumps about every ten hours, and one jump in seven is told by nobody."""
    found, at_s = [Change(0.0, 1.0, 0.0)], 0.0
    while maker.jumps:
        at_s += chance.expovariate(1 / (10 * 3600))
        if at_s >= length_s:
            break
        value = min(2.5, max(0.6, math.exp(chance.gauss(0.0, maker.jumps))))
        told = at_s + chance.uniform(0, 300) if chance.random() < 6 / 7 else math.inf
        found.append(Change(at_s, value, told))
    return found


def _spells(chance: Random, length_s: float, *, every_h: float, median_min: float, outage: bool) -> list[Spell]:
    found: list[Spell] = []
    at_s = 0.0
    while True:
        at_s += chance.expovariate(1 / (every_h * 3600))
        if at_s >= length_s:
            return found
        end_s = at_s + median_min * 60 * math.exp(chance.gauss(0, 0.7))
        hangs = chance.random() < 0.25
        if outage:
            found.append(Spell(at_s, end_s, 1.0, hangs, 1.0))
        else:
            found.append(Spell(at_s, end_s, chance.uniform(0.1, 0.6), hangs, chance.uniform(1.5, 4.0)))
        at_s = end_s


def _apart(spells: list[Spell]) -> list[Spell]:
    """Sorted and without overlap: the earlier ends where the later begins."""
    ordered = sorted(spells)
    starts = [*(spell.start_s for spell in ordered[1:]), math.inf]
    return [
        spell._replace(end_s=min(spell.end_s, after_s))
        for spell, after_s in zip(ordered, starts[: len(ordered)], strict=True)
    ]


def _passes(chance: Random, base: float, length_s: float) -> list[Change]:
    """A share that steps with a new revision or a new prompt style about every two and a half days."""
    found, at_s = [Change(0.0, base)], 0.0
    while True:
        at_s += chance.expovariate(1 / (60 * 3600))
        if at_s >= length_s:
            return found
        worse = chance.random() < 0.6
        factor = chance.uniform(0.55, 0.85) if worse else chance.uniform(1.05, 1.2)
        found.append(Change(at_s, min(0.95, base * factor)))


def _requests(chance: Random, count: int, length_s: float) -> list[Request]:
    bins = max(1, int(length_s // 60))
    bursts = [1.0] * bins
    for _ in range(max(1, round(bins / 250))):  # about forty bursts a week; two at once are as strong as the stronger
        start, times = chance.randrange(bins), chance.uniform(6, 14)
        for at in range(start, min(bins, start + chance.randint(2, 8))):
            bursts[at] = max(bursts[at], times)
    weights = [times * (1 + 0.5 * math.sin(2 * math.pi * at / 1440)) for at, times in enumerate(bursts)]
    minutes = sorted(chance.choices(range(bins), weights, k=count))
    times_s = sorted(60 * (minute + chance.random()) for minute in minutes)
    kinds = chance.choices(range(len(KINDS)), KIND_SHARES, k=count)
    sides = chance.choices(range(len(SIDES)), SIDE_SHARES, k=count)
    priorities = chance.choices(PRIORITIES, PRIORITY_SHARES, k=count)
    known: dict[tuple[int, int, str, bool], Cleared] = {}
    found = []
    for number, at_s in enumerate(times_s):
        key = (kinds[number], sides[number], priorities[number], chance.random() < CONFIDENTIAL_SHARE)
        if key not in known:
            known[key] = _cleared(*key, length_s)
        found.append(Request(number, at_s, kinds[number], sides[number], known[key]))
    return found


def _cleared(kind: int, side: int, priority: str, confidential: bool, length_s: float) -> Cleared:
    start = datetime.fromtimestamp(START_S, UTC)
    width, height = SIDES[side]
    return Cleared.model_validate({
        "prompt": "a teapot", "asset_type": KINDS[kind], "size": {"width": width, "height": height}, "wanted": 1,
        "max_candidates": 8, "selection": "first", "quality": "final", "priority": priority,
        "privacy": "confidential" if confidential else "public", "seed": 1, "limit_usd": "0.2", "policy_version": "p",
        "accepted_at": start, "closes_by": datetime.fromtimestamp(START_S + length_s + 10 * 86400, UTC),
    })  # fmt: skip
