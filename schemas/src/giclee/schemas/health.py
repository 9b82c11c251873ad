"""What is known of one model at its provider, as ProviderHealth carries it. All of it is advice.

Numbers of a window are about the last minute. The rest is remembered longer: what was seen last of failures,
durations and prices, and how many of its images passed, by asset type, the older ones counting less.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from giclee.schemas.parts import Instant, OutcomeClass, Part, Usd

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A count in which older things count less."""


class Accepted(Part):
    """Images that were judged, and of these the ones that passed; both decayed to `at`."""

    passed: Weight
    scored: Weight
    at: Instant


class ModelHealth(Part):
    """One model at its provider.

    `failed` of `tried` recent attempts went wrong through the provider's own fault, the last `streak` of them in a
    row, the newest at `failed_at`. `limited` times in a row it said that we ask too often. `held`: why it cannot be
    used before somebody acts (`auth`) or until `held_until` (`budget`). `paid_ratio` is what it bills over what was
    expected, median of the newest calls, the oldest of them at `paid_since`. Of about the newest 33 `calls`, whoever's
    fault, `unmade` gave no image, `stood_in` were made for one that had failed before, and `paid_usd` was paid.
    `queue_s`: how long the newest of the last minute waited for its turn.
    """

    tried: Weight = 0.0
    failed: Weight = 0.0
    streak: int = 0
    failed_at: Instant | None = None
    made_at: Instant | None = None
    limited: int = 0
    limited_at: Instant | None = None
    held: OutcomeClass | None = None
    held_since: Instant | None = None
    held_until: Instant | None = None
    p50_s: float | None = None
    p95_s: float | None = None
    samples: int = 0
    queue_s: float | None = None
    price_usd: Usd | None = None
    paid_ratio: float | None = None
    paid_since: Instant | None = None
    calls: Weight = 0.0
    unmade: Weight = 0.0
    stood_in: Weight = 0.0
    paid_usd: Weight = 0.0
    accepted: dict[str, Accepted] = {}


class Weighed(Part):
    """A member of a chain and what spoke for its place: its expected cost in US dollars for one approved image."""

    model: str
    provider: str
    per_approved_usd: Usd
    acceptance: float
    why: str
