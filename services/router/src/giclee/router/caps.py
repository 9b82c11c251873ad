"""Rate caps as eligibility: a bucket of calls per model, filled by the minute. Says no before the provider would.

Counts what this process routes, as advice: replicas do not know of each other. The cap itself is kept by the workers,
all of them together, and the provider's 429 has the last word; being wrong here costs a fallback, never an image.
"""

from __future__ import annotations

from giclee.schemas.models import Model

BURST_S = 20.0
"""A bucket holds what is allowed in so many seconds: providers count by the minute, and we start anywhere in one."""


class Caps:
    """Calls left, by model."""

    def __init__(self) -> None:
        self._left: dict[str, tuple[float, float]] = {}

    def allows(self, model: Model, now_s: float) -> bool:
        """Whether a call now is within the cap of `model`."""
        if model.per_minute is None:
            return True
        known = self._left.get(model.name)
        if known is None or known[0] >= 1.0:  # it only fills until then
            return True
        return self._now(model, model.per_minute, now_s) >= 1.0

    def take(self, model: Model, now_s: float, calls: int = 1) -> None:
        """`calls` go there."""
        if model.per_minute is not None:
            self._left[model.name] = (self._now(model, model.per_minute, now_s) - calls, now_s)

    def _now(self, model: Model, per_minute: int, now_s: float) -> float:
        most = max(1.0, per_minute * BURST_S / 60)
        left, at_s = self._left.get(model.name, (most, now_s))
        return min(most, left + max(0.0, now_s - at_s) * per_minute / 60)
