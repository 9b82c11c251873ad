"""Every event of the line, in the order an image travels. Read this file and you know the system.

Events are past tense and frozen. Each names, in `about`, what it is about; its id follows from that
(`event_id`), so a redelivery re-makes the same event. Within a major version events only gain optional
fields; readers ignore fields they do not know and read unknown enum words as `other`.
"""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from giclee.schemas import ids
from giclee.schemas.envelope import Envelope
from giclee.schemas.gates import GateRow
from giclee.schemas.health import ModelHealth, Weighed
from giclee.schemas.parts import (
    Adjustment,
    AltText,
    Approval,
    AskedInstant,
    AskedUsd,
    AssetName,
    AssetTypeName,
    BlobRef,
    CancelReason,
    Change,
    Copies,
    DeadClass,
    Derivative,
    Hop,
    Id,
    Instant,
    Judgement,
    Labels,
    Links,
    ModelPin,
    ModelUsed,
    Outcome,
    OutcomeClass,
    Params,
    Part,
    Position,
    Priority,
    Privacy,
    Quality,
    Reason,
    ReviewTerms,
    Score,
    Selection,
    Sha256,
    ShortText,
    Size,
    SwitchMode,
    TemplateUse,
    Tenant,
    Text,
    Usd,
)
from giclee.schemas.prices import PriceRow
from giclee.schemas.prompts import PromptSlots
from giclee.schemas.reproduction import Reproduction

UNSUPPORTED = ("formats", "inputs", "webhook", "parent")
"""Fields of the contract that this release refuses by name."""

EXTENSIONS_MAX_BYTES = 8192


class Event(BaseModel):
    """What happened. `about()` is its identity; `envelope` is how it reached us (None when we made it)."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, revalidate_instances="never")

    type_name: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.type_name = f"giclee.{cls.__name__}.v1"

    @property
    def envelope(self) -> Envelope:
        """How this event was delivered. Errors: ValueError for an event that no record carried."""
        found: Envelope | None = self.__dict__.get("_envelope")
        if found is None:
            raise ValueError(f"{type(self).__name__} was not read from a record")
        return found

    def delivered(self, envelope: Envelope) -> Event:
        """Remember the envelope this event arrived in, beside the fields.

        Not a pydantic private attribute: those cost 8 us an event, whether they are used or not.
        """
        self.__dict__["_envelope"] = envelope
        return self

    def about(self) -> tuple[object, ...]:
        """What makes this event the same event when it is made again."""
        raise NotImplementedError(type(self).__name__)

    def key(self) -> str:
        """The record's key; records of one key stay in order."""
        raise NotImplementedError(type(self).__name__)

    def event_id(self) -> uuid.UUID:
        """The deterministic `ce_id`: uuid5 of the type and what the event is about."""
        return uuid.UUID(self.event_id_text())

    def event_id_text(self) -> str:
        """`event_id` as it stands on the wire."""
        return ids.derived_text(self.type_name, *self.about())


class RequestEvent(Event):
    """An event that belongs to a request; carries what its sender wants to see again."""

    request_id: Id
    tenant: Tenant = "default"
    client_ref: ShortText | None = None
    batch_id: ShortText | None = None
    set_id: ShortText | None = None
    labels: Labels = {}

    def about(self) -> tuple[object, ...]:
        return (self.tenant, self.request_id)

    def key(self) -> str:
        return str(self.request_id)

    def echo(self) -> dict[str, Any]:
        """The fields that every event of this request repeats."""
        return {
            "request_id": self.request_id,
            "tenant": self.tenant,
            "client_ref": self.client_ref,
            "batch_id": self.batch_id,
            "set_id": self.set_id,
            "labels": self.labels,
        }


# ---- requested ----------------------------------------------------------------------------------


class ImageRequested(RequestEvent):
    """An upstream system asks for approved images. **Public in.** Unknown fields are errors here."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: Annotated[Text, Field(min_length=1, max_length=4000)] | None = None
    template: TemplateUse | None = None
    negative_prompt: Annotated[Text, Field(max_length=4000)] | None = None
    locale: Annotated[Text, Field(pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,4}$")] | None = None
    asset_type: AssetTypeName = "generic"
    size: Size | None = None
    wanted: Annotated[int, Field(ge=1, le=100)] = 1
    max_candidates: Annotated[int, Field(ge=1, le=400)] | None = None
    selection: Selection = "best"
    budget_usd: AskedUsd | None = None
    deadline: AskedInstant | None = None
    quality: Quality = "final"
    priority: Priority = "standard"
    privacy: Privacy = "public"
    model: ModelPin | None = None
    params: Params = Params()
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None
    strict: bool = False
    extensions: dict[str, Any] = {}

    @model_validator(mode="after")
    def _one_prompt(self) -> ImageRequested:
        if (self.prompt is None) == (self.template is None):
            raise ValueError("exactly one of prompt and template is needed")
        return self

    def candidate_cap(self) -> int:
        """The hard cap on candidates: as asked, else max(8, 4 x wanted)."""
        return self.max_candidates or max(8, 4 * self.wanted)

    def values(self) -> dict[str, Any]:
        """What was asked, after defaults; two requests of one id must agree in it."""
        return {**self.model_dump(mode="json", exclude_none=True), "max_candidates": self.candidate_cap()}


class CancelRequested(RequestEvent):
    """Someone, or intake's clock, wants a request to end. **Public in.**

    `request` is filled by intake alone: a cancel that carries the request's own fields can close it even
    if nobody else ever heard of it.
    """

    model_config = ConfigDict(extra="forbid")

    reason: CancelReason = "user"
    note: Annotated[Text, Field(max_length=1024)] | None = None
    request: ImageRequested | None = None
    accepted_at: Instant | None = None

    def about(self) -> tuple[object, ...]:
        return (self.tenant, self.request_id, self.reason, self.request is not None)


# ---- policy-cleared, refused --------------------------------------------------------------------


class Cleared(Part):
    """A request as policy cleared it: the assembled prompt and every setting that later stages need.

    `escalation_limit_usd`: what a candidate may cost when too few drafts would pass and the publisher goes on with
    the final quality; absent where it may not. `copies`: what a picture may not resemble. `review`: what people
    look at.
    """

    prompt: Text
    negative_prompt: Text | None = None
    asked_prompt: Text | None = None
    template: TemplateUse | None = None
    slots: PromptSlots = ()
    locale: str | None = None
    asset_type: AssetTypeName
    size: Size | None = None
    wanted: int
    max_candidates: int
    selection: Selection
    budget_usd: Usd | None = None
    quality: Quality
    priority: Priority
    privacy: Privacy
    strict: bool = False
    model: ModelPin | None = None
    params: Params = Params()
    seed: int
    seed_asked: bool = False
    limit_usd: Usd
    escalation_limit_usd: Usd | None = None
    copies: Copies = "order"
    review: ReviewTerms = ReviewTerms()
    policy_version: str
    accepted_at: Instant
    closes_by: Instant


class WaveEvent(RequestEvent):
    """A run of candidate indices to be routed: `count` of them from `first_index`."""

    request: Cleared

    def wave_number(self) -> int:
        raise NotImplementedError

    def indices(self) -> range:
        raise NotImplementedError

    def limit(self) -> Decimal:
        """The most one candidate of this wave may cost over its whole chain, in US dollars."""
        return self.request.limit_usd


class ImageCleared(WaveEvent):
    """Policy let the request through; carries wave 0."""

    first_wave: Annotated[int, Field(ge=1, le=400)]
    limit_usd: Usd
    closes_by: Instant

    def wave_number(self) -> int:
        return 0

    def indices(self) -> range:
        return range(self.first_wave)


class ImageRefused(RequestEvent):
    """Policy refused the request by a rule; nothing will be made."""

    reasons: Annotated[tuple[Reason, ...], Field(min_length=1)]
    policy_version: str
    asset_type: AssetTypeName = "generic"
    wanted: int = 1
    accepted_at: Instant


# ---- routed -------------------------------------------------------------------------------------


class CandidateEvent(RequestEvent):
    """An event about one candidate; `index` counts a request's candidates over all its waves."""

    candidate_id: Id
    index: Annotated[int, Field(ge=0, le=399)]
    hop: Annotated[int, Field(ge=0)] = 0

    def about(self) -> tuple[object, ...]:
        return (self.tenant, self.request_id, self.candidate_id, self.hop)


class ImageRouted(CandidateEvent):
    """A candidate was given to a provider. `chain[hop]` is asked now; the rest is the fallback.

    `weighed` says what each of the chain is expected to cost, `losers` why every other model is not in it.
    `hedge_after_s`: where somebody waits, how long before one more index at another provider is worth its price.
    """

    wave: Annotated[int, Field(ge=0)]
    chain: Annotated[tuple[Hop, ...], Field(min_length=1)]
    limit_usd: Usd
    spent_usd: Usd = Decimal(0)
    only_transient: bool = True
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)]
    request: Cleared
    reasons: tuple[Reason, ...] = ()
    weighed: tuple[Weighed, ...] = ()
    losers: tuple[Reason, ...] = ()
    hedge_after_s: float | None = None

    @model_validator(mode="after")
    def _hop_is_of_the_chain(self) -> ImageRouted:
        if self.hop >= len(self.chain):
            raise ValueError(f"hop {self.hop} is not in a chain of {len(self.chain)}")
        return self

    def key(self) -> str:
        return str(self.candidate_id)

    def pool(self) -> str:
        """The pool whose workers read this event."""
        return self.chain[self.hop].pool


class ImageGenerated(CandidateEvent):
    """A provider made an image and its bytes are stored.

    `reproducibility` is a grade (`reproduction.Grade`; older events have a sentence there, newer ones may have another
    word: read both as `other`), `reproduction` what was recorded so that the image can be made again.
    """

    image: BlobRef
    prompt: Text
    slots: PromptSlots = ()
    negative_prompt: Text | None = None
    asset_type: AssetTypeName
    seed: int
    provider: str
    model: ModelUsed
    params: Params = Params()
    adjustments: tuple[Adjustment, ...] = ()
    spent_usd: Usd
    price_usd: Usd = Decimal(0)
    seconds: float = 0.0
    reproducibility: str | None = None
    reproduction: Reproduction | None = None


class GenerationFailed(CandidateEvent):
    """This candidate will never have an image, and no replay can change that."""

    reasons: Annotated[tuple[Reason, ...], Field(min_length=1)]
    spent_usd: Usd


# ---- scored -------------------------------------------------------------------------------------


class ImageScored(CandidateEvent):
    """Every dimension of one image was measured; the verdicts hold only for the bytes of `sha256`.

    `phash` is a perceptual fingerprint of 768 bits: near-duplicates differ in few. Absent for what has no pixels.
    """

    sha256: Sha256
    scores: dict[str, Score]
    verdict: Judgement
    gate_version: str
    asset_type: AssetTypeName = "generic"
    provider: str = "unknown"
    model: ModelUsed | None = None
    seconds: float = 0.0
    phash: Annotated[str, Field(pattern=r"^[0-9a-f]{192}$")] | None = None
    long_side_px: int | None = None

    def about(self) -> tuple[object, ...]:
        return (self.tenant, self.candidate_id, self.sha256)

    def passes(self) -> bool:
        """Whether this image may be approved: every dimension passes, and there is at least one."""
        return self.verdict == "pass" and bool(self.scores) and all(score.passes() for score in self.scores.values())


class CandidatesRequested(WaveEvent):
    """The publisher wants more candidates, or wants a silent wave looked at again.

    `hedges`: providers whose candidates are silent; this wave's go elsewhere, to who is fast.
    """

    wave: Annotated[int, Field(ge=0)]
    first_index: Annotated[int, Field(ge=0)]
    count: Annotated[int, Field(ge=1, le=400)]
    limit_usd: Usd
    closes_by: Instant
    hedges: tuple[str, ...] = ()

    def about(self) -> tuple[object, ...]:
        return (self.tenant, self.request_id, self.wave)

    def wave_number(self) -> int:
        return self.wave

    def indices(self) -> range:
        return range(self.first_index, self.first_index + self.count)


# ---- people -------------------------------------------------------------------------------------


class ReviewRequested(CandidateEvent):
    """A person should look at an image; the code of the first reason says why."""

    sha256: Sha256
    image: BlobRef
    reasons: tuple[Reason, ...] = ()
    due_at: Instant | None = None


class ImageReviewed(CandidateEvent):
    """A person gave a verdict on an image."""

    sha256: Sha256
    verdict: Judgement
    reviewer: str
    reason_codes: tuple[str, ...] = ()
    note: str | None = None
    seconds: float | None = None
    reviewed_at: Instant


# ---- approved, revoked --------------------------------------------------------------------------


class ImageApproved(RequestEvent):
    """An image passed and is an asset now. **Public out**, compacted by asset.

    `reproducibility` and `reproduction` as in ImageGenerated.
    """

    status: str = "approved"
    asset_id: Id
    version: Annotated[int, Field(ge=1)]
    candidate_id: Id
    change: Change = "created"
    supersedes: Id | None = None
    format: str | None = None
    image: BlobRef
    derivatives: tuple[Derivative, ...] = ()
    scores: dict[str, Score]
    prompt: Text | None = None
    negative_prompt: Text | None = None
    template: TemplateUse | None = None
    seed: int
    model: ModelUsed
    provider: str
    params: Params = Params()
    adjustments: tuple[Adjustment, ...] = ()
    cost_usd: Usd
    approval: Approval
    alt_text: tuple[AltText, ...] = ()
    rights: dict[str, Any] | None = None
    provenance: dict[str, Any] | None = None
    reproducibility: str | None = None
    reproduction: Reproduction | None = None
    asset_type: AssetTypeName = "generic"
    links: Links

    def about(self) -> tuple[object, ...]:
        return (self.asset_id, self.version)

    def key(self) -> str:
        return str(self.asset_id)


class ImageRevoked(RequestEvent):
    """An approved asset must not be used any more. **Public out.**"""

    status: str = "revoked"
    asset_id: Id
    version: Annotated[int, Field(ge=1)]
    reason_code: str
    reason: Text
    revoked_by: str
    revoked_at: Instant
    take_down_by: Instant | None = None
    replaced_by: Id | None = None
    blobs: tuple[BlobRef, ...] = ()

    def about(self) -> tuple[object, ...]:
        return (self.asset_id, self.version)

    def key(self) -> str:
        return str(self.asset_id)


# ---- closed, stalled ----------------------------------------------------------------------------


class RequestClosed(RequestEvent):
    """The one end of a request. **Public out.**"""

    outcome: Outcome
    wanted: int
    candidates: int
    approved: int
    assets: tuple[AssetName, ...] = ()
    cost_usd: Usd
    cost_final: bool = True
    cost_per_approved_usd: Usd | None = None
    rejected: dict[str, int] = {}
    reasons: tuple[Reason, ...] = ()
    asset_type: AssetTypeName = "generic"
    parent: dict[str, Any] | None = None
    policy_version: str | None = None
    gate_version: str | None = None
    requested_at: Instant
    closed_at: Instant


class ImageStalled(Event):
    """A record became a dead letter. **Public out.** Ends nothing: a replay can bring it back."""

    request_id: Id | None = None
    tenant: Tenant = "default"
    client_ref: ShortText | None = None
    batch_id: ShortText | None = None
    set_id: ShortText | None = None
    labels: Labels = {}
    candidate_id: Id | None = None
    index: int | None = None
    hop: int | None = None
    wave: int | None = None
    stage: str
    dead_class: Annotated[DeadClass, Field(alias="class")]
    reasons: tuple[Reason, ...]
    source: Position
    dead_letter: Position
    fingerprint: str
    paid_usd: Usd | None = None
    replay_count: int = 0
    stalled_at: Instant
    closes_by: Instant | None = None

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    def about(self) -> tuple[object, ...]:
        source = self.source
        return (self.stage, source.topic, source.partition, source.offset, self.replay_count)

    def key(self) -> str:
        return str(self.request_id) if self.request_id else f"{self.source.partition}/{self.source.offset}"


# ---- facts beside the line ----------------------------------------------------------------------


class ProviderOutcome(Event):
    """One attempt at a provider ended. Feeds provider health; nothing that matters is summed from it.

    Only the provider's doing is told here: a fault of ours (database, bucket, decoding) is no attempt's outcome.
    `price_usd` was paid, `expected_usd` was the hop's price.
    """

    provider: str
    model: str
    candidate_id: Id
    hop: int
    fence: int
    outcome: OutcomeClass
    seconds: float
    price_usd: Usd
    at: Instant
    expected_usd: Usd | None = None
    queue_s: float | None = None

    def about(self) -> tuple[object, ...]:
        return (self.provider, self.candidate_id, self.hop, self.fence)

    def key(self) -> str:
        return self.provider


class ProviderHealth(Event):
    """How a provider did over the last windows. Advisory: the router works without it. Compacted."""

    provider: str
    attempts: int
    made: int
    failures: dict[str, int] = {}
    success_ratio: float | None = None
    p50_s: float | None = None
    p95_s: float | None = None
    scored: int = 0
    passed: int = 0
    window_s: int
    at: Instant
    models: dict[str, ModelHealth] = {}

    def about(self) -> tuple[object, ...]:
        return (self.provider, self.at.isoformat())

    def key(self) -> str:
        return self.provider


class SwitchSet(Event):
    """Somebody stopped or released a part of the line. Compacted; the newest per scope is the truth."""

    scope: Annotated[
        str,
        Field(pattern=r"^(all|uploads|(tenant|provider|model|template|asset-type|batch|stage):[A-Za-z0-9._-]{1,128})$"),
    ]
    mode: SwitchMode
    reason: Text
    actor: str
    set_at: Instant
    expires_at: Instant | None = None

    def about(self) -> tuple[object, ...]:
        return (self.scope, self.set_at.isoformat())

    def key(self) -> str:
        return self.scope


class PlacedEvent(Event):
    """Somebody set a row at a place, or took one back (`row` absent). Compacted; the newest per place is the truth."""

    place: str
    row: BaseModel | None = None
    reason: Text
    actor: str
    set_at: Instant

    def about(self) -> tuple[object, ...]:
        return (self.place, self.set_at.isoformat())

    def key(self) -> str:
        return self.place


class GateSet(PlacedEvent):
    """Somebody set a threshold, or took one back (`row` absent). Compacted; the newest per place is the truth.

    In force for images scored from then on (contract rule 21).
    """

    place: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}/[a-z][a-z0-9-]{0,31}/[a-z0-9]{1,8}$")]
    row: GateRow | None = None


class PriceSet(PlacedEvent):
    """Somebody set a price, or took one back (`row` absent). Compacted; the newest per place is the truth.

    In force for what is routed from then on, until the row's `until`.
    """

    place: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}/[a-z0-9._-]{1,64}/(any|draft|final)/[0-9a-z.+-]{1,12}$")
    ]
    row: PriceRow | None = None


BASES = (Event, RequestEvent, CandidateEvent, WaveEvent, PlacedEvent)


def _all_events(root: type[Event]) -> dict[str, type[Event]]:
    found = {root.type_name: root} if root not in BASES else {}
    for child in root.__subclasses__():
        found |= _all_events(child)
    return found


EVENTS: dict[str, type[Event]] = _all_events(Event)
"""Every event by its `ce_type`."""
