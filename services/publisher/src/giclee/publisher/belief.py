"""How likely the next candidate passes, and how many to ask for. Pure.

What is known of a pass rate is a Beta distribution: what earlier orders of the kind came to, worth at most
PRIOR_MAX candidates, and what the order itself has seen. Of n more candidates X pass, beta-binomially.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

PRIOR_MAX = 30.0
"""An order's own prompt may be harder than its kind: its own results must soon weigh more than those of others."""
ENOUGH_CHANCE = 0.9
"""A wave that must not be short brings enough with this probability."""


@dataclass(frozen=True)
class Belief:
    """Beta(passes, fails); the default is what is believed of a kind of which nothing is known."""

    passes: float = 1.0
    fails: float = 1.0

    @property
    def mean(self) -> float:
        """The expected pass rate."""
        return self.passes / (self.passes + self.fails)

    def updated(self, passes: float, fails: float) -> Belief:
        """Having seen so many more."""
        return Belief(self.passes + passes, self.fails + fails)

    @classmethod
    def of_kind(cls, passes: float, fails: float) -> Belief:
        """From the counts of other orders, which weigh at most PRIOR_MAX candidates."""
        share = min(1.0, PRIOR_MAX / max(passes + fails, 1.0))
        return cls(1.0 + share * passes, 1.0 + share * fails)

    def probabilities(self, count: int) -> Iterator[float]:
        """Of 0, 1, … passers among `count` candidates."""
        a, b = self.passes, self.fails
        whole = math.lgamma(count + 1) - self._log_beta - math.lgamma(a + b + count)
        for k in range(count + 1):
            ways = -math.lgamma(k + 1) - math.lgamma(count - k + 1)
            yield math.exp(whole + ways + math.lgamma(a + k) + math.lgamma(b + count - k))

    @cached_property
    def _log_beta(self) -> float:
        return math.lgamma(self.passes) + math.lgamma(self.fails) - math.lgamma(self.passes + self.fails)

    def chance(self, count: int, missing: int) -> float:
        """That `missing` or more of `count` candidates pass."""
        return 1.0 - sum(p for k, p in enumerate(self.probabilities(count)) if k < missing)

    def surplus(self, count: int, missing: int) -> float:
        """How many more pass than are missing, in the mean."""
        short = sum((missing - k) * p for k, p in enumerate(self.probabilities(count)) if k < missing)
        return count * self.mean - missing + short

    # ---- how many to ask for; each between `missing` and `room`, both at least 1

    def thrifty(self, missing: int, room: int, surplus_share: float) -> int:
        """The most whose surplus stays under a share of what is missing: few waves at next to no waste."""
        return _largest(missing, room, lambda count: self.surplus(count, missing) <= surplus_share * missing)

    def sure(self, missing: int, room: int) -> int:
        """The fewest that bring enough with ENOUGH_CHANCE; all there is room for when none does."""
        return min(room, 1 + _largest(missing - 1, room, lambda count: self.chance(count, missing) < ENOUGH_CHANCE))


def _largest(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The largest number from `low` to `high` for which `holds`, which it does up to some number; else `low`."""
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low
