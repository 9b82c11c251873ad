"""A model's place in a chain, and how chains are told: where everybody stands while a choice is made."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from giclee.schemas.models import Model

WELL, ASIDE, HELD = 0, 1, 2
"""Where a model stands: usable, usable when nobody else is, and not to be asked while anybody else can be."""


class Place(NamedTuple):
    """Amounts in US dollars; `usd` is what a try may cost, `per_approved` what an approved image is expected to.

    `seconds`: how long an image usually takes there.
    """

    model: Model
    usd: Decimal
    per_approved: float
    acceptance: float
    seconds: float
    tier: int
    why: str
    order: tuple[int, tuple[int, int], float, str]


class Ranking(NamedTuple):
    """Places in order, and who lost, by which code and message."""

    places: list[Place]
    losers: list[tuple[Model, str, str]]
