"""A threshold with a promise: of what it accepts, at most a given share is bad, with a given confidence. Pure.

Learn-then-Test with fixed sequences (Angelopoulos et al., 2021): thresholds are tested from the strictest on, each by
the exact binomial (Clopper-Pearson) bound on what it accepts, and a sequence ends where the bound is too high; it
may start at several places, which share the error. The loosest threshold that was reached is the answer. It holds
for pictures like the labelled ones, and for the share among what is accepted, not among all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

STARTS = 5
"""Places where a sequence begins; the error is shared among them."""
STEPS = 200
"""Thresholds that are tested, evenly spread over the scores."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A threshold, what it accepts of the labelled pictures, and the bound on the share of bad ones among those."""

    threshold: float
    accepted: int
    bad: int
    bound: float


class TooFew(Exception):
    """The labels cannot carry the promise; the message says how many are needed."""


def upper_bound(bad: int, count: int, error: float) -> float:
    """Clopper-Pearson: the largest share under which so few bad ones of `count` have a chance of `error`."""
    if bad >= count:
        return 1.0
    low, high = bad / count, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(bad, count, middle) > error else (low, middle)
    return high


def _at_most(bad: int, count: int, share: float) -> float:
    """The probability of at most `bad` bad ones."""
    if share <= 0.0:
        return 1.0
    logs = [
        math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        + k * math.log(share) + (count - k) * math.log1p(-share)
        for k in range(bad + 1)
    ]  # fmt: skip
    highest = max(logs)
    return min(1.0, math.exp(highest) * sum(math.exp(one - highest) for one in logs))


def needed(bad_rate: float, error: float, bad_share: float = 0.0) -> int:
    """Accepted labels that a promise takes when such a share of them is bad; 0 when no number is enough."""
    if bad_share >= bad_rate:
        return 0
    count = math.ceil(math.log(error) / math.log1p(-bad_rate))
    while upper_bound(math.ceil(bad_share * count), count, error) > bad_rate:
        count = math.ceil(count * 1.1)
    return count


def choose(scores: Sequence[float], right: Sequence[bool], *, bad_rate: float, confidence: float = 0.95) -> Choice:
    """The loosest threshold whose promise holds. Errors: TooFew; ValueError for arguments that make no sense."""
    if not 0 < bad_rate < 1 or not 0 < confidence < 1:
        raise ValueError("bad_rate and confidence lie between 0 and 1")
    if len(scores) != len(right) or not np.isfinite(np.asarray(scores, float)).all():
        raise ValueError("every label needs one score that is a number")
    error = (1 - confidence) / STARTS
    order = np.argsort(-np.asarray(scores, float), kind="stable")
    ranked = np.asarray(scores, float)[order]
    wrong = np.cumsum(~np.asarray(right, bool)[order])
    least = needed(bad_rate, error)
    counts = _counts(ranked, least)
    found = [_sequence(ranked, wrong, [n for n in counts if n >= start], bad_rate, error) for start in _starts(counts)]
    reached = [choice for choice in found if choice is not None]
    if not reached:
        raise TooFew(_why(ranked, wrong, bad_rate, error))
    return max(reached, key=lambda choice: choice.accepted)


def _counts(ranked: np.ndarray, least: int) -> list[int]:
    """Numbers of accepted pictures that are tested, from few to many; ties are accepted together."""
    wanted = np.unique(np.linspace(least, len(ranked), STEPS).astype(int)) if len(ranked) >= least else []
    return sorted({int(np.searchsorted(-ranked, -ranked[count - 1], side="right")) for count in wanted})


def _starts(counts: Sequence[int]) -> list[int]:
    if not counts:
        return []
    places = np.geomspace(counts[0], max(counts[0] + 1, counts[-1] / 2), STARTS)
    return [int(place) for place in places]


def _sequence(
    ranked: np.ndarray, wrong: np.ndarray, counts: Sequence[int], bad_rate: float, error: float
) -> Choice | None:
    """The last of these counts before the first whose bound is too high."""
    best = None
    for count in counts:
        bad = int(wrong[count - 1])
        bound = upper_bound(bad, count, error)
        if bound > bad_rate:
            break
        best = Choice(float(ranked[count - 1]), count, bad, bound)
    return best


def _why(ranked: np.ndarray, wrong: np.ndarray, bad_rate: float, error: float) -> str:
    least = needed(bad_rate, error)
    text = f"{bad_rate:.1%} cannot be promised from {len(ranked)} labels: "
    if len(ranked) < least:
        return f"{text}at least {least} accepted ones are needed, all of them right"
    top = max(least, len(ranked) // 10)
    share = float(wrong[top - 1]) / top
    many = needed(bad_rate, error, share)
    of_best = f"of the best {top} {share:.1%} are bad"
    if not many:
        return f"{text}{of_best}, so no number of labels helps; measure better, or promise less"
    return f"{text}{of_best}; about {many} accepted ones are needed, {math.ceil(many * len(ranked) / top)} in all"
