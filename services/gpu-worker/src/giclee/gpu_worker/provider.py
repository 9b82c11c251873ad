"""What makes images: one Protocol, what it is asked and what it answers. Entries live in `providers/`.

A provider never raises for what a caller or a service may do wrong: it answers NotMade with a class, and
the chain goes on. What it raises is a bug, DeviceLost, or what `Call.note` raises. Own devices get asks of one
shape as a batch; a hosted one gets one call per ask, concurrently, and never batches pixels.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from giclee.schemas.models import Model
from giclee.schemas.parts import Adjustment, OutcomeClass
from giclee.schemas.reproduction import Grade, Reproduction

FIELDS = frozenset({"prompt", "negative_prompt", "seed", "size", "steps", "guidance_scale"})
"""What can be asked of an image, as adjustments name it."""
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
class Call:
    """One paid call at a provider that bills, as its claim remembers it.

    `key` is the same for every try at this candidate's hop, whatever the fence: a provider's idempotency key is made
    of it. `job` is the provider's job id that an earlier try stored: it is looked up and its result taken instead of
    paying again. `note` stores a job id durably, the moment it is known; what it raises (the database's
    giclee.bus.errors.Transient) goes through `make`. `why_not_again` is asked before anything is paid for besides
    `job`, where that was or may have been billed: None, or the answer to give instead.
    """

    key: str
    job: str | None = None
    note: Callable[[str], Awaitable[None]]
    why_not_again: Callable[[], NotMade | None] = lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One image asked for; without a `call` it is made on a device of our own, and nothing is billed.

    `asked` are those of FIELDS that somebody asked for: leaving out what nobody asked for is no adjustment. `strict`:
    an adjustment is a NotMade instead (`adjusting.refused`), before anything is made or paid for where that is known.
    """

    shape: Shape
    prompt: str
    negative_prompt: str | None = None
    seed: int
    asked: frozenset[str] = FIELDS
    strict: bool = False
    call: Call | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One image: lossless bytes, and how to make it again.

    `cost_usd` is what the provider says the call cost, None where it does not say. `again`: an earlier job could not be
    found, so this one was paid a second time.
    """

    body: bytes
    content_type: str
    width: int
    height: int
    seconds: float
    weights_sha256: str | None = None
    adjustments: tuple[Adjustment, ...] = ()
    reproducibility: Grade = "none"
    reproduction: Reproduction | None = None
    cost_usd: Decimal | None = None
    job: str | None = None
    again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NotMade:
    """Why there is no image, as one of the outcome classes.

    `paid_usd` is what was or may have been billed although there is no image; 0 only where surely nothing was.
    `retry_after_s` is how long the provider asks to be left alone; `cost_usd`, `job` and `again` as in Made.
    """

    outcome: OutcomeClass
    message: str
    code: str = "provider_failed"
    seconds: float = 0.0
    paid_usd: Decimal = Decimal(0)
    retry_after_s: float | None = None
    cost_usd: Decimal | None = None
    job: str | None = None
    again: bool = False

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a provider can do at all; a model's row narrows it.

    `sizes` in pixels, None for any that the row allows. `concurrency` is calls at once, `per_minute` calls a minute.
    `idempotency_key`: the same key is never billed twice. `lookup`: a job can be asked for by its id after a crash.
    `data_terms` is one sentence: may it keep inputs and outputs, or train on them.
    """

    seed: bool
    negative_prompt: bool
    steps: bool
    guidance: bool
    reference_image: bool
    images_per_call: int = 1
    sizes: tuple[tuple[int, int], ...] | None = None
    concurrency: int = 4
    per_minute: int | None = None
    idempotency_key: bool = False
    lookup: bool = False
    data_terms: str
    region: str | None = None


class DeviceLost(Exception):
    """The device is in a state that only a new process mends (a sticky CUDA error)."""


class Provider(Protocol):
    """Makes batches of one shape on a device of ours, or calls a service once per ask."""

    capabilities: Capabilities

    async def make(self, model: Model, asks: Sequence[Ask], padded: int) -> Sequence[Answer]:
        """One answer per ask, in order. `padded` is the batch size to compute with, at least len(asks).

        Errors: DeviceLost; what `note` of an ask's call raises.
        """
        ...

    async def describe(self, model: Model) -> Description:
        """Make sure the model can be used and say what it is; loads it where it must be loaded.

        Errors: ModelUnusable when a file is missing or is not what it was.
        """
        ...

    async def close(self) -> None:
        """Let go of connections and threads; whoever asks afterwards gets Closed. Twice is fine.

        It does not wait: who still has an answer to come gets an error or is cancelled.
        """
        ...


class Closed(RuntimeError):
    """A provider was asked after it was closed: a bug of whoever asked."""


class ModelUnusable(Exception):
    """A model cannot be used; the message says which file and why."""
