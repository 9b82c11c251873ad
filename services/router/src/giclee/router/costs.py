"""What an approved image is expected to cost: the price of a try and all that a try brings, over the share that passes.

Pure. Acceptance is a Beta posterior per provider, model and asset type: what was judged counts, newer images more
than older ones, and a prior steadies the first few. What is not known well is uncertain, and a little of the work
that allows it goes where the uncertainty could turn out well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from statistics import NormalDist
from typing import Annotated, NamedTuple

from pydantic import Field

from giclee.schemas import config
from giclee.schemas.parts import StrictPart
from giclee.schemas.strict import FieldError, InvalidInput

PRIOR_PASSED, PRIOR_SCORED = 6.0, 10.0
"""Before any image of a model is judged: as if 6 of 10 had passed."""
KIND_WEIGHT = 12.0
"""What a model does over all asset types counts as so many images of one asset type."""
HALF_LIFE_S = 6 * 3600.0
"""What was judged six hours ago counts half: a provider that is not used becomes uncertain, and is tried again."""
EXPLORE_SHARE = 0.15
"""Of the work that may explore, the share that is chosen by a draw of the posterior instead of its mean."""
MEAN_MIN = 0.02
"""Nobody is taken for one that never passes: its price over its acceptance must stay a number."""
_NORMAL = NormalDist()


Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=False)]
Small = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False, strict=False)]


class Terms(StrictPart):
    """What a made image brings besides its price, and what a failed attempt does, in US dollars: `[[costs]]`.

    Scoring and storage are our own machine time and 45 days of a candidate's blob; `review_share` of images is
    looked at by a person. A failed attempt costs a worker's time and the caller's patience even if nobody bills it.
    """

    scoring_usd: Small = 0.0004
    storage_usd: Small = 0.0001
    review_share: Share = 0.02
    review_usd: Small = 0.05
    failure_usd: Small = 0.0005

    @cached_property
    def each_usd(self) -> float:
        """For every image that is made."""
        return self.scoring_usd + self.storage_usd + self.review_share * self.review_usd


def terms_of(path: str | None) -> Terms:
    """The operator's row, or the built-in one. Errors: InvalidInput for a bad row, and for a second one."""
    found = config.rows_of(path, "costs", Terms)
    if len(found) > 1:
        raise InvalidInput([FieldError("/costs/1", "there is one row of costs at most")])
    return found[0] if found else Terms()


class Counts(NamedTuple):
    """Images judged and passed, older ones counting less, as of `at_s`."""

    passed: float
    scored: float
    at_s: float

    def now(self, now_s: float) -> Counts:
        """As they count at `now_s`."""
        left = 0.5 ** (max(0.0, now_s - self.at_s) / HALF_LIFE_S)
        return Counts(self.passed * left, self.scored * left, now_s)


class Belief(NamedTuple):
    """A share between 0 and 1, and how sure we are of it."""

    mean: float
    sd: float


def belief(kinds: Mapping[str, Counts], asset_type: str, now_s: float) -> Belief:
    """The share of a model's images of `asset_type` that pass.

    What the model does for all asset types together is the prior of each; its own prior is `PRIOR_PASSED`.
    """
    passed, scored = PRIOR_PASSED, PRIOR_SCORED
    for counts in kinds.values():
        old = counts.now(now_s)
        passed, scored = passed + min(old.passed, old.scored), scored + old.scored
    overall = passed / scored
    own = kinds.get(asset_type, Counts(0.0, 0.0, now_s)).now(now_s)
    return posterior(min(own.passed, own.scored), own.scored, overall, KIND_WEIGHT)


def posterior(passed: float, scored: float, prior: float, weight: float) -> Belief:
    """Mean and standard deviation of Beta(passed + prior, failed + prior), never quite 0."""
    count = scored + weight
    mean = max(MEAN_MIN, (passed + prior * weight) / count)
    return Belief(mean, math.sqrt(mean * max(0.0, 1 - mean) / (count + 1)))


def per_approved_usd(price_usd: float, odds: float, share: float, terms: Terms) -> float:
    """One approved image from one model: `odds` failed attempts for each made one, `share` of the made ones passes."""
    return (price_usd + terms.each_usd + odds * terms.failure_usd) / share


class Draw:
    """Where a wave's luck comes from: numbers that follow from its seed, so that a test can repeat them."""

    def __init__(self, seed: int, *, share: float = EXPLORE_SHARE) -> None:
        self._state = seed & _MASK
        self.explores = self._uniform() < share

    def optimistic(self, known: Belief) -> float:
        """A share drawn from what is believed (the normal approximation of the Beta, kept within its bounds)."""
        return min(1.0, max(MEAN_MIN, known.mean + known.sd * _NORMAL.inv_cdf(self._uniform())))

    def _uniform(self) -> float:
        """Between 0 and 1, both excluded: splitmix64 (Steele, Lea, Flood 2014)."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        mixed = self._state
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return ((mixed ^ (mixed >> 31)) + 0.5) / 2.0**64


_MASK = 2**64 - 1
