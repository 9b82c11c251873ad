"""What makes images: one Protocol, what it is asked and what it answers. Entries live in `providers/`.

A provider never raises for what a caller or a service may do wrong: it answers NotMade with a class, and
the chain goes on. What it raises is a bug, or DeviceLost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from giclee.schemas.models import Model
from giclee.schemas.parts import Adjustment, OutcomeClass

TRANSIENT = frozenset({"auth", "budget", "rate", "transient", "timeout"})
"""Classes that a replay may change: contract rule 9. The others are final for this provider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What images of one batch have in common, because a device makes them in one tensor. Pixels."""

    model: str
    width: int
    height: int
    steps: int
    guidance_scale: float
    negative: bool = False
    """Whether a negative prompt is given: pipelines treat none and an empty one differently."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One image asked for."""

    shape: Shape
    prompt: str
    negative_prompt: str | None = None
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One image: lossless bytes, and how to make it again."""

    body: bytes
    content_type: str
    width: int
    height: int
    seconds: float
    weights_sha256: str | None = None
    adjustments: tuple[Adjustment, ...] = ()
    reproducibility: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NotMade:
    """Why there is no image, as one of the outcome classes; `paid_usd` is what the attempt cost all the same."""

    outcome: OutcomeClass
    message: str
    code: str = "provider_failed"
    seconds: float = 0.0
    paid_usd: Decimal = Decimal(0)

    @property
    def transient(self) -> bool:
        return self.outcome in TRANSIENT


Answer = Made | NotMade


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a provider says of a model it holds. `where` is the device and why it was chosen."""

    weights_sha256: str | None
    where: str
    resident: bool


class DeviceLost(Exception):
    """The device is in a state that only a new process mends (a sticky CUDA error)."""


class Provider(Protocol):
    """Makes batches of one shape."""

    async def make(self, model: Model, asks: Sequence[Ask], padded: int) -> Sequence[Answer]:
        """One answer per ask, in order. `padded` is the batch size to compute with, at least len(asks).

        Errors: DeviceLost.
        """
        ...

    async def describe(self, model: Model) -> Description:
        """Make sure the model can be used and say what it is; loads it where it must be loaded.

        Errors: ModelUnusable when a file is missing or is not what it was.
        """
        ...


class ModelUnusable(Exception):
    """A model cannot be used; the message says which file and why."""
