"""Are a model's scores still as they were when the gate was calibrated? A test that may be looked at for ever. Pure.

For each edge of the calibration's bins, each side of it, and a few odds by which the share there could have grown, the
likelihood ratio of what was counted is a bet that gains nothing in the mean while the share is within its bound; so is
the mean of all bets, which comes to 1/e at any time with a chance of at most e (Ville). Counting begins anew after
BLOCK images, so that the past cannot outweigh a change; block b may use 1 / (b (b + 1)) of the error. The images must
be independent: of one request only the first counts. docs/adr/0015 says what was considered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from giclee.scorer.reference import ReferenceRow, Yardstick

FALSE_ALARM = 0.01
"""Of one asset type and model revision, ever. Half is for the calibration's own chance, half for the images'."""
BLOCK = 500
ODDS = (1.5, 3.0, 10.0, 50.0)
"""Times by which the odds of a share may have grown: a shift that is hardly seen, to a model that draws noise."""


@dataclass(frozen=True, slots=True)
class Spread:
    """What was counted of one asset type and model revision: images in all and in this block, bins by dimension."""

    seen: int = 0
    block: int = 1
    size: int = 0
    counts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bets:
    """For one dimension: (2 x edges) bounds, and what a hit and a miss multiply each bet by, as logarithms.

    A hit of the first half is a value under the edge, of the second half one at or over it.
    """

    bounds: np.ndarray
    hit: np.ndarray  # (2 x edges, odds)
    miss: np.ndarray

    def evidence(self, counts: np.ndarray) -> np.ndarray:
        """The logarithm of the mean bet, (...), for counts by bin, (..., bins)."""
        total = counts.sum(axis=-1, keepdims=True)
        hits = self._hits(counts)[..., None]  # (..., 2 x edges, 1)
        each = hits * self.hit + (total[..., None] - hits) * self.miss
        highest = each.max(axis=(-1, -2), keepdims=True)
        mean: np.ndarray = np.log(np.exp(each - highest).mean(axis=(-1, -2))) + highest[..., 0, 0]
        return mean

    def strongest(self, counts: np.ndarray) -> int:
        """The bet that gained most, as a place in `bounds`."""
        hits = self._hits(counts)[:, None]
        return int(np.argmax((hits * self.hit + (counts.sum() - hits) * self.miss).max(axis=1)))

    @staticmethod
    def _hits(counts: np.ndarray) -> np.ndarray:
        under = counts.cumsum(axis=-1)[..., :-1]
        hits: np.ndarray = np.concatenate([under, counts.sum(axis=-1, keepdims=True) - under], axis=-1)
        return hits


@lru_cache(maxsize=512)
def bets_of(row: ReferenceRow, dimensions: int) -> Bets:
    """The bets against a row, one of so many dimensions that share the error."""
    counts = np.asarray(row.counts)
    total, under = int(counts.sum()), counts.cumsum()[:-1]
    error = FALSE_ALARM / 2 / dimensions / (2 * len(under))
    bounds = np.array([at_most(int(count) / total, total, error) for count in (*under, *(total - under))])
    return betting(bounds)


def betting(bounds: np.ndarray) -> Bets:
    """The bets that shares lie over their bounds: for values under each edge, then for values over each."""
    odds = bounds[:, None] / (1 - bounds[:, None]) * np.asarray(ODDS)
    return Bets(bounds, np.log(odds / (1 + odds) / bounds[:, None]), -np.log((1 + odds) * (1 - bounds[:, None])))


def at_most(share: float, total: int, error: float) -> float:
    """The largest true share under which one so small is seen with a chance of `error` (Chernoff's bound)."""
    low, high = share, 1.0 - 1e-9
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if total * _divergence(share, middle) <= -math.log(error) else (low, middle)
    return high


def _divergence(one: float, other: float) -> float:
    found = one * math.log(one / other) if one > 0 else 0.0
    return found + ((1 - one) * math.log((1 - one) / (1 - other)) if one < 1 else 0.0)


def needed(block: int, dimensions: int) -> float:
    """The logarithm that the evidence must reach in a block."""
    return math.log(block * (block + 1) * 2 * dimensions / FALSE_ALARM)


def after(spread: Spread, yardstick: Yardstick, images: Sequence[Mapping[str, float]]) -> tuple[Spread, dict[str, str]]:
    """The spread with the values of these images, one at a time, and what drifted: dimension to a sentence."""
    found: dict[str, str] = {}
    for values in images:
        spread = _with(spread, yardstick, values)
        for name, row in yardstick.rows.items():
            if name in values and name not in found:
                counts, bets = np.asarray(spread.counts[name]), bets_of(row, len(yardstick.rows))
                if bets.evidence(counts) >= needed(spread.block, len(yardstick.rows)):
                    found[name] = _said(row, counts, bets)
    return spread, found


def _with(spread: Spread, yardstick: Yardstick, values: Mapping[str, float]) -> Spread:
    full = spread.size >= BLOCK
    counts = {}
    for name, row in yardstick.rows.items():
        old = (0,) * len(row.counts) if full else spread.counts.get(name, (0,) * len(row.counts))
        place = row.bin_of(values[name]) if name in values else None
        counts[name] = tuple(count + (at == place) for at, count in enumerate(old))
    return Spread(spread.seen + 1, spread.block + full, 1 if full else spread.size + 1, counts)


def renewed(spread: Spread) -> Spread:
    """Counting begins anew; the error that was spent stays spent."""
    return Spread(spread.seen, spread.block + 1)


def _said(row: ReferenceRow, counts: np.ndarray, bets: Bets) -> str:
    place = bets.strongest(counts)
    at, total, labels = place % len(row.edges), int(counts.sum()), sum(row.counts)
    now, before = int(counts[: at + 1].sum()) / total, sum(row.counts[: at + 1]) / labels
    how = f"under {row.edges[at]:.3g}"
    if place >= len(row.edges):
        now, before, how = 1 - now, 1 - before, f"{row.edges[at]:.3g} or more"
    return f"{now:.0%} of {total} images measure {how}; of the calibration {before:.1%}"
